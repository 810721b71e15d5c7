#!/usr/bin/env bash
# Everything that has to pass: style, types, tests. On a fresh machine it first makes .venv and installs into it.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
prepare dev
python -m ruff check .
python -m mypy
python -m pytest -n 2 "$@"  # two at a time, each with threads of its own
