"""Tight crops: the search where the answer is known, what the index keeps of them, and what every command shows."""

import json
import os
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torchvision.transforms.functional import gaussian_blur

import patchmine
from patchmine.defaults import Run
from patchmine.errors import RequestError, StoreError
from patchmine.kept.tight_crops import Seat, TightCrop, TightCrops, Where
from patchmine.networks.taps import maps, survey
from patchmine.photographs.decode import normalized, prepare
from patchmine.system.progress import Silent
from patchmine.system.untrusted_json import Misfit
from patchmine.tight import tightening
from patchmine.tight.backgrounds import blurred
from patchmine.tight.search import BLUR, COVERED, GREY, NOISE, STEP, Question, moved_in, search
from patchmine.tight.surrogate import DIVISIONS, Surrogate
from patchmine.units import Box, Unit

INPUT = Box(0, 0, 224, 224)


def carried_out(asking, retained):
    """The result of a search, and the questions that it asked; `retained` answers them."""
    asked, answer = [], None
    while True:
        try:
            asked.append(asking.send(answer))
        except StopIteration as end:
            return end.value, asked
        answer = retained(asked[-1])


def share_of(thing):
    """A picture whose evidence lies evenly inside a box: another box retains the share of it that it covers."""

    def answer(question):
        covered = question.box.intersect(thing).area / thing.area
        return 1 - covered if question.around == COVERED else covered

    return answer


def moves_in(box):
    return [moved for side in range(4) if (moved := moved_in(box, side)) is not None]


@pytest.mark.parametrize("thing", [Box(40, 60, 104, 116), Box(0, 0, 32, 224), Box(180, 184, 224, 220)])
@pytest.mark.parametrize("share", [0.5, 0.8, 1.0])
def test_the_search_finds_the_smallest_box(thing, share):
    found, _ = carried_out(search(INPUT, (112, 112), min(share, 0.999)), share_of(thing))
    assert found.retained >= min(share, 0.999)
    # Where it has to cover a share of the thing, no box is smaller than that share: a step of the grid more is allowed.
    assert found.box.area <= thing.area * share + STEP * (thing.width + thing.height + 2 * STEP)


@pytest.mark.parametrize("seed", range(8))
def test_a_crop_is_on_the_grid_and_no_side_can_move_in(seed):
    rng = np.random.default_rng(seed)
    evidence = rng.normal(size=(14, 14)) + 8 * np.exp(
        -((np.mgrid[:14, :14] - rng.uniform(2, 12, (2, 1, 1))) ** 2).sum(0) / 4
    )
    evidence = np.kron(evidence / evidence.sum(), np.ones((16, 16)) / 256)
    known = {}

    def retained(question):
        box = question.box
        value = evidence[box.top : box.bottom, box.left : box.right].sum()
        if question.around == COVERED:
            return 1 - value
        value *= 1.05 if question.around == GREY else 1
        known.setdefault(box, {})[question.around] = value
        return value

    found, asked = carried_out(search(INPUT, (112, 112), 0.8), retained)
    assert all(side % STEP == 0 for side in found.box.as_tuple())
    assert found.retained == pytest.approx(min(known[found.box].values())) and found.retained >= 0.8
    for box in moves_in(found.box):
        assert min(retained(type(asked[0])(box, background)) for background in (GREY, BLUR)) < 0.801
    assert found.asked == len(asked) < 130


def test_a_search_is_deterministic_and_answers_to_nothing_finite():
    thing = share_of(Box(100, 20, 160, 90))
    assert carried_out(search(INPUT, (50, 150), 0.8), thing) == carried_out(search(INPUT, (50, 150), 0.8), thing)
    found, _ = carried_out(search(INPUT, (50, 150), 0.8), lambda _: float("nan"))
    assert found.box == INPUT and found.retained == 1.0


@pytest.mark.parametrize("domain", [Box(0, 0, 4, 4), Box(8, 4, 20, 11), Box(0, 0, 299, 301), Box(96, 0, 100, 224)])
def test_any_domain_will_do(domain):
    found, _ = carried_out(search(domain, (domain.top, domain.left), 0.8), share_of(domain))
    assert domain.contains(found.box) and found.retained >= 0.8


