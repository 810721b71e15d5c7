#!/usr/bin/env bash
# The main job on real photographs that come inside packages: index, ask, draw a contact sheet.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
prepare demo
patchmine demo "$@"
