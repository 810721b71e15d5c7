"""Synthetic images of an index: made once, kept with their settings, made again where what is kept is not sound."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import patchmine
from patchmine.networks.taps import tapped
from patchmine.questions import compare as comparing
from patchmine.sheets.layouts.compare import compare_page
from patchmine.synthesis import amplitudes, library
from patchmine.synthesis.recipe import Recipe
from patchmine.system.progress import Silent
from patchmine.units import Unit

SOON = ("--steps", 4, "--json")


@pytest.fixture
def index_dir(shapes_index_dir, tmp_path):
    """A copy: synthetic images are written into it."""
    return shutil.copytree(shapes_index_dir, tmp_path / "shapes.patchmine")


@pytest.fixture
def index(index_dir):
    return patchmine.open_index(index_dir)


def test_synth_keeps_what_it_makes_and_shows_it_again_without_the_network(cli, index_dir, monkeypatch):
    words = ("synth", "-i", index_dir, "--unit", "colour:0", *SOON)
    first = cli(*words, "-o", "liked.png")
    document = json.loads(first.stdout)
    assert list(document) == ["index", "recipe", "units"]
    assert document["recipe"]["steps"] == 4
    (unit,) = document["units"]
    assert unit.keys() >= {"layer", "channel", "name", "label", "best_real", "dead", "images"}
    (image,) = unit["images"]
    assert image.keys() >= {"file", "width", "height", "value", "mean", "stopped", "canvas"}
    assert (image["width"], image["height"]) == (5, 5)
    with Image.open("liked.png") as liked, Image.open(image["file"]) as kept:
        assert np.array_equal(np.array(liked), np.array(kept))
        assert liked.size == (5, 5)

    def refuse(*_):
        raise AssertionError("the network was loaded")

    monkeypatch.setattr("patchmine.models.load_for_index", refuse)
    assert json.loads(cli(*words).stdout) == document


def test_what_is_kept_is_what_the_unit_does_on_that_picture(index, index_dir):
    (image,) = library.images_of(index, Unit("shape", 0), Recipe(steps=3))
    network = index.network()
    at = image.canvas.position
    batch = torch.zeros(1, 3, *image.canvas.size)
    box = image.canvas.picture
    pixels = torch.from_numpy(image.picture.copy()).permute(2, 0, 1).float() / 255
    batch[0, :, box.top : box.bottom, box.left : box.right] = pixels * 2 - 1
    outputs = []
    with tapped(network.module, {"shape": lambda output: outputs.append(output.clone())}):
        network.module(batch)
    assert float(outputs[0][0, 0, at.y, at.x]) == pytest.approx(image.value, abs=1e-5)


def _cut(file):
    file.write_bytes(file.read_bytes()[:40])


def _grown(file):
    Image.new("RGB", (4000, 4000)).save(file)


def _gone(file):
    file.unlink()


@pytest.mark.parametrize("harm", [_cut, _grown, _gone])
def test_a_picture_that_is_not_sound_is_made_again(cli, index_dir, harm):
    words = ("synth", "-i", index_dir, "--unit", "colour:1", *SOON)
    first = cli(*words).stdout
    (picture,) = (index_dir / "synthetic").glob("*.png")
    good = picture.read_bytes()
    harm(picture)
    assert cli(*words).stdout == first
    assert picture.read_bytes() == good


@pytest.mark.parametrize(
    ("old", "new"),
    [('"sound": true', '"sound": 7'), ('"steps": 4', '"steps": 5'), ('"value": ', '"value": 1e999, "x": '), ("{", "[")],
)
def test_a_document_that_is_not_sound_is_made_again(cli, index_dir, old, new):
    words = ("synth", "-i", index_dir, "--unit", "colour:1", *SOON)
    first = cli(*words).stdout
    (document,) = (index_dir / "synthetic").glob("*.json")
    assert old in document.read_text()
    document.write_text(document.read_text().replace(old, new))
    assert cli(*words).stdout == first
    assert old in document.read_text()


class Counted(Silent):
    def begin(self, total, done, what="photographs"):
        self.total, self.done = total, done


def test_a_layer_goes_on_where_it_was_stopped(index, monkeypatch):
    monkeypatch.setattr(library, "BATCH", 3)
    units, recipe = library.units_of(index, "colour"), Recipe(steps=2)
    begun = library.synthesized(index, units, recipe)
    stopped = [next(begun)[0] for _ in range(4)]
    begun.close()
    progress = Counted()
    made = dict(library.synthesized(index, units, recipe, progress=progress))
    assert stopped == units[:4]
    assert set(made) == set(units)
    assert (progress.total, progress.done) == (16, 8)


def test_the_settings_are_part_of_what_is_kept(index, monkeypatch):
    monkeypatch.setattr(amplitudes, "PHOTOGRAPHS", 4)

    def made(**changes):
        return library.images_of(index, Unit("colour", 2), Recipe(steps=2, **changes))[0]

    found = [made(), made(seed=1), made(objective="channel"), made(method="pixels"), made(size=9), made(method="maco")]
    assert len({image.file for image in found}) == len(found)
    assert [image.picture.shape[0] for image in found] == [5, 5, 224, 5, 9, 5]


def test_it_starts_in_a_patch(index):
    recipe = Recipe(steps=1, rate=1e-9, size=31)
    (image,) = library.images_of(index, Unit("colour", 0), recipe, start=1)
    patch = index.unit("colour:0").top(1)[0]
    assert image.value == pytest.approx(patch.value, rel=0.05)


def test_the_spectrum_is_measured_once_and_again_where_it_is_not_sound(index, monkeypatch):
    monkeypatch.setattr(amplitudes, "PHOTOGRAPHS", 4)
    first = amplitudes.of_index(index)
    assert first.shape == (3, 224, 113)
    assert first[:, 0, 0].min() > 5 * first[:, 100, 50].max()
    file = index.directory / "synthetic" / amplitudes.FILE
    good = file.read_bytes()
    for harm in (good[:-1], b"0" * 32 + good[32:], good[:32] + b"\xff" * (len(good) - 32)):
        file.write_bytes(harm)
        assert torch.equal(amplitudes.of_index(index), first)
        assert file.read_bytes() == good


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ([], "no unit given: give --unit U, or --all-in LAYER"),
        (["--unit", "colour:0", "--all-in", "colour"], "give only one of them"),
        (["--unit", "clour:0"], "did you mean colour"),
        (["--all-in", "clour"], "did you mean colour"),
        (["--unit", "colour:0", "--objective", "chanel"], "did you mean channel"),
        (["--unit", "colour:0", "--steps", "0"], "--steps must be from"),
        (["--unit", "colour:0", "--from", "999"], "--from 999"),
        (["--unit", "colour:0", "-o", "x.pdf"], "is not a PNG file: end its name in .png"),
        (["--unit", "colour:0", "-o", "no/x.png"], "folder 'no' not found"),
        (["--all-in", "colour", "-o", "x.png"], "-o x.png"),
        (["--unit", "colour:0", "--objective", "channel", "--size", "1", "--steps", "2"], "1x1 pixels"),
    ],
)
def test_bad_input_gets_one_line(cli, index_dir, words, answer):
    done = cli("synth", "-i", index_dir, *words)
    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("patchmine: ")
    assert answer in last


def test_a_folder_that_leads_elsewhere_is_not_written_to(cli, index_dir, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (index_dir / "synthetic").symlink_to(tmp_path / "elsewhere")
    done = cli("synth", "-i", index_dir, "--unit", "colour:0", *SOON)
    assert done.returncode == 1
    assert "not a folder of the index" in done.stderr
    assert not any((tmp_path / "elsewhere").iterdir())


def test_a_dead_unit_is_said_alone_and_among_others(cli, index_dir):
    cli("synth", "-i", index_dir, "--all-in", "contrast", *SOON)
    document = next((index_dir / "synthetic").glob("contrast-3-*.json"))
    text = document.read_text().replace('"alive": true', '"alive": false').replace('"sound": true', '"sound": false')
    document.write_text(text)
    alone = cli("synth", "-i", index_dir, "--unit", "contrast:3", *SOON)
    assert (alone.returncode, alone.stdout) == (1, "")
    assert "contrast:3 has no image, as no gradient reaches the image" in alone.stderr
    among = cli("synth", "-i", index_dir, "--all-in", "contrast", "--steps", 4)
    assert among.returncode == 0
    assert "1 units have no image" in among.stderr
    assert "contrast:3" not in among.stdout


@pytest.fixture
def few(monkeypatch):
    """Patches to compare with: the network runs once for each."""
    monkeypatch.setattr(comparing, "AGAINST", 4)


@pytest.mark.usefixtures("few")
def test_compare_draws_both_at_one_scale(cli, index, index_dir):
    words = ("compare", "-i", index_dir, "--unit", "template:1", "--steps", 4, "-k", 4)
    done = cli(*words, "-o", "both.png")
    assert done.returncode == 0, done.stderr
    assert "best photograph" in done.stdout
    with Image.open("both.png") as picture:
        assert picture.width > 1000
    found = comparing.compare(index.unit("template:1"), Recipe(steps=4, images=3), k=4)
    page = compare_page(found)
    wide = [
        round(drawn.width / image.picture.shape[1], 6)
        for drawn, image in zip(page.pictures[:3], found.images, strict=True)
    ]
    field = index.field("template").group(1)
    assert {round(drawn.width / field.size[1], 6) for drawn in page.pictures[3:]} == set(wide)
    assert cli(*words, "-o", "both.svg").returncode == 0


def test_compare_counts_what_it_says(index):
    """Against the whole computed again from the index's own numbers."""
    unit = index.unit("template:0")
    found = comparing.compare(unit, Recipe(steps=4, images=2), k=3)
    assert found.values == pytest.approx([image.value for image in found.images], abs=1e-5)
    assert found.best == unit.top(1)[0].value
    assert found.high <= found.best
    top = {(patch.image_id, patch.position) for patch in unit.top(25)}
    assert found.shared == len(top & {(patch.image_id, patch.position) for patch in found.nearest})
    assert found.similarities == sorted(found.similarities, reverse=True)
    assert found.path.layer == "colour"
    assert len(found.path.real) == found.against == 25


