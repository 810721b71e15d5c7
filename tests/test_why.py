"""`patchmine why`: right where the truth is known, resumable, and as files that a person can read."""

import json
import shutil
from collections import OrderedDict
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import patchmine
from patchmine.photographs.placement import Preprocessing
from patchmine.study.in_photographs import brought, centeredness, in_photographs
from patchmine.study.instruments.alike import Alike
from patchmine.study.report import write_report
from patchmine.study.settings import Settings
from patchmine.study.trials import Laboratory, Subject, Trial, affordable, plan, price
from patchmine.study.verdicts import UNMEASURED, corners, in_the_data, periodic, pitch_or_count
from patchmine.study.why import alike, study, subject_of
from patchmine.system.progress import Silent
from patchmine.units import Position, Unit
from tests.support import planted

QUICK = ("--steps", 3, "--seeds", 2, "--canvas", 48, "--budget", 1000)
PREPROCESSING = Preprocessing(planted.NATIVE, (planted.NATIVE, planted.NATIVE), "bilinear", (0.5,) * 3, (0.5,) * 3)


def subject(name, native=planted.NATIVE):
    module = planted.TRUTHS[name][0]().eval()
    return Subject(module, "unit", 0, PREPROCESSING, native, planted.STRIDE, planted.FIELD, name, (8, 8))


def run(of, folder, sides, steps=40):
    laboratory = Laboratory(of, Settings(steps=steps, seeds=3), folder)
    trials = [Trial(side, padding) for side in sides for padding in ("zeros", "circular")]
    return {trial: laboratory.result(trial) for trial in trials}


@pytest.mark.parametrize("name", sorted(planted.TRUTHS))
def test_the_verdict_is_right_where_the_truth_is_known(name, tmp_path):
    of = subject(name)
    found = run(of, tmp_path, (64, 96, 128))
    _, growth, border = planted.TRUTHS[name]
    assert pitch_or_count(found, of).word == growth
    assert corners(found, of).word == (border or UNMEASURED)
    assert (periodic(found, of).word == UNMEASURED) == (name != "pitch")
    assert in_the_data(found, of, None).word == UNMEASURED


def test_what_pads_in_its_own_code_is_said_and_not_judged(tmp_path):
    found = run(subject("place"), tmp_path, (64,), steps=2)
    assert "cannot be put on a torus" in found[Trial(64, "circular")].refused


def test_a_plan_begins_with_what_tells_most_and_ends_with_the_budget():
    of = subject("pitch")
    every = plan(of)
    assert every[:2] == [Trial(64, "zeros"), Trial(64, "circular")]
    assert len(set(every)) == len(every)
    assert max(trial.side for trial in every) == 4 * of.native
    assert {trial.side for trial in plan(of, [50])} == {48, 64}
    settings = Settings()
    assert affordable(of, every, 1.0, settings, 1e9) == len(every)
    some = affordable(of, every, 1.0, settings, 1000)
    assert sum(price(of, trial, 1.0, settings) for trial in every[:some]) <= 1000
    assert sum(price(of, trial, 1.0, settings) for trial in every[: some + 1]) > 1000


