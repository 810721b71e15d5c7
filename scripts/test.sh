#!/usr/bin/env bash
# Runs every check: style, types, import contracts, tests. On a fresh machine it first creates .venv and installs into it.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
prepare dev
python -m ruff check .
python -m mypy
lint-imports
python -m pytest -n 2 "$@"  # two processes, each with its own threads
