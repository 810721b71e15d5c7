"""The examples of the pages on extending patchmine: each is written to a file as it stands there, and used for real."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import tomllib
from importlib.util import find_spec

import pytest
from PIL import Image

from tests.support.distribution import install, patchmine, program
from tests.support.documents import DOCS, blocks

REGISTRIES = ("source", "model", "executor", "engine", "export")
LEFT_OUT = re.compile(r"is left out: (?:it has no (?P<missing>.+)|it fails to import \(.*'(?P<module>\w+)'\))")


def on_page(name, language):
    """The block of that language on an extend page; a page has one."""
    text = (DOCS / f"extend/{name}.md").read_text("utf-8")
    (found,) = [block for block in blocks(text) if block.language == language]
    return found


def entry_points():
    """What pip makes of the `pyproject.toml` of a package that has the entry points of all pages."""
    tables = [tomllib.loads(on_page(name, "toml").text)["project"]["entry-points"] for name in REGISTRIES]
    return "".join(
        f"[{group}]\n" + "".join(f"{kind} = {module}\n" for kind, module in kinds.items())
        for table in tables
        for group, kinds in table.items()
    )


def examples():
    return {on_page(name, "python").file: on_page(name, "python").text for name in REGISTRIES}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    files = {"your_package/__init__.py": "", **examples()}
    return install(tmp_path_factory.mktemp("site"), "your-package", files, entry_points())


def test_the_kinds_of_the_pages_make_an_index_together(site, tmp_path):
    words = ["--model", "edges:4", "--executor", "gentle", "--engine", "pool", "--shard-size", 4, "--keep", 3]
    done = patchmine(site, tmp_path, "index", "every:2:shapes:16", *words)
    assert done.returncode == 0, done.stderr
    job = json.loads((tmp_path / "shapes-16-every-2.patchmine/manifest.json").read_text())["job"]
    assert (job["source"], job["model"], job["executor"]) == ("every:2:shapes:16", "edges:4", "gentle")
    answer = patchmine(site, tmp_path, "top", "--unit", "edges:1", "-k", 8, "--json")
    assert answer.returncode == 0, answer.stderr
    patches = json.loads(answer.stdout)["patches"]
    assert {patch["image"] for patch in patches} == {f"{number:06d}.png" for number in range(0, 16, 2)}
    assert patches[0]["value"] > 0


def test_the_export_of_the_page_writes_the_boxes_of_top(site, shapes_index_dir, shapes_index, tmp_path):
    words = ["export", "boxes", "-i", shapes_index_dir, "-o", "boxes.txt", "--unit", "thing:0", "-k", 3]
    done = patchmine(site, tmp_path, *words)
    assert (done.returncode, done.stdout) == (0, "boxes.txt: 3 boxes of 1 units\n"), done.stderr
    for patch, line in zip(
        shapes_index.unit("thing:0").top(3), (tmp_path / "boxes.txt").read_text().splitlines(), strict=True
    ):
        assert line.split() == ["thing:0", patch.image, *map(str, patch.box.as_tuple())]


def test_the_source_of_the_page_refuses_a_malformed_word(site, tmp_path):
    done = patchmine(site, tmp_path, "index", "every:0:shapes:16")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "'every:0:shapes:16' is not every:N:SOURCE" in done.stderr


def test_the_line_on_a_page_is_that_of_a_bad_plug_in(tmp_path):
    lines, files = [], {"your_package/__init__.py": ""}
    for name in REGISTRIES:
        line, example = on_page(name, "console").text, on_page(name, "python")
        reason = LEFT_OUT.search(line)
        missing, module = reason["missing"], reason["module"]
        spoilt = f"del {missing.replace(' and no ', ', ')}" if missing else f"import {module}"
        files[example.file] = f"{example.text}\n{spoilt}\n"
        lines.append(line.strip())
    site = install(tmp_path / "site", "your-package", files, entry_points())
    families = "sources, models, executors, engines, exports"
    ask = f"from patchmine import {families}\nfor of in ({families}): "
    done = program(site, tmp_path, f"{ask}list(of.kinds)")
    assert (done.returncode, done.stderr.splitlines()) == (0, lines)


@pytest.fixture
def beside_an_index(shapes_index_dir, tmp_path, monkeypatch):
    """The working directory holds one index, as the scripts of the pages expect."""
    shutil.copytree(shapes_index_dir, tmp_path / "shapes.patchmine")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def script(name, folder):
    """Run the script of a page; returns its names."""
    example = on_page(name, "python")
    (folder / example.file).write_text(example.text, "utf-8")
    return runpy.run_path(str(folder / example.file))


def test_the_layout_of_the_page_draws_every_layer(beside_an_index, shapes_index, capsys):
    script("layout", beside_an_index)
    for layer in shapes_index.layers:
        with Image.open(beside_an_index / f"{layer}.png") as sheet:
            assert min(sheet.size) > 200
            colors = sheet.convert("RGB").getcolors(sheet.width * sheet.height)
            assert len(colors) > 256  # photographs, not texts in grays alone
    assert capsys.readouterr().out == ""


def test_the_question_of_the_page_is_answered(beside_an_index, shapes_index, capsys):
    names = script("question", beside_an_index)
    answer = names["frequent"](shapes_index, "thing")
    tops = [{patch.image for patch in unit.top(9)} for unit in shapes_index.units("thing")]
    for row in answer.rows():
        assert row["units"] == sum(row["image"] in top for top in tops)
    assert str(answer.as_dict()) in capsys.readouterr().out
    if find_spec("pandas"):
        assert list(answer.to_pandas().columns) == list(answer.columns)


@pytest.mark.parametrize("name", [*REGISTRIES, "layout", "question"])
def test_an_example_is_short(name):
    """Imports and blank lines do not count. The site shows 88 columns without scrolling."""
    lines = on_page(name, "python").text.splitlines()
    assert len([line for line in lines if line.strip() and not line.startswith(("import ", "from "))]) <= 22
    assert max(map(len, lines)) <= 92