@pytest.mark.parametrize("error", [-0.05, 0.02, 0.05])
def test_a_rough_search_ends_with_exact_measurements(error):
    thing = Box(40, 60, 104, 116)
    exact = share_of(thing)

    def answer(question):
        return exact(question) if question.exact else exact(question) + error

    found, asked = carried_out(search(INPUT, (88, 72), 0.8, rough=True), answer)
    assert found.retained == exact(Question(found.box, GREY)) >= 0.8
    assert all(exact(Question(box, GREY)) < 0.8 + 1e-3 for box in moves_in(found.box))
    assert 0 < sum(question.exact for question in asked) <= 16 < len(asked) * 0.4  # the way to the box is rough
    assert {Question(box, around) for box in (found.box, *moves_in(found.box)) for around in (GREY, BLUR)} & set(asked)


def test_a_box_that_loses_too_much_on_noise_is_passed_over():
    """Either of two things retains everything, the nearer one not on noise."""
    frail, sound = Box(0, 0, 40, 40), Box(160, 160, 216, 216)

    def answer(question):
        of = [question.box.intersect(part).area / part.area for part in (frail, sound)]
        if question.around == COVERED:
            return 1 - max(of)
        return of[1] if question.around == NOISE else max(of)

    found, _ = carried_out(search(INPUT, (40, 40), 0.8), answer)
    assert found.box.intersect(sound).area >= 0.8 * sound.area
    assert found.box.intersect(frail).area == 0


def test_the_second_background_is_asked_only_if_the_first_does_not_rule_the_box_out():
    thing = share_of(Box(64, 64, 128, 128))
    _, asked = carried_out(search(INPUT, (112, 112), 0.8), thing)
    for first, second in pairwise(asked):
        if second.box == first.box and {first.around, second.around} == {GREY, BLUR}:
            assert thing(first) >= 0.8


def test_the_surrogate_is_a_gaussian_process_over_integrals():
    """Against the same process on a fine grid of cells, worked out by hand."""
    from patchmine.tight.surrogate import LENGTH, NOISE, VARIANCE, WIDTH

    size = (28, 28)
    surrogate = Surrogate(size, (10, 20))
    measured = [((0, 0, 28, 28), 1.0), ((4, 2, 20, 16), 0.4), ((10, 6, 28, 20), 0.7)]
    spans = np.array([(0, 10), (4, 20), (10, 28)])
    surrogate.watch(spans, spans)
    for box, value in measured:
        surrogate.add(box, value)

    fine = 56  # cells along an axis
    centers = (np.arange(fine) + 0.5) * DIVISIONS / fine
    ys, xs = (axis.ravel() for axis in np.meshgrid(centers, centers, indexing="ij"))
    bump = np.exp(-(((ys - 10 / 2) ** 2 + (xs - 20 / 2) ** 2) / (2 * WIDTH**2)))
    covariance = VARIANCE * np.exp(-((ys[:, None] - ys) ** 2 + (xs[:, None] - xs) ** 2) / (2 * LENGTH**2))
    covariance *= (DIVISIONS / fine) ** 4

    def mask(box):
        left, top, right, bottom = (edge / 2 for edge in box)
        return ((xs > left) & (xs < right) & (ys > top) & (ys < bottom)).astype(float)

    seen = np.stack([mask(box) for box, _ in measured])
    values = np.array([value for _, value in measured])
    asked = np.stack([mask((left, top, right, bottom)) for left, right in spans for top, bottom in spans])
    between = seen @ covariance @ seen.T + NOISE * np.eye(len(seen))
    gain = np.linalg.solve(between, seen @ covariance @ asked.T)
    mean = asked @ bump / bump.sum() + gain.T @ (values - seen @ bump / bump.sum())
    variance = np.einsum("ij,jk,ik->i", asked, covariance, asked) - np.einsum(
        "ij,ij->j", gain, seen @ covariance @ asked.T
    )
    assert surrogate.mean.ravel() == pytest.approx(mean, abs=0.02)
    assert surrogate.variance.ravel() == pytest.approx(variance, abs=2e-3)
    again = Surrogate(size, (10, 20))
    for box, value in measured:
        again.add(box, value)
    again.watch(spans, spans)
    assert again.mean == pytest.approx(surrogate.mean) and again.variance == pytest.approx(surrogate.variance)


