# Sourced by the other scripts: `prepare EXTRA` makes sure that patchmine with that extra is at hand, in .venv.
prepare() {
  local python=${PYTHON:-python3}
  if [ ! -x .venv/bin/python ]; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
      { echo "patchmine needs Python 3.11 or newer; name one: PYTHON=python3.11 $0" >&2; exit 1; }
    "$python" -m venv .venv
  fi
  # shellcheck disable=SC1091
  source .venv/bin/activate
  # Installing takes minutes the first time and is skipped as long as pyproject.toml stays as it was.
  local stamp=.venv/patchmine-$1
  if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
    echo "installing patchmine with its extra '$1' into .venv (some minutes the first time)" >&2
    python -m pip install --quiet --disable-pip-version-check -e ".[$1]"
    touch "$stamp"
  fi
}