@pytest.mark.usefixtures("few")
def test_another_path_is_warned_of(index):
    found = comparing.compare(index.unit("template:0"), Recipe(steps=4), k=2)
    ways = [comparing.Evidence("template", np.array([cosine]), np.array([0.5, 0.6])) for cosine in (0.49, 0.51)]
    told = [" ".join(replace(found, path=way).warnings()) for way in ways]
    assert ["Another path" in text for text in told] == [True, False]
    own = found.path.layer, found.path.real
    assert comparing._path(own[0], np.eye(3)[:1] * -1, np.ones((4, 3))).other
    assert not comparing._path(own[0], np.ones((1, 3)), np.ones((4, 3))).other
    assert "Weak" in " ".join(replace(found, values=[found.best - 1]).warnings())


@pytest.mark.usefixtures("few")
def test_the_first_layer_has_no_layer_before(index):
    found = comparing.compare(index.unit("contrast:0"), Recipe(steps=2), k=2)
    assert found.path is None
    assert "layer before" not in " ".join(found.facts())


@pytest.mark.usefixtures("few")
def test_what_no_channel_answers_has_nothing_near(index):
    found = comparing.compare(index.unit("shape:0"), Recipe(steps=1), k=2)
    assert not found.nearest
    assert "no patch is near" in " ".join(found.facts())
    assert compare_page(found).pictures


def test_compare_needs_to_know_where_to(cli, index_dir):
    for words, answer in (([], "give -o FILE"), (["-o", "x.gif"], ".svg"), (["-o", "x.png", "-k", "0"], "-k must be")):
        done = cli("compare", "-i", index_dir, "--unit", "colour:0", *words)
        assert (done.returncode, done.stdout) == (1, "")
        assert answer in done.stderr


@pytest.mark.usefixtures("few")
def test_in_python_it_is_a_figure_to_go_on_with(index):
    found = index.unit("colour:0").compare(k=2, steps=2, images=2)
    assert len(found.rows()) == 2
    assert found._repr_html_().count("<img") == 4
    assert "best photograph" in repr(found)
    figure = found.figure()
    assert len(figure.axes) >= 5
    figure.axes[0].set_title("mine")
    (image,) = index.unit("colour:0").synthesize(steps=2)
    assert image.image().size == (5, 5)
    assert image._repr_png_().startswith(b"\x89PNG")