def test_the_blur_is_that_of_torchvision():
    picture = torch.randn(2, 3, 56, 70, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(blurred(picture), gaussian_blur(picture, [25, 25], [4.0, 4.0]), atol=1e-5)
    assert blurred(picture[:, :, :3, :3]).shape == (2, 3, 3, 3)


# On an index of drawn photographs.


@pytest.fixture(scope="module")
def tight_dir(shapes_index_dir, tmp_path_factory):
    """The index with tight crops of three units, for reading."""
    directory = tmp_path_factory.mktemp("tight") / "shapes.patchmine"
    shutil.copytree(shapes_index_dir, directory)
    index = patchmine.open_index(directory)
    list(index.tighten(["thing:0", "thing:1", "colour:5"], k=4))
    return directory


@pytest.fixture
def fresh_dir(shapes_index_dir, tmp_path):
    directory = tmp_path / "shapes.patchmine"
    shutil.copytree(shapes_index_dir, directory)
    return directory


def test_what_a_crop_retains_holds_when_it_is_measured_apart(tight_dir):
    index = patchmine.open_index(tight_dir)
    network = index.network()
    taps = survey(network.module, network.blank(), ["thing"])

    def activation(picture, patch):
        return float(
            maps(network.module, picture, taps)["thing"][0, patch.unit.channel, patch.position.y, patch.position.x]
        )

    for patch in [*index.unit("thing:0").top(4, crop="tight"), *index.unit("thing:1").top(2, crop="tight")]:
        picture = normalized(prepare(patch.photograph(), index.preprocessing).tensor[None], index.preprocessing)
        blur = torch.from_numpy(gaussian_filter(picture.numpy(), (0, 0, 16, 16), mode="mirror", truncate=3))
        whole = activation(picture, patch)

        def retained(box, patch=patch, picture=picture, whole=whole, blur=blur):
            shares = []
            for background in (torch.zeros_like(picture), blur):
                mixed = background.clone()
                inside = (..., slice(box.top, box.bottom), slice(box.left, box.right))
                mixed[inside] = picture[inside]
                blank = activation(background, patch)
                shares.append((activation(mixed, patch) - blank) / (whole - blank))
            return min(shares)

        assert (
            patch.tight.retained == pytest.approx(retained(patch.tight.box), abs=1e-4) and patch.tight.retained >= 0.8
        )
        assert all(retained(box) < 0.8011 for box in moves_in(patch.tight.box))
        covered = picture.clone()
        inside = (
            ...,
            slice(patch.tight.box.top, patch.tight.box.bottom),
            slice(patch.tight.box.left, patch.tight.box.right),
        )
        covered[inside] = blur[inside]
        blank = activation(blur, patch)
        assert patch.tight.without == pytest.approx((activation(covered, patch) - blank) / (whole - blank), abs=1e-4)


def test_top_shows_the_crop_with_its_proof_and_nothing_else_changes(cli, tight_dir, shapes_index_dir):
    of = ("--unit", "thing:0", "-k", "3", "--json")
    shown = json.loads(cli("top", "-i", tight_dir, *of, "--crop", "tight").stdout)
    assert shown["crop"] == "tight"
    index = patchmine.open_index(tight_dir)
    for patch, known in zip(shown["patches"], index.unit("thing:0").top(3), strict=True):
        assert {"retained", "without", "area"} <= patch.keys() and patch["retained"] >= 0.8
        assert patch["input_box"] == known.tight.box.as_dict()
        assert patch["box"] == known.placement.to_source(known.tight.box).as_dict()
        assert patch["area"] == pytest.approx(known.tight.box.area / 224**2, abs=1e-6)
    plain = cli("top", "-i", tight_dir, *of).stdout.replace(str(tight_dir), "")
    assert plain == cli("top", "-i", shapes_index_dir, *of).stdout.replace(str(shapes_index_dir), "")


def test_auto_takes_the_kept_crops_and_never_the_network(cli, tight_dir, monkeypatch):
    monkeypatch.setattr("patchmine.models.load_for_index", None)
    patches = patchmine.open_index(tight_dir).unit("thing:0").top(6, crop="auto")
    assert patches.cropping.crop == "tight"
    assert [patch.cropped for patch in patches] == [True] * 4 + [False] * 2
    assert {patch["retained"] is None for patch in patches.rows()[:4]} == {False}
    assert patchmine.open_index(tight_dir).unit("thing:2").top(6, crop="auto").cropping.crop == "rf"
    units = json.loads(cli("units", "-i", tight_dir, "--sort", "tight", "--json").stdout)["units"]
    assert [unit["tight"] is None for unit in units[:4]] == [False, False, False, True]
    assert units[0]["tight"] <= units[1]["tight"] and units[0]["diffuse"] == 0


def test_a_photograph_that_drives_the_unit_hardly_more_than_a_background_has_no_crop(photographs, tmp_path):
    shutil.copytree(photographs / "other", tmp_path / "some")
    for number, level in enumerate((127, 128)):
        Image.new("RGB", (256, 256), (level,) * 3).save(tmp_path / "some" / f"gray{number}.png")
    patchmine.build_index(tmp_path / "some", tmp_path / "x.patchmine", model="shapes", keep=10)
    unit = patchmine.open_index(tmp_path / "x.patchmine").unit("contrast:0")
    for patch, plain in zip(unit.top(10, crop="tight"), unit.top(10), strict=True):
        document, expected = patch.as_dict(), plain.as_dict()
        if "gray" in patch.image:
            assert patch.cropped and patch.tight is None
            assert document["retained"] is document["without"] is document["area"] is None
            assert (document["box"], document["input_box"]) == (expected["box"], expected["input_box"])
    assert {"gray0.png", "gray1.png"} < {patch.image for patch in unit.top(10)}


def test_what_is_missing_is_computed_and_kept(fresh_dir):
    index = patchmine.open_index(fresh_dir)
    first = index.unit("thing:3").top(2)[1].tight
    assert first is not None
    again = patchmine.open_index(fresh_dir)
    seat = next(iter(again.tight_crops.read(Unit("thing", 3))))
    assert again.tight_crops.read(Unit("thing", 3)) == {seat: first}
    assert again.unit("thing:3").top(2, crop="auto")[1].tight == first


def test_many_searches_at_once_find_what_one_alone_finds(fresh_dir, tmp_path):
    """So a run that is killed and resumed ends with the same crops."""
    together = patchmine.open_index(fresh_dir)
    names = [f"thing:{channel}" for channel in range(6)]
    found = {unit.unit: crops for unit, crops in together.tighten(names, k=3)}
    shutil.copytree(fresh_dir, tmp_path / "alone.patchmine", ignore=shutil.ignore_patterns("tight"))
    alone = patchmine.open_index(tmp_path / "alone.patchmine")
    for name in names[:2]:
        for _, crops in alone.tighten([name], k=3, workers=1):
            assert crops == found[alone.unit(name).unit]


def test_an_interrupted_run_keeps_what_it_found(fresh_dir):
    index = patchmine.open_index(fresh_dir)
    running = index.tighten([f"thing:{channel}" for channel in range(8)], k=2)
    unit, crops = next(running)
    running.close()
    assert patchmine.open_index(fresh_dir).tight_crops.read(unit.unit).keys() == {
        Where(index.digest(seat.image), seat.place, 0.8) for seat in crops
    }


def test_another_share_is_another_crop(fresh_dir):
    index = patchmine.open_index(fresh_dir)
    small, large = (index.unit("thing:0").top(1, crop="tight", share=share)[0].tight for share in (0.5, 0.95))
    assert small.box.area < large.box.area and small.retained >= 0.5 and large.retained >= 0.95
    assert len(index.tight_crops.read(Unit("thing", 0))) == 2


@pytest.mark.parametrize("share", ["0", "-1", "1.01", "nan"])
def test_an_impossible_share_is_refused(cli, tight_dir, share):
    result = cli("top", "-i", tight_dir, "--unit", "thing:0", "--crop", "tight", "--share", share)
    assert result.returncode == 1 and "--share must be above 0 and at most 1" in result.stderr
    with pytest.raises(RequestError, match="--share"):
        list(patchmine.open_index(tight_dir).tighten(["thing:0"], share=float(share)))


# What the index keeps.


SEAT = Where("a" * 32, 5, 0.8)
CROP = TightCrop(Box(0, 4, 8, 16), 0.81, 0.2, 40)


def test_crops_come_back_as_they_were_kept_and_not_for_another_network(tmp_path):
    kept = TightCrops(tmp_path, "network")
    for unit in (Unit("a.b", 3), Unit("../up", 0), Unit("x/y:z", 1), Unit("l" * 300, 2)):
        kept.write(unit, {SEAT: CROP, SEAT._replace(place=6): None})
        assert kept.read(unit) == {SEAT: CROP, SEAT._replace(place=6): None}
        assert TightCrops(tmp_path, "other").read(unit) == {}
        assert kept.read(Unit(unit.layer, 99)) == {}
        assert (tmp_path / "tight") in kept.file(unit).parents
        assert kept.file(unit).resolve().is_relative_to((tmp_path / "tight").resolve())


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data.replace(b"[0,4,8,16]", b"[0,4,8,20]"),
        lambda data: data.replace(b"0.81", b"0.99"),
        lambda data: b"[" * 100_000,
    ],
)
def test_a_damaged_file_is_never_believed(tmp_path, damage):
    kept = TightCrops(tmp_path, "network")
    kept.write(Unit("a", 0), {SEAT: CROP})
    file = kept.file(Unit("a", 0))
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(Misfit):
        kept.read(Unit("a", 0))


