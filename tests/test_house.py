"""How the house is kept: imports point one way, files stay small, importing changes nothing, files are kinds."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import patchmine
from patchmine import engines, executors, exports, models, scores, sources

ROOT = Path(patchmine.__file__).parent
KINDS = {
    "sources",
    "models",
    "executors",
    "engines",
    "exports",
    "readouts",
    "scores",
    "layouts",
    "commands",
    "instruments",
}
"""Folders that hold one file a kind, however many kinds there are."""

CANARY = {
    "upper/__init__.py": "",
    "upper/asks.py": "from canary.lower import knows",
    "lower/__init__.py": "",
    "lower/knows.py": "",
    "lower/other.py": "",
}
"""A package that keeps both contracts."""


def lint_imports(folder, config):
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"]
    words = ["--config", str(config), "--no-cache"]
    return subprocess.run([*command, *words], capture_output=True, text=True, cwd=folder)


def test_imports_point_one_way_and_nowhere_in_a_circle():
    done = lint_imports(ROOT.parent, ROOT.parent / "pyproject.toml")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        (None, "", set()),
        ("lower/knows.py", "from canary.upper import asks", {"wings", "no circles"}),
        ("lower/knows.py", "def lazy():\n    from canary.upper import asks", {"wings", "no circles"}),
        (
            "lower/knows.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from canary.upper import asks",
            {"wings", "no circles"},
        ),
        ("lower/other.py", "from canary.lower import knows", set()),
        ("lower/knows.py", "def lazy():\n    from canary.lower import other", {"no circles"}),
        ("attic.py", "", {"wings"}),
    ],
    ids=["intact", "eager", "lazy", "for types", "sideways", "circle in a wing", "not placed"],
)
def test_the_contracts_fail_where_they_are_broken(tmp_path, file, line, broken):
    """The canary: the contracts of patchmine, over a small package."""
    for name, text in CANARY.items():
        target = tmp_path / "canary" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    (tmp_path / "canary/__init__.py").write_text("")
    if file is not None:
        (tmp_path / "canary" / file).write_text(line)
        if broken == {"no circles"}:
            (tmp_path / "canary/lower/other.py").write_text("from canary.lower import knows")
    settings = tomllib.loads((ROOT.parent / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    kinds = {contract["name"]: contract["type"] for contract in settings["contracts"]}
    (tmp_path / "lint.toml").write_text(f"""
[tool.importlinter]
root_package = "canary"
[[tool.importlinter.contracts]]
name = "wings"
type = "{kinds["wings"]}"
containers = ["canary"]
exhaustive = true
layers = ["upper", "lower"]
[[tool.importlinter.contracts]]
name = "no circles"
type = "{kinds["no circles"]}"
ancestors = ["canary"]
""")
    done = lint_imports(tmp_path, tmp_path / "lint.toml")
    for contract in ("wings", "no circles"):
        assert f"{contract} {'BROKEN' if contract in broken else 'KEPT'}" in done.stdout, done.stdout + done.stderr
    assert (done.returncode == 0) == (not broken)


def test_a_wing_holds_at_most_twelve_files_and_a_file_at_most_400_lines():
    for folder in (folder for folder in (ROOT, *ROOT.rglob("*")) if folder.is_dir() and folder.name not in KINDS):
        files = list(folder.glob("*.py"))
        assert len(files) <= 12, f"{folder.name} has {len(files)} files"
    for file in ROOT.rglob("*.py"):
        assert len(file.read_text("utf-8").splitlines()) <= 400, file.name


def test_a_function_has_at_most_60_lines():
    """The options that a command declares do not count: its signature is a table."""
    for file in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                first = node.body[0].lineno if file.parent.name == "commands" else node.lineno
                assert node.end_lineno - first < 60, f"{file.name}: {node.name}"


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


@pytest.mark.parametrize("package", [sources, models, executors, engines, exports, scores])
def test_every_file_in_a_folder_of_kinds_is_a_kind(package):
    files = {file.stem.replace("_", "-") for file in Path(package.__file__).parent.glob("[!_]*.py")}
    assert set(package.kinds.names) == files
    for name in files:
        kind = package.kinds.get(name, "kind")
        assert package.kinds.help(name) == kind.HELP
        assert "\n" not in kind.HELP
