"""How the house is kept: imports point one way, importing changes nothing, kinds are found by their files."""

import subprocess
import sys
from pathlib import Path

import pytest

import patchmine
from patchmine import engines, executors, models, sources

ROOT = Path(patchmine.__file__).parent

def test_the_public_names_are_what_they_say():
    for name in patchmine.__all__:
        assert getattr(patchmine, name).__module__.startswith("patchmine.")
    assert set(dir(patchmine)) == set(patchmine.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        patchmine.nothing  # noqa: B018


def test_importing_loads_nothing():
    program = "import sys; before = set(sys.modules); import patchmine; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "numpy" not in done.stdout
    assert "torch" not in done.stdout


@pytest.mark.parametrize("package", [sources, models, executors, engines])
def test_every_file_in_a_folder_of_kinds_is_a_kind(package):
    files = {file.stem for file in Path(package.__file__).parent.glob("*.py")} - {"__init__"}
    assert set(package.kinds()) == files
    for kind in package.kinds().values():
        assert kind.HELP
        assert "\n" not in kind.HELP
