"""The documentation: the site builds, and its pages agree with the code."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import patchmine
from patchmine.reading.answers import Answer
from tests.support.documents import command_lines

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built strictly: a broken link, anchor or reference ends the build."""
    for module in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(module) is None:
            pytest.skip("the extra 'docs' is not installed")
    built = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", built],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return built


def test_the_site_asks_no_other_host(site):
    fetched = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")
    for page in site.rglob("*.html"):
        assert not fetched.findall(page.read_text("utf-8")), page


@pytest.mark.parametrize(
    "name",
    [
        "Index",
        "index.IndexedUnit",
        "Patch",
        "reading.answers.Answer",
        "reading.answers.Patches",
        "reading.answers.Units",
        "questions.fires.Fires",
        "questions.similar.Similar",
        "sheets.drawn.Comparison",
        "between.comparison.Between",
        "probe.probing.Probe",
        "probe.verdict.Verdict",
        "scores._whole.Scores",
    ],
)
def test_the_python_page_has_every_method(site, name):
    text = (site / "reference/python.html").read_text("utf-8")
    shown = set(re.findall(rf'id="patchmine\.{re.escape(name)}\.(\w+)"', text))
    module, _, last = f"patchmine.{name}".rpartition(".")
    kind = getattr(importlib.import_module(module), last)
    ours = [owner for owner in kind.__mro__ if owner.__module__.startswith("patchmine.")]
    methods = {member for owner in ours for member, value in vars(owner).items() if callable(value)}
    elsewhere = vars(Answer) if kind is not Answer else ()  # described once
    assert {method for method in methods if not method.startswith("_") and method not in elsewhere} <= shown


def test_the_command_line_page_is_that_of_the_commands():
    generator = loaded(REFERENCE / "_cli.py")
    assert generator.PAGE.read_text("utf-8") == generator.page(), f"write the page again: {generator.COMMAND}"


def test_the_messages_on_the_errors_page_are_those_of_the_commands(shapes_index_dir, tmp_path, monkeypatch):
    shutil.copytree(shapes_index_dir, tmp_path / "shapes.patchmine")
    monkeypatch.chdir(tmp_path)
    generator = loaded(REFERENCE / "_errors.py")
    assert generator.PAGE.read_text("utf-8") == generator.page(), f"write them again: {generator.COMMAND}"


def test_the_errors_page_has_the_whole_tree():
    import patchmine.errors

    tree = re.search(r"```text\n(.*?)```", (REFERENCE / "errors.md").read_text("utf-8"), re.DOTALL)[1]
    classes = [c for c in vars(patchmine.errors).values() if isinstance(c, type) and issubclass(c, Exception)]
    assert sorted(re.findall(r"\w+Error", tree)) == sorted(c.__name__ for c in classes)


def test_the_format_page_names_all_that_an_index_holds(shapes_index):
    from patchmine.store.hdf5 import dataset_digests

    text = (REFERENCE / "index-format.md").read_text("utf-8")
    for name in dataset_digests(shapes_index.directory / "activations.h5"):
        group, _, rest = name.partition("/")
        dataset = rest.partition("/")[2] if group == "layers" else rest
        assert f"`{dataset}`" in text, name
    for key in (*shapes_index.manifest, *shapes_index.manifest["job"]):
        assert f"`{key}`" in text, key
    first_line = (shapes_index.directory / "patches.faiss").read_bytes().partition(b"\n")[0]
    for key in json.loads(first_line)["layers"]["thing"]:
        assert f"`{key}`" in text, key


def test_the_picture_of_the_wings_is_that_of_the_contract():
    page = (DOCS / "development/architecture.md").read_text("utf-8")
    drawn = re.findall(r"^(\S.*?)  +\S", re.search(r"```text\n(.*?)```", page, re.DOTALL)[1], re.MULTILINE)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    assert drawn == next(contract["layers"] for contract in settings["contracts"] if contract["type"] == "layers")


