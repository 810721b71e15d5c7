"""How the house is kept: imports point one way, importing changes nothing, kinds are found by their files."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import patchmine
from patchmine import engines, executors, models, sources

ROOT = Path(patchmine.__file__).parent

# From the ground up; a module may import what stands before it, and its own package.
FLOORS = [
    floor.split()
    for floor in (
        "allocator digests errors printable stages request units classes wordnet tables recipe",
        "ranking reporting geometry photographs shardfile reach regular documents headers",
        "likeness class_match picking canvas straight parametrization",
        "job decode network tar_headers weights crops naming labelling",
        "field_moves field_calls field_windows checked datasets",
        "layers field_rules observer sources models store storing",
        "receptive effective folding executors gpu reduction vectors class_file rectifying robustness objectives",
        "synthesis",
        "index similarity firing looking projecting labels names_file facets answers "
        "spectrum synthetic comparing sheets",
        "calibration fields known giving",
        "predicting shards telling retained",
        "engines demo",
        "study",
        "workspace publishing",
        "mining",
        "merging verification",
        "cli",
    )
]
FLOOR = {name: number for number, floor in enumerate(FLOORS) for name in floor}


def imported(file):
    """The parts of patchmine that a file imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "patchmine":
            parts = node.module.split(".")[1:2]
            yield from parts or [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("patchmine."))


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_one_way(file):
    own = file.relative_to(ROOT).parts[0].removesuffix(".py")
    if own in ("__init__", "__main__"):
        return
    for part in imported(file):
        assert part == own or FLOOR[part] <= FLOOR[own], f"{own} imports {part}"


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