def test_a_damaged_file_is_set_aside_and_computed_again(cli, tight_dir, tmp_path):
    directory = tmp_path / "x.patchmine"
    shutil.copytree(tight_dir, directory)
    index = patchmine.open_index(directory)
    file = index.tight_crops.file(Unit("thing", 0))
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b'"box":[', b'"box":[4', 1))
    assert index.unit("thing:0").top(4, crop="auto").cropping.crop == "rf"
    result = cli("tighten", "-i", directory, "--unit", "thing:0", "-k", "4")
    assert result.returncode == 0 and "damaged" in result.stderr and "set aside" in result.stderr
    assert file.read_bytes() == whole and file.with_suffix(".damaged").exists()
    assert cli("verify", "-i", directory).returncode == 0


def test_verify_measures_kept_crops_again(tight_dir, tmp_path):
    from patchmine.questions import verify

    directory = tmp_path / "x.patchmine"
    shutil.copytree(tight_dir, directory)

    def finding():
        index = patchmine.open_index(directory)
        (found,) = verify._tight_crops(index, True, np.random.default_rng(0), Run(workers=2), Silent())
        return found

    assert not finding().wrong and not finding().unproved
    kept = patchmine.open_index(directory).tight_crops
    crops = kept.read(Unit("thing", 1))
    where = next(iter(crops))
    kept.write(Unit("thing", 1), {**crops, where: TightCrop(Box(0, 0, 224, 4), 0.9, 0.1, 40)})
    assert any("thing:1" in text and "not 0.9000" in text for text in finding().wrong)


