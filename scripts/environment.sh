# Sourced by the other scripts. `prepare EXTRA` activates .venv, with patchmine and that extra installed.
prepare() {
  local python=${PYTHON:-python3}
  if [ ! -x .venv/bin/python ]; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
      { echo "patchmine needs Python 3.11 or newer; choose one with: PYTHON=python3.11 $0" >&2; exit 1; }
    "$python" -m venv .venv
  fi
  # shellcheck disable=SC1091
  source .venv/bin/activate
  # The first installation takes minutes; later calls skip it until pyproject.toml changes.
  local stamp=.venv/patchmine-$1
  if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
    echo "installing patchmine with its extra '$1' into .venv (takes a few minutes the first time)" >&2
    python -m pip install --quiet --disable-pip-version-check -e ".[$1]"
    touch "$stamp"
  fi
  python -m compileall -q patchmine  # as pip does for a package that is not editable: a command starts 0.1 s sooner
}
