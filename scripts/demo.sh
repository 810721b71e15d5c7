#!/usr/bin/env bash
# Runs the demo on real photographs that ship with packages: index them, query the index, draw contact sheets.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
prepare demo
patchmine demo "$@"