def test_an_index_that_cannot_be_written_still_answers(fresh_dir, monkeypatch):
    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("patchmine.kept.tight_crops.write_atomically", refuse)
    notes = []

    class Noted(Silent):
        def note(self, text):
            notes.append(text)

    index = patchmine.open_index(fresh_dir)
    from contextlib import nullcontext

    index.use(watching=lambda: nullcontext(Noted()))
    patch = index.unit("thing:0").top(1, crop="tight")[0]
    assert patch.tight.retained >= 0.8
    assert ["cannot be kept" in note for note in notes] == [True]
    with pytest.raises(StoreError, match="Read-only file system"):
        list(index.tighten(["thing:1"], k=1))


def test_a_photograph_that_changed_is_named_and_the_others_go_on(photographs, tmp_path, cli):
    folder = tmp_path / "photographs"
    shutil.copytree(photographs, folder)
    out = tmp_path / "x.patchmine"
    patchmine.build_index(folder, out, model="shapes", keep=6)
    index = patchmine.open_index(out)
    changed = folder / index.unit("colour:0").top(2)[0].image
    changed.write_bytes(b"x" + changed.read_bytes())
    result = cli("tighten", "-i", out, "--unit", "colour:0", "-k", "3", "--json")
    assert result.returncode == 0 and "has changed since it was indexed" in result.stderr
    assert json.loads(result.stdout)["units"][0]["patches"] == 2


def test_merging_takes_the_crops_along(tmp_path):
    parts = []
    for number, spec in enumerate(("shapes:12", "shapes:12@1")):
        source = tmp_path / f"part{number}"
        drawn = patchmine.sources.open_source(spec)
        source.mkdir()
        for entry in drawn.entries():
            (source / f"{number}-{entry.path}").write_bytes(drawn.read(entry.path))
        out = tmp_path / f"{number}.patchmine"
        patchmine.build_index(source, out, model="shapes", keep=4)
        list(patchmine.open_index(out).tighten(["thing:0", "thing:7"], k=2))
        parts.append(out)
    patchmine.merge_indexes(parts, tmp_path / "both.patchmine")
    both = patchmine.open_index(tmp_path / "both.patchmine")
    for unit in (Unit("thing", 0), Unit("thing", 7)):
        expected = {}
        for part in parts:
            expected |= patchmine.open_index(part).tight_crops.read(unit)
        assert both.tight_crops.read(unit) == expected and len(expected) == 4