def test_positions_in_the_middle_and_anywhere(shapes_index):
    field = shapes_index.field("shape")
    height, width = field.grid
    middle = np.full((40, 2), [height // 2, width // 2])
    assert centeredness(field, 0, middle).z < -3
    every = np.stack(np.mgrid[:height, :width], -1).reshape(-1, 2)
    found = centeredness(field, 0, every)
    assert found.found == pytest.approx(found.anywhere) and abs(found.z) < 1e-6


@pytest.fixture(scope="module")
def studied(shapes_index_dir, tmp_path_factory):
    """The folder of a study of shape:0, as QUICK makes it."""
    index, out = patchmine.open_index(shapes_index_dir), tmp_path_factory.mktemp("why") / "shape-0"
    found = study(index, Unit("shape", 0), index.network(), out, 1000, Settings(3, 2), None, [48])
    write_report(found, index, out)
    return out


def test_a_report_says_what_it_found(studied):
    document = json.loads((studied / "report.json").read_bytes())
    assert [verdict["question"] for verdict in document["verdicts"]] == [
        "pitch or count", "corners", "periodic", "positions in the data", "noise",
    ]  # fmt: skip
    assert {(row["padding"], row["objective"]) for row in document["trials"]} >= {
        ("zeros", "channel"), ("circular", "channel"), ("zeros", "neuron"),
    }  # fmt: skip
    assert {row["side"] for row in document["trials"]} == {48, 224}
    text = (studied / "report.md").read_text("utf-8")
    assert document["conclusion"] in text and "shape" in text
    assert (studied / "report.pdf").read_bytes().startswith(b"%PDF")
    with Image.open(studied / "report.png") as page:
        assert np.asarray(page.convert("L")).std() > 10


def test_what_is_made_is_not_made_again(cli, studied, shapes_index_dir):
    before = json.loads((studied / "report.json").read_bytes())
    done = cli("why", "-i", shapes_index_dir, "--unit", "shape:0", "-o", studied, *QUICK, "--json")
    assert f"resuming: {len(before['trials'])} of {len(before['trials'])}" in done.stderr
    (again,) = json.loads(done.stdout)["reports"]
    for document in (before, again):
        document.pop("seconds")
        document.pop("index")
    assert again == before


def test_a_study_that_is_stopped_goes_on_where_it_was(cli, studied, shapes_index_dir, tmp_path, monkeypatch):
    words = ("why", "-i", shapes_index_dir, "--unit", "shape:0", "-o", tmp_path / "part", *QUICK)
    made = Laboratory.made
    calls = []

    def stopped(self, trial):
        calls.append(trial)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return made(self, trial)

    monkeypatch.setattr(Laboratory, "made", stopped)
    done = cli(*words)
    assert done.returncode == 130 and "run the same command to resume" in done.stderr and "plan: " in done.stderr
    monkeypatch.undo()
    done = cli(*words)
    assert done.returncode == 0 and "resuming: 2 of" in done.stderr
    files = list((studied / "trials").glob("*.npz"))
    assert len(files) > 3
    for file in files:
        with np.load(file) as one, np.load(tmp_path / "part" / "trials" / file.name) as other:
            assert np.array_equal(one["pictures"], other["pictures"])


def test_of_several_units_those_that_cannot_be_studied_are_left_out(cli, studied, shapes_index_dir, tmp_path):
    out = tmp_path / "many"
    shutil.copytree(studied, out / "shape-0")
    index = patchmine.open_index(shapes_index_dir)
    dead = next(unit for unit in index.units() if unit.statistics.maximum <= 0)
    done = cli("why", "-i", shapes_index_dir, "--unit", "shape:0", "--unit", str(dead.unit), "-o", out, *QUICK)
    assert done.returncode == 0, done.stderr
    assert f"left out: {dead.unit} is dead" in done.stderr
    header, _, row = (out / "summary.md").read_text("utf-8").splitlines()
    assert "shape:0" in row and row.count("|") == header.count("|")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no unit given"),
        (("--unit", "nothing_7"), "nothing_7"),
        (("--unit", "shape:0", "--budget", 0), "--budget must be at least 1, not 0"),
        (("--unit", "shape:0", "--canvas", 0), "--canvas must be at least 1, not 0"),
    ],
)
def test_bad_input_is_one_line(words, said, cli, shapes_index_dir, tmp_path):
    done = cli("why", "-i", shapes_index_dir, *words, "-o", tmp_path / "out")
    assert done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_report_is_no_file(cli, shapes_index_dir, tmp_path):
    (tmp_path / "file").write_text("")
    done = cli("why", "-i", shapes_index_dir, "--unit", "shape:0", "-o", tmp_path / "file")
    assert done.returncode == 1 and "is a file" in done.stderr


def test_a_layer_without_another_canvas_is_answered_as_far_as_it_goes(tmp_path):
    of = replace(subject("pitch"), fixed="unit has one cell")
    assert plan(of) == [Trial(64), Trial(64, method="pixels")]
    laboratory = Laboratory(of, Settings(steps=2, seeds=2), tmp_path)
    found = {trial: laboratory.result(trial) for trial in plan(of)}
    for judge in (pitch_or_count, corners, periodic):
        verdict = judge(found, of)
        assert verdict.word == UNMEASURED
    assert corners(found, of).because == "unit has one cell"
    assert alike(laboratory, found, None) is None


def test_a_layer_with_two_strides_keeps_its_canvas(shapes_index):
    unit = Unit("shape", 0)
    network = shapes_index.network()
    assert subject_of(shapes_index, unit, network).fixed is None
    wide = nn.Sequential(OrderedDict(shape=nn.Conv2d(3, 8, 7, stride=(4, 8), padding=3))).eval()
    of = subject_of(shapes_index, unit, replace(network, module=wide))
    assert of.fixed == "shape has a stride of 4 px down and 8 px across: choose a layer with one stride"
    assert {trial.side for trial in plan(of)} == {of.native}
    assert of.stride == shapes_index.field("shape").group(0).stride[0]


