"""`patchmine site`: each link leads to a file, an interrupted run is resumed, and nothing else is overwritten."""

import json
import re
import shutil
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from PIL import Image

import patchmine
from patchmine.units import Unit
from tests.support.commands import failed

pytest.importorskip("jinja2", reason="needs the extra 'web'")

from patchmine.web.site import chosen, export, slug

UNITS = ["colour:0", "colour:2", "template:3"]


class Links(HTMLParser):
    """The addresses that a page names."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("href", "src", "data-photograph", "data-search")]


def crawled(folder):
    """The files that are reached from index.html, by what each page names and by the search list."""
    reached, left = set(), [folder / "index.html"]
    while left:
        file = left.pop()
        assert file.is_file(), file
        if file in reached:
            continue
        reached.add(file)
        if file.suffix == ".html":
            for link in Links(file.read_text("utf-8")).found:
                parts = urlsplit(unescape(link))
                assert not parts.scheme and not parts.netloc and not parts.path.startswith("/"), link
                if parts.path:
                    left.append(Path(file.parent, unquote(parts.path)).resolve())
    listed = json.loads((folder / "search.js").read_text()[len("window.patchmine = ") : -2])
    for number, channel, *_ in listed["units"]:
        layer = listed["layers"][number]
        assert Path(folder, unquote(f"{layer['units']}{channel}{layer['end']}")).resolve() in reached
    return reached


@pytest.fixture(scope="module", autouse=True)
def few_patches():
    """Drawn photographs are drawn anew for each picture."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("patchmine.web.site.K", 3)
        yield


@pytest.fixture(scope="module")
def site(shapes_index_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "pages"
    index = patchmine.open_index(shapes_index_dir)
    export(index, folder, chosen(index, [], UNITS))
    return folder


def test_each_link_leads_to_a_file_and_each_file_is_reached(site, shapes_index_dir):
    site = site.resolve()
    files = {file for file in site.rglob("*") if file.is_file()}
    assert files - crawled(site) == {site / "site.json"}
    pages = {file.relative_to(site).as_posix() for file in files if file.suffix == ".html"}
    units = {f"units/{unit.replace(':', '/')}.html" for unit in UNITS}
    assert pages == units | {"index.html", "layers/colour.html", "layers/template.html"}
    for file in files:
        if file.suffix in (".jpg", ".webp"):
            with Image.open(file) as picture:
                picture.load()
        if file.suffix == ".html":
            assert str(shapes_index_dir.parent) not in file.read_text("utf-8")


def test_an_interrupted_site_is_resumed(site, shapes_index_dir, tmp_path):
    index = patchmine.open_index(shapes_index_dir)
    units = chosen(index, [], UNITS)
    folder = shutil.copytree(site, tmp_path / "pages")
    (folder / "index.html").unlink()
    lost = sorted((folder / "crops/template").iterdir())[:3]
    for file in lost:
        file.unlink()
    report = export(index, folder, units)
    assert report.pictures - report.resumed == 3
    assert all(file.read_bytes() == (site / file.relative_to(folder)).read_bytes() for file in lost)
    assert export(index, folder, units[:1], pointers_only=True).resumed == 0


def test_layers_are_chosen_by_name_or_pattern(shapes_index):
    found = chosen(shapes_index, ["col*"], ["template:3"])
    assert found == [*(Unit("colour", n) for n in range(shapes_index.layers["colour"])), Unit("template", 3)]
    assert len(chosen(shapes_index, [], [])) == sum(shapes_index.layers.values())


def test_pointers_only_shows_no_picture(shapes_index_dir, tmp_path, cli):
    words = ("site", "-i", shapes_index_dir, "-o", tmp_path / "out", "--units", "colour:1", "--pointers-only", "--json")
    report = json.loads(cli(*words).stdout)
    assert (report["pages"], report["pictures"]) == (3, 0)
    page = (tmp_path / "out/units/colour/1.html").read_text()
    assert re.search(r"<img(?! id=\"viewer)", page) is None
    index = patchmine.open_index(shapes_index_dir)
    assert index.unit("colour:1").top(1)[0].image in page
    assert crawled((tmp_path / "out").resolve())


def test_photographs_that_are_missing_leave_an_empty_tile(photographs, tmp_path):
    moved = shutil.copytree(photographs, tmp_path / "mine")
    index = patchmine.open_index(patchmine.build_index(moved, tmp_path / "i.patchmine", model="shapes").directory)
    for file in moved.rglob("*.jpg"):
        file.unlink()
    report = export(index, tmp_path / "out", [Unit("colour", 0)])
    assert report.missing
    assert crawled((tmp_path / "out").resolve())


def test_what_does_not_fit_is_refused(cli, shapes_index_dir, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    assert "holds something else" in failed(cli("site", "-i", shapes_index_dir, "-o", tmp_path / "full"))
    assert (tmp_path / "full/mine.txt").read_text() == "mine"
    (tmp_path / "file").write_text("")
    assert "is a file" in failed(cli("site", "-i", shapes_index_dir, "-o", tmp_path / "file/below"))
    assert "no layer 'nolayer'" in failed(cli("site", "-i", shapes_index_dir, "-o", "out", "--layers", "nolayer"))
    assert "colour:99" in failed(cli("site", "-i", shapes_index_dir, "-o", "out", "--units", "colour:99"))


@pytest.mark.parametrize("layer", ["..", "a/b", "a:b?c#d%", "ü" * 90, ".git", "x" * 300])
def test_a_layer_of_any_name_is_one_file(layer):
    found = slug(layer)
    assert re.fullmatch(r"[^/\\:?#%]{1,130}", found)
    assert not found.startswith(".")
    assert found != slug(layer + "_")


def test_the_nearest_units_are_those_of_similar(shapes_index):
    from patchmine.questions.similar import correlated
    from patchmine.web.site import _correlated

    found = _correlated(shapes_index, chosen(shapes_index, [], []))
    for unit in (Unit("colour", 0), Unit("thing", 3), Unit("template", 7)):
        told = [similarity for _, similarity in correlated(shapes_index.unit(unit), 8)]
        assert [similarity for _, similarity in found[unit]] == pytest.approx(told, abs=1e-3)