def test_the_files_of_the_facts_exist():
    page = (DOCS / "evidence/facts-behind-the-code.md").read_text("utf-8")
    facts = re.findall(r"^\| `(\S+)` \| (.*) \|$", page, re.MULTILINE)
    assert len(facts) > 10
    for file, fact in facts:
        text = (ROOT / "patchmine" / file).read_text("utf-8")
        if name := re.match(r"`(\w+)`: ", fact):
            assert re.search(rf"\b{name[1]}\b", text), (file, name[1])


def test_every_public_name_has_a_place_on_the_python_page():
    described = set(re.findall(r"^::: patchmine\.(\w+)$", (REFERENCE / "python.md").read_text("utf-8"), re.MULTILINE))
    assert set(patchmine.__all__) <= described


@pytest.mark.parametrize(
    ("folder", "page"),
    [
        ("sources", "extend/source.md"),
        ("models", "extend/model.md"),
        ("executors", "extend/executor.md"),
        ("engines", "extend/engine.md"),
        ("exports", "extend/export.md"),
        ("scores", "extend/score.md"),
        ("sheets/layouts", "extend/layout.md"),
    ],
)
def test_every_kind_is_on_the_page_of_its_family(folder, page):
    text = (DOCS / page).read_text("utf-8")
    for file in (ROOT / "patchmine" / folder).glob("[!_]*.py"):
        assert f"`{file.stem.replace('_', '-')}`" in text, f"{page} does not name {file.stem}"


LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s#]+)[^)]*\)|<(?:img|a)\b[^>]*\b(?:src|href)=\"([^\"#]+)")


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "data/README.md"])
def test_links_and_pictures_of_pages_outside_the_site_exist(page):
    file = ROOT / page
    if not file.exists():
        pytest.skip(f"there is no {page}")
    for target in (one or other for one, other in LINK.findall(file.read_text("utf-8"))):
        if "://" not in target and not target.startswith("mailto:"):
            assert (file.parent / target).exists(), f"{page} leads to {target}"


DOCUMENT = re.compile(r"```sh\npatchmine ([^\n]+)\n```\n\n```json\n(.*?)```", re.DOTALL)
DOCUMENTS = DOCUMENT.findall((REFERENCE / "json.md").read_text("utf-8"))
DATA = {"datasets", "given", "named", "others", "skipped"}
"""Whose keys are data and differ from index to index."""
NOT_RUN = {
    "why": "takes a minute; tests/test_why.py has it",
    "import": "reads what another command wrote; tests/test_exports.py has it",
}


def test_the_json_page_has_the_keys_that_commands_print(cli, shapes_index_dir, tmp_path):
    shutil.copytree(shapes_index_dir, tmp_path / "shapes.patchmine")
    for command, written in DOCUMENTS:
        words = shlex.split(command)
        if words[0] in NOT_RUN:
            continue
        done = cli(*words)
        assert done.returncode == 0, (command, done.stderr)
        assert keys(json.loads(written)) == keys(json.loads(done.stdout)), command


def test_every_command_with_json_is_on_the_json_page():
    from typer.main import get_command

    from patchmine.cli import app

    commands = get_command(app).commands
    with_json = {name for name, command in commands.items() if any("--json" in p.opts for p in command.params)}
    assert with_json - {"merge"} == {command.split()[0] for command, _ in DOCUMENTS}  # merge prints that of index


def keys(document, name=""):
    """The keys of a document, at every depth; of a list those of its first entry."""
    if isinstance(document, dict):
        return {} if name in DATA else {key: keys(value, key) for key, value in document.items()}
    if isinstance(document, list) and document:
        return [keys(document[0], name)]
    return None


def loaded(file):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_gallery_shows_eight_figures_with_their_commands():
    page = (DOCS / "gallery.md").read_text("utf-8")
    drawn = [words[-1] for words in command_lines(page) if words[0] == "sheet"]
    assert [Path(name).stem for name in drawn] == re.findall(r"\(images/(gallery-\w+)\.jpg\)", page)
    assert len(set(drawn)) == 8
    assert all((DOCS / "images" / f"{Path(name).stem}.jpg").exists() for name in drawn)