def test_extending_keeps_the_crops_of_the_photographs_that_stay(photographs, tmp_path):
    folder = tmp_path / "photographs"
    shutil.copytree(photographs, folder)
    out = tmp_path / "x.patchmine"
    patchmine.build_index(folder, out, model="shapes", keep=6)
    index = patchmine.open_index(out)
    before = [(patch.image, patch.tight) for patch in index.unit("colour:0").top(2, crop="tight")]
    first = sorted(
        path for path in folder.rglob("*.*") if path.is_file() and str(path.relative_to(folder)) not in dict(before)
    )[0]
    first.unlink()
    patchmine.build_index(folder, out, run=Run(extend=True), model="shapes", keep=6)
    after = patchmine.open_index(out).unit("colour:0").top(2, crop="auto")
    assert [(patch.image, patch.tight) for patch in after] == before


def test_every_sheet_shows_tight_crops(cli, tight_dir, tmp_path, photographs):
    sheets = [
        ("top", "--unit", "thing:0", "-k", "4"),
        ("top", "--unit", "thing:0", "-k", "4", "--pick", "spectrum"),
        ("sheet", "--unit", "thing:0", "--unit", "colour:5", "-k", "3"),
        ("sheet", "--unit", "thing:0", "--unit", "thing:1", "-k", "2", "--layout", "context"),
        ("similar", "--unit", "thing:0", "-k", "3"),
    ]
    for number, words in enumerate(sheets):
        file = tmp_path / f"{number}.svg"
        crop = () if "context" in words else ("--crop", "tight")
        result = cli(*words, "-i", tight_dir, *crop, "-o", file)
        assert result.returncode == 0, result.stderr
        assert "of the activation" in file.read_text()


def test_fires_finds_tight_crops_in_a_photograph_of_ones_own(cli, tight_dir, photographs, tmp_path):
    photo = next(path for path in sorted(photographs.rglob("*.*")) if path.is_file())
    result = cli("fires", photo, "-i", tight_dir, "--layer", "thing", "-k", "2", "--crop", "tight", "--json")
    units = json.loads(result.stdout)["units"]
    assert len(units) == 2 and all("retained" in unit for unit in units)


def test_projections_and_comparisons_take_tight_crops(cli, tight_dir, tmp_path):
    for words in (
        ("top", "--unit", "thing:0", "-k", "2", "--project", "gradxinput"),
        ("compare", "--unit", "thing:0", "-k", "2", "--steps", "2"),
    ):
        result = cli(*words, "-i", tight_dir, "--crop", "tight", "-o", tmp_path / "x.png")
        assert result.returncode == 0, result.stderr


def test_executors_read_single_cells(photographs):
    """`Executor.values` against the network's own maps, of every kind that is here."""
    from patchmine import executors, models
    from patchmine.executors import Setting

    network = models.load("shapes")
    taps = survey(network.module, network.blank(), ["thing"])
    inputs = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    expected = maps(network.module, inputs, taps)["thing"].flatten(2).numpy()
    channels, places = np.array([3, 0, 7]), np.array([0, 17, 200])
    for name in executors.usable(network, "cpu", "fp32"):
        setting = Setting(device="cpu", precision="fp32", batch_size=4, threads=1)
        executor = executors.build(name, network, taps, setting, 1)
        found = executor.values(inputs, channels, places)
        assert found.dtype == np.float32
        assert found == pytest.approx(expected[np.arange(3), channels, places], abs=1e-3)


def test_a_layer_that_differs_from_the_index_is_refused(fresh_dir, monkeypatch):
    index = patchmine.open_index(fresh_dir)
    monkeypatch.setitem(index.store.channels, "thing", 25)
    with pytest.raises(StoreError, match="--model"):
        list(tightening.tightened(index, {Unit("thing", 0): [Seat(Unit("thing", 0), 0, 0)]}, 0.8))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that share nothing but the disk")
def test_two_processes_may_tighten_the_same_unit(fresh_dir):
    pids = []
    for seat in (SEAT, SEAT._replace(place=9)):
        pid = os.fork()
        if pid == 0:
            kept = TightCrops(fresh_dir, "network")
            for _ in range(50):
                kept.write(Unit("thing", 0), {**kept.read(Unit("thing", 0)), seat: CROP})
            os._exit(0)
        pids.append(pid)
    assert all(os.waitpid(pid, 0)[1] == 0 for pid in pids)
    assert set(TightCrops(fresh_dir, "network").read(Unit("thing", 0)).values()) == {CROP}
