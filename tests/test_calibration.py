"""Settings left open: tried on the machine, cached, written into the job, and kept when a job resumes."""

import json
from dataclasses import replace

import pytest
import torch

import patchmine
from patchmine import executors, models
from patchmine.defaults import Run, Wanted
from patchmine.errors import StoreError
from patchmine.mining import calibration
from patchmine.mining.calibration import Choice, candidates, fastest
from patchmine.networks.layers import choose
from patchmine.networks.taps import survey
from patchmine.store.reading import read_manifest
from tests.conftest import SHAPES

WANTED = Wanted(model="shapes", shard_size=12, keep=10)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "patchmine" / "calibration.json"


@pytest.fixture(scope="module")
def network():
    return models.load("shapes")


@pytest.fixture(scope="module")
def taps(network):
    return survey(network.module, network.blank(), choose(network, ()))


def pick(network, taps, choices, notes, pixels=None):
    pixels = torch.zeros(3, 3, 224, 224, dtype=torch.uint8) if pixels is None else pixels
    return fastest(network, taps, choices, WANTED, "cpu", 2, pixels, notes.append)


def test_what_is_asked_for_is_not_up_for_choice(network):
    asked = replace(WANTED, executor="torch", batch_size=5, threads=2)
    assert candidates(network, asked, "cpu", 2) == [Choice("torch", 5, 2)]
    assert {choice.batch_size for choice in candidates(network, replace(WANTED, batch_size=5), "cpu", 2)} == {5}
    whole = replace(network, preprocessing=replace(network.preprocessing, view="whole"))
    assert {choice.executor for choice in candidates(whole, WANTED, "cpu", 2)} == {"torch"}


@pytest.mark.parametrize(("precision", "able"), [("fp32", True), ("bf16", True), ("bf16", False), ("fp16", False)])
def test_openvino_is_tried_only_where_it_is_installed_and_the_cpu_has_the_precision(
    network, monkeypatch, precision, able
):
    openvino = executors.kinds.get("openvino", "executor")
    monkeypatch.setattr(openvino, "precisions", lambda: ["fp32", *([precision] if able else [])])
    wanted = replace(WANTED, precision=precision)
    for installed in (True, False):
        monkeypatch.setattr(openvino, "missing", lambda installed=installed: None if installed else "pip install it")
        tried = [choice.executor for choice in candidates(network, wanted, "cpu", 2)]
        assert "torch" in tried
        assert ("openvino" in tried) == (installed and (able or precision == "fp32"))
        assert (tried[0] == "openvino") == ("openvino" in tried)


def test_the_fastest_wins_is_said_and_is_remembered(network, taps, cache, monkeypatch):
    rates = {8: 10.0, 16: 30.0, 32: 20.0}
    monkeypatch.setattr(calibration, "rate", lambda _executor, choice, *_: rates[choice.batch_size])
    choices, notes = [Choice("torch", size, 1) for size in rates], []
    assert pick(network, taps, choices, notes) == Choice("torch", 16, 1)
    assert notes[0] == "calibration: torch, batches of 16, 1 thread each: 30/s, chosen"
    assert len(notes) == 3
    monkeypatch.setattr(calibration, "rate", lambda *_: pytest.fail("tried again"))
    assert pick(network, taps, choices, notes) == Choice("torch", 16, 1)
    assert "calibration (cached)" in notes[-1]
    cache.write_text("not JSON")
    monkeypatch.setattr(calibration, "rate", lambda _executor, choice, *_: -choice.batch_size)
    assert pick(network, taps, choices, notes) == Choice("torch", 8, 1)


def test_trying_is_done_with_real_batches(network, taps, cache, monkeypatch):
    monkeypatch.setattr(calibration, "_TRIAL_S", 0.05)
    notes = []
    choices = candidates(network, WANTED, "cpu", 2)
    assert pick(network, taps, choices, notes) in choices
    assert len(notes) == len(choices)
    assert json.loads(cache.read_text())


def test_a_choice_that_the_memory_is_too_small_for_loses(network, taps, cache, monkeypatch):
    class Hungry:
        def run(self, pixels, images, bounds):
            if len(pixels) > 8:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(calibration, "_TRIAL_S", 0.01)
    monkeypatch.setattr(executors, "build", lambda *_: Hungry())
    assert pick(network, taps, [Choice("torch", size, 1) for size in (32, 16, 8)], []) == Choice("torch", 8, 1)


def test_a_job_that_goes_on_keeps_its_settings(tmp_path, cache, monkeypatch):
    out = tmp_path / "x.patchmine"
    patchmine.build_index(SHAPES, out, replace(WANTED, executor="torch", batch_size=3, threads=1))
    report = patchmine.build_index(SHAPES, out, WANTED)
    assert report.mined == 0
    assert (report.manifest["job"]["executor"], report.manifest["job"]["batch_size"]) == ("torch", 3)
    with pytest.raises(StoreError, match="its batch_size is 3, not 4"):
        patchmine.build_index(SHAPES, out, replace(WANTED, batch_size=4))


def test_only_a_long_job_is_calibrated(tmp_path, cache, monkeypatch):
    tried, few = [], "shapes:12"

    def note(_network, _taps, choices, *_):
        tried.append(choices)
        return choices[-1]

    monkeypatch.setattr("patchmine.mining.build.fastest", note)
    short = patchmine.build_index(few, tmp_path / "a.patchmine", WANTED)
    assert not tried
    assert short.manifest["job"]["executor"] == "torch"
    monkeypatch.setattr("patchmine.mining.build.WORTH_IT", 10)
    patchmine.build_index(few, tmp_path / "b.patchmine", WANTED)
    assert len(tried) == 1
    assert read_manifest(tmp_path / "b.patchmine")["job"]["batch_size"] == tried[0][-1].batch_size
    patchmine.build_index(few, tmp_path / "c.patchmine", WANTED, Run(calibrate=False))
    assert len(tried) == 1
