"""What a node of a Ray cluster computes and refuses: a miner in this process, which sees no folder of the index."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import patchmine
from patchmine.defaults import Run, Wanted
from patchmine.engines import _ray_miner, local
from patchmine.errors import StoreError
from patchmine.mining import task
from tests.support.activations import datasets

NETWORK = """
import torch
from patchmine.models.file import PREPROCESSING

def build():
    torch.manual_seed({seed})
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 5, 4)), PREPROCESSING
"""


class Node:
    """A node that sees neither the index nor its folder. `change` is what it has instead of the task's fields."""

    def __init__(self, monkeypatch, place):
        self.place, self.change, self.refusals = place, lambda task: task, []
        monkeypatch.setattr(local, "mine", self.mine)

    def mine(self, task, todo, progress):
        there = self.change(replace(task, folder=self.place / "unseen/shards", here=None))
        miner = _ray_miner.Miner(there, 1, _ray_miner.versions(), "beacon", task.companions)
        self.refusals.append(miner.refusal())
        for number in todo if miner.refusal() is None else ():
            assert not [path for path in Path(miner._scratch.name).rglob("*") if path.is_file()]
            task.path(number).write_bytes(miner.mine(number).data)
            yield number
        miner._scratch.cleanup()


@pytest.fixture
def node(monkeypatch, tmp_path):
    return Node(monkeypatch, tmp_path)


def test_directions_travel_to_a_node_that_does_not_see_the_index(node, tmp_path, monkeypatch):
    np.save(tmp_path / "some.npy", np.random.default_rng(0).normal(size=(5, 24)))
    wanted = Wanted(model="shapes", layers=("thing",), directions=(f"thing@some={tmp_path / 'some.npy'}",), keep=4)
    patchmine.build_index("shapes:10", tmp_path / "far.patchmine", wanted)
    assert node.refusals == [None]
    monkeypatch.undo()
    patchmine.build_index("shapes:10", tmp_path / "near.patchmine", wanted)
    assert datasets(tmp_path / "far.patchmine") == datasets(tmp_path / "near.patchmine")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda job: replace(job, weights="0" * 32), "other weights of .*net.py:build"),
        (
            lambda job: replace(job, code="0" * 32),
            "the code of .*net.py:build or of a file that it imports is not",
        ),
    ],
)
def test_a_node_with_other_weights_or_code_of_its_own_says_so(node, tmp_path, change, reason):
    (tmp_path / "net.py").write_text(NETWORK.format(seed=0))
    node.change = lambda task: replace(task, job=change(task.job))
    with pytest.raises(StoreError, match="1 of the 1 shards of .* are missing"):
        patchmine.build_index("shapes:4", tmp_path / "x.patchmine", Wanted(model=f"{tmp_path / 'net.py'}:build"))
    (refusal,) = node.refusals
    assert "\n" not in refusal
    assert re.search(reason, refusal)


def test_a_node_without_the_users_own_code_names_the_file(node, tmp_path):
    (tmp_path / "net.py").write_text(NETWORK.format(seed=0))
    gone = tmp_path / "gone.py"
    node.change = lambda task: replace(task, model=f"{gone}:build")
    with pytest.raises(StoreError, match="1 of the 1 shards of .* are missing"):
        patchmine.build_index("shapes:4", tmp_path / "x.patchmine", Wanted(model=f"{tmp_path / 'net.py'}:build"))
    (refusal,) = node.refusals
    assert str(gone) in refusal
    assert "\n" not in refusal


@pytest.mark.parametrize("engine", ["local", "claims"])
def test_a_listing_that_changes_between_two_runs_is_one_line_and_the_shards_stay(
    photographs, tmp_path, monkeypatch, engine
):
    source = shutil.copytree(photographs, tmp_path / "photographs")
    out, wanted, run = tmp_path / "x.patchmine", Wanted(model="shapes", shard_size=6), Run(engine=engine, workers=1)
    real, written = task.write_shard, []

    def interrupted(path, about, arrays):
        real(path, about, arrays)
        written.append(path)
        if len(written) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(task, "write_shard", interrupted)
        patchmine.build_index(source, out, wanted, run)
    kept = sorted(path.name for path in (out / "shards").glob("*.shard"))
    assert kept
    one = next(source.rglob("*.jpg"))
    one.rename(one.with_name("zzz.jpg"))
    with pytest.raises(StoreError, match="holds another job: its listing is ") as caught:
        patchmine.build_index(source, out, wanted, run)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in (out / "shards").glob("*.shard")) == kept