def test_repeats_are_alike_where_the_layer_makes_more_of_them_than_of_any_place(tmp_path):
    of = subject("pitch")
    found = run(of, tmp_path, (64,), steps=20)
    for told, word in ((Alike(0.9, 0.6, 0.1), "alike"), (Alike(0.9, 0.8, 0.1), "varied"), (None, "varied")):
        verdict = periodic(found, of, told)
        assert np.mean(verdict.numbers["patch_likeness"]) <= 0.3  # pixel by pixel
        assert verdict.word == word
        assert ("at 0.90 in the layer's other units" in verdict.because) == (told is not None)


def test_what_the_layer_makes_of_pictures_is_what_was_kept_of_them(tmp_path):
    of = subject("pitch")
    found = run(of, tmp_path, (64,), steps=2)
    for result in found.values():
        for maps, kept in zip(Laboratory(of, Settings(2, 3), tmp_path).everything(result), result.maps, strict=True):
            assert np.array_equal(maps[0], kept)


def test_likeness_is_of_the_peaks_and_of_all_places(tmp_path):
    torch.manual_seed(0)
    layer = nn.Sequential(OrderedDict(unit=nn.Conv2d(3, 6, 9, stride=4, padding=4))).eval()
    with torch.no_grad():
        layer.unit.bias[2] = 1  # as high without the border as with it
    of = Subject(layer, "unit", 2, PREPROCESSING, 64, 4, 9)
    found = run(of, tmp_path, (64,), steps=30)
    laboratory = Laboratory(of, Settings(30, 3), tmp_path)
    generator = np.random.default_rng(0)
    vectors, center = generator.standard_normal((5, 6)), generator.standard_normal(6)
    told = alike(laboratory, found, SimpleNamespace(vectors=vectors, center=center))
    torus = found[Trial(64, "circular")]
    peaks = []
    for maps, one in zip(laboratory.everything(torus), torus.peaks(of, 0.25), strict=True):
        mine = np.delete(np.array([maps[:, y, x] - center for y, x in one.cells]), 2, 1)
        unit = mine / np.linalg.norm(mine, axis=1, keepdims=True)
        count = len(unit)
        peaks.append(((unit @ unit.T).sum() - count) / (count * (count - 1)))
    assert told.repeats == pytest.approx(np.mean(peaks))
    assert -1 <= told.anywhere <= 1 and -1 <= told.photographs <= 1
    assert alike(laboratory, found, SimpleNamespace(vectors=None, center=None)) is None


def test_the_strongest_place_is_read_where_it_is(shapes_index):
    """And brought to where it would be in the nominal grid, where a photograph has a grid of its own."""
    unit, network = Unit("shape", 0), shapes_index.network()
    seen = in_photographs(shapes_index, unit, network, 2.0, most=5)
    values, _, _ = shapes_index.store.top("shape", 0)
    assert seen.vectors[:, 0] == pytest.approx(values[:5], rel=1e-3)
    assert brought(Position(2, 5), (4, 10), (8, 20)) == [5, 11]
    assert brought(Position(3, 9), (4, 10), (7, 7)) == [6, 6]


def test_a_trial_that_cannot_be_read_is_made_again(tmp_path):
    laboratory = Laboratory(subject("pitch"), Settings(steps=2, seeds=1), tmp_path)
    first = laboratory.result(Trial(64))
    (file,) = tmp_path.glob("*.npz")
    for damage in (b"", b"PK\x03\x04 nothing", file.read_bytes()[:-200]):
        file.write_bytes(damage)
        assert laboratory.kept(Trial(64)) is None
        assert np.array_equal(laboratory.result(Trial(64)).pictures, first.pictures)


def test_a_budget_that_is_spent_leaves_the_rest_for_the_next_time(studied, shapes_index, tmp_path):
    notes = []

    class Notes(Silent):
        def note(self, text):
            notes.append(text)

    out = tmp_path / "short"
    (out / "trials").mkdir(parents=True)
    (out / "plan.json").write_bytes((studied / "plan.json").read_bytes())
    network = shapes_index.network()
    found = study(shapes_index, Unit("shape", 0), network, out, 1000, Settings(3, 2), Notes(), [48])
    assert not found.left_out  # the plan is kept to
    monkey = json.loads((out / "plan.json").read_bytes())
    monkey["step_s"] = 1e6
    (out / "plan.json").write_text(json.dumps(monkey))
    for file in sorted((out / "trials").glob("*.npz"))[2:]:
        file.unlink()
    short = study(shapes_index, Unit("shape", 0), network, out, 1000, Settings(3, 2), Notes(), [48])
    assert short.left_out and any("no time for" in note for note in notes)
    assert 2 <= len(short.results) < len(found.results)
