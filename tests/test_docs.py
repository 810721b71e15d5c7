"""The documentation: the site builds, and its pages agree with the code."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import patchmine

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"


def test_the_site_builds_strictly_and_asks_no_other_host(tmp_path):
    for module in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(module) is None:
            pytest.skip("the extra 'docs' is not installed")
    built = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", built],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    fetched = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")
    for page in built.rglob("*.html"):
        assert not fetched.findall(page.read_text("utf-8")), page


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
    from patchmine.store.reading import dataset_digests

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
        ("sheets/layouts", "extend/layout.md"),
    ],
)
def test_every_kind_is_on_the_page_of_its_family(folder, page):
    text = (DOCS / page).read_text("utf-8")
    for file in (ROOT / "patchmine" / folder).glob("[!_]*.py"):
        assert f"`{file.stem}`" in text, f"{page} does not name {file.stem}"


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
DATA = {"datasets", "given", "others", "skipped"}
"""Whose keys are data and differ from index to index."""
NOT_RUN = {"why": "takes a minute; tests/test_why.py has it"}


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
