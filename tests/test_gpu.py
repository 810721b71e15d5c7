"""The GPU computes what the CPU does. Skipped where there is none."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from patchmine import build_index, executors, open_index
from patchmine.defaults import PRECISIONS, Run
from patchmine.executors import Setting
from patchmine.executors._reduce import Reducing, reduce
from patchmine.mining import task
from patchmine.networks.taps import at_call, tapped
from patchmine.photographs.decode import normalized
from patchmine.photographs.decoders import Decoders
from tests.support.activations import datasets

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

SETTING = Setting(device="cuda", precision="fp32", batch_size=4, threads=1)


def bounds(taps, value=-np.inf):
    return {
        t.layer: (np.full(t.layout.channels, value, np.float32), np.full(t.layout.channels, 2**32 - 1)) for t in taps
    }


def test_values_places_and_vectors_are_those_of_the_cpu(network, taps, pixels):
    maps = {}
    keep = {t.layer: at_call(t, lambda out, t=t: maps.__setitem__(t.layer, out.clone())) for t in taps}
    with torch.inference_mode(), tapped(network.module, keep):
        network.module(normalized(pixels, network.preprocessing))
    found = executors.build("torch", network, taps, SETTING, 1).run(pixels, np.arange(5), bounds(taps))
    for tap in taps:
        expected = maps[tap.layer].flatten(2)
        scale = float(expected.abs().max())
        of_layer = found[tap.layer]
        assert np.abs(of_layer.value - expected.amax(2).numpy()).max() <= 1e-4 * scale
        at = expected.gather(2, torch.from_numpy(of_layer.position)[..., None])[..., 0]
        assert (expected.amax(2) - at).max() <= 1e-4 * scale  # the same place, or one that ties
        vectors = expected[torch.from_numpy(of_layer.row), :, torch.from_numpy(of_layer.place)].numpy()
        assert len(vectors) > 0
        assert np.abs(of_layer.vectors - vectors).max() <= 2e-3 * scale


def test_the_queued_reduction_is_the_plain_one_also_where_places_tie():
    generator = torch.Generator().manual_seed(1)
    for layout in (torch.contiguous_format, torch.channels_last):
        maps = torch.randint(-3, 4, (3, 40, 13, 9), generator=generator).float().contiguous(memory_format=layout)
        bound = (np.full(40, 2.5, np.float32), np.full(40, 1))
        expected = reduce(maps, np.arange(3), bound)
        queued = Reducing.queued(maps.cuda())
        torch.cuda.synchronize()
        queued.queue_vectors(np.arange(3), bound)
        torch.cuda.synchronize()
        found = queued.reduced()
        for name in ("value", "position", "row", "place", "vectors"):
            assert np.array_equal(getattr(found, name), getattr(expected, name)), name


def test_vectors_are_only_of_what_beats_its_bound(network, taps, pixels):
    executor = executors.build("torch", network, taps, SETTING, 1)
    found = executor.run(pixels, np.arange(5), bounds(taps, np.inf))
    assert all(len(of_layer.vectors) == 0 and of_layer.value.shape[0] == 5 for of_layer in found.values())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_index_does_not_depend_on_threads_or_interruptions(precision, tmp_path):
    options = {"device": "cuda", "precision": precision, "shard_size": 64, "batch_size": 16, "keep": 10}
    many = build_index("shapes:200", tmp_path / "a.patchmine", run=Run(workers=8), **options)
    one = build_index("shapes:200", tmp_path / "b.patchmine", run=Run(workers=1), **options)
    assert many.images == one.images == 200
    first, second = (open_index(tmp_path / name).store for name in ("a.patchmine", "b.patchmine"))
    for layer in open_index(tmp_path / "a.patchmine").layers:
        for mine, other in zip(first.table(layer), second.table(layer), strict=True):
            assert np.array_equal(mine, other)


def test_an_index_is_the_same_where_processes_decode(tmp_path, monkeypatch):
    options = {"device": "cuda", "shard_size": 64, "batch_size": 16, "keep": 10}
    build_index("shapes:200", tmp_path / "threads.patchmine", run=Run(workers=4), **options)
    asked = []

    def started(*words):
        found = Decoders(*words)
        found.wait()
        ask = found._crew.ask
        found._crew.ask = lambda question: asked.append(ask(question)) or asked[-1]
        return found

    monkeypatch.setattr(task, "Decoders", started)
    monkeypatch.setattr(task, "_WORTH_IT", 1)
    build_index("shapes:200", tmp_path / "processes.patchmine", run=Run(workers=4), **options)
    assert len(asked) > 10 and None not in asked
    assert datasets(tmp_path / "threads.patchmine") == datasets(tmp_path / "processes.patchmine")


def test_memory_that_runs_out_halves_the_batch(tmp_path):
    notes = []

    class Notes:
        def begin(self, *_): ...
        def advance(self, *_): ...
        def committed(self, *_): ...
        def note(self, text):
            notes.append(text)

    whole = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, 0.25e9 / whole))
    try:
        build_index(
            "shapes:128",
            tmp_path / "small.patchmine",
            run=Run(workers=1),
            progress=Notes(),
            device="cuda",
            batch_size=128,
            keep=5,
        )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert any("out of memory with 128" in note for note in notes)
    assert open_index(tmp_path / "small.patchmine").manifest["images"] == 128


def test_a_gpu_that_is_not_there_is_one_line(network, taps):
    with pytest.raises(executors.RequestError, match="cuda:99"):
        executors.build("torch", network, taps, replace(SETTING, device="cuda:99"), 1)
