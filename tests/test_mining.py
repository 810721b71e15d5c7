"""Building an index: shards, resuming, refusing, and what broken photographs do."""

import hashlib
import pickle
import re
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import patchmine
from patchmine import engines
from patchmine.defaults import Run, Wanted
from patchmine.errors import ModelError, RequestError, SourceError, StoreError
from patchmine.executors.torch import TorchExecutor
from patchmine.mining import task
from patchmine.mining.reuse import Known
from patchmine.mining.workspace import Workspace
from patchmine.sources import open_source
from patchmine.store import reading as store
from patchmine.store.shardfile import shard_path
from patchmine.system.progress import Silent
from tests.conftest import SHAPES, jpeg, tarred, zipped
from tests.support.activations import datasets

WANTED = Wanted(model="shapes", shard_size=12, keep=10)
KEPT = Path(__file__).parent / "kept" / "format1.patchmine"


class Killed(BaseException):
    """Stands for the end of the process: nothing below catches it."""


@pytest.fixture
def dies_after(monkeypatch):
    """Let the local engine die once it has written so many shards."""

    def arrange(shards):
        real, written = task.write_shard, []

        def write(*args):
            if len(written) == shards:
                raise Killed
            written.append(real(*args))

        monkeypatch.setattr(task, "write_shard", write)
        return lambda: monkeypatch.setattr(task, "write_shard", real)

    return arrange


@pytest.mark.parametrize("shards", [0, 1, 3])
def test_a_resumed_index_is_the_uninterrupted_one_to_the_byte(shapes_index_dir, tmp_path, dies_after, shards):
    revive = dies_after(shards)
    out = tmp_path / "again.patchmine"
    with pytest.raises(Killed):
        patchmine.build_index(SHAPES, out, WANTED)
    assert f"{shards} of 4 shards are kept" in Workspace(out).kept()
    with pytest.raises(StoreError, match="not finished"):
        patchmine.open_index(out)
    revive()
    report = patchmine.build_index(SHAPES, out, WANTED)
    assert report.resumed == (shards > 0)
    assert report.mined == 48 - 12 * shards
    assert datasets(out) == datasets(shapes_index_dir)
    assert not (out / store.SHARDS).exists()


def test_shards_finished_in_another_order_give_the_same(shapes_index_dir, tmp_path, monkeypatch):
    local = engines.kinds.get("local", "--engine")
    real = local.mine
    monkeypatch.setattr(local, "mine", lambda task, todo, progress: real(task, todo[::-1], progress))
    patchmine.build_index(SHAPES, tmp_path / "o.patchmine", WANTED)
    assert datasets(tmp_path / "o.patchmine") == datasets(shapes_index_dir)


class PickledElsewhere:
    """An engine that takes nothing but the pickled task, and works on each shard with one that was just unpickled."""

    HELP = "pickled: every shard by a task of its own"

    def mine(self, task, todo, progress):
        sent = pickle.dumps(task)
        for number in todo:
            yield from pickle.loads(sent).work([number], progress)


def test_a_task_pickles_and_builds_its_network_where_it_runs(shapes_index_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(engines.kinds._loaded, "local", PickledElsewhere())
    patchmine.build_index(SHAPES, tmp_path / "p.patchmine", WANTED)
    assert datasets(tmp_path / "p.patchmine") == datasets(shapes_index_dir)


def test_a_task_with_known_rows_pickles_too(shapes_index_dir):
    known = Known([store.Store(shapes_index_dir)])
    known.forget(["000003.png"])
    again = pickle.loads(pickle.dumps(known))
    assert again.places == known.places
    places = list(known.places.values())[:5]
    for layer, before in known.reduced(places).items():
        assert np.array_equal(again.reduced(places)[layer].vectors, before.vectors)


def test_a_task_refuses_other_weights_than_those_of_its_job(tmp_path):
    source = open_source(SHAPES)
    job = replace(patchmine.open_index(KEPT).job, weights="0" * 32)
    lost = task.Task(job=job, source=source, entries=source.entries(), folder=tmp_path, weights=None, workers=1)
    with pytest.raises(StoreError, match="give the original file with --weights"):
        next(lost.work([0], Silent()))


def test_only_the_vectors_that_may_still_rank_are_kept_and_none_is_missing(shapes_index_dir):
    with h5py.File(shapes_index_dir / store.ACTIVATIONS) as file:
        for layer in file["layers"].values():
            cells = int(np.prod(layer.attrs["grid"]))
            top = {(i, p) for i, p in zip(layer["top/image"][:].flat, layer["top/position"][:].flat, strict=True)}
            held = list(zip(layer["vector_image"][:], layer["vector_position"][:], strict=True))
            assert set(held) == top
            assert held == sorted(held, key=lambda pair: int(pair[0]) * cells + int(pair[1]))
            # A vector's own unit is the unit's value at that place.
            row = {pair: number for number, pair in enumerate(held)}
            for unit in range(layer["top/value"].shape[0]):
                pair = (layer["top/image"][unit, 0], layer["top/position"][unit, 0])
                value = layer["top/value"][unit, 0]
                assert layer["vectors"][row[pair], unit] == pytest.approx(value, rel=2e-3, abs=1e-3)


def test_a_damaged_shard_is_computed_again(shapes_index_dir, tmp_path, dies_after):
    revive = dies_after(2)
    out = tmp_path / "damaged.patchmine"
    with pytest.raises(Killed):
        patchmine.build_index(SHAPES, out, WANTED)
    revive()
    path = shard_path(out / store.SHARDS, 1)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert patchmine.build_index(SHAPES, out, WANTED).mined == 36
    assert datasets(out) == datasets(shapes_index_dir)


def test_a_finished_index_is_left_alone(shapes_index_dir):
    before = {path.name: path.stat().st_mtime_ns for path in shapes_index_dir.iterdir()}
    report = patchmine.build_index(SHAPES, shapes_index_dir, WANTED)
    assert report.resumed
    assert report.mined == 0
    assert {path.name: path.stat().st_mtime_ns for path in shapes_index_dir.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"keep": 11}, "keep is 10, not 11"),
        ({"layers": ("*",)}, "layers"),
        ({"batch_size": 3}, "batch_size"),
        ({"limit": 40}, "photographs are 48, not 40"),
    ],
)
def test_another_job_is_refused_naming_the_first_field(shapes_index_dir, tmp_path, dies_after, change, field):
    changed = replace(WANTED, **change)
    with pytest.raises(StoreError, match=field):
        patchmine.build_index(SHAPES, shapes_index_dir, changed)
    dies_after(1)
    out = tmp_path / "unfinished.patchmine"
    with pytest.raises(Killed):
        patchmine.build_index(SHAPES, out, WANTED)
    with pytest.raises(StoreError, match=f"{field}.*--fresh"):
        patchmine.build_index(SHAPES, out, changed)
    assert shard_path(out / store.SHARDS, 0).exists()


def test_fresh_starts_over(shapes_index_dir, tmp_path):
    out = tmp_path / "copy.patchmine"
    shutil.copytree(shapes_index_dir, out)
    report = patchmine.build_index(SHAPES, out, replace(WANTED, keep=3), Run(fresh=True))
    assert report.mined == 48
    assert patchmine.open_index(out).manifest["job"]["keep"] == 3


def test_a_folder_that_is_no_index_is_never_written_into(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for options in (Run(), Run(fresh=True)):
        with pytest.raises(StoreError, match="holds other files"):
            patchmine.build_index(SHAPES, tmp_path, WANTED, options)
    with pytest.raises(StoreError, match="is a file"):
        patchmine.build_index(SHAPES, tmp_path / "thesis.tex", WANTED)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("source", "wanted", "error"),
    [
        ("no/such/folder", WANTED, SourceError),
        (SHAPES, replace(WANTED, model="shaps"), ModelError),
        (SHAPES, replace(WANTED, layers=("nothing*",)), ModelError),
        (SHAPES, replace(WANTED, keep=0), RequestError),
        (SHAPES, replace(WANTED, executor="trch"), RequestError),
        (SHAPES, replace(WANTED, precision="fp8"), RequestError),
        (SHAPES, replace(WANTED, device="cudo"), RequestError),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_written(tmp_path, source, wanted, error):
    with pytest.raises(error):
        patchmine.build_index(source, tmp_path / "x.patchmine", wanted)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_engine_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(RequestError, match="did you mean local"):
        patchmine.build_index(SHAPES, tmp_path / "x.patchmine", WANTED, Run(engine="locl"))
    assert "local" in engines.kinds.names


@pytest.fixture
def mixed(photographs, tmp_path):
    """The photographs with broken ones between them."""
    folder = tmp_path / "mixed"
    shutil.copytree(photographs, folder)
    whole = (photographs / "n01440764" / "01.jpg").read_bytes()
    (folder / "n01440764" / "01b.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "n01440764" / "00.jpg").write_bytes(b"")
    (folder / "other" / "note.png").write_text("not a picture")
    (folder / "other" / "misnamed.png").write_bytes(whole)
    return folder


def test_broken_photographs_are_skipped_counted_and_change_nothing(photographs, mixed, tmp_path):
    report = patchmine.build_index(mixed, tmp_path / "m.patchmine", replace(WANTED, shard_size=10))
    skipped = {entry["image"]: entry["reason"] for entry in report.as_dict()["skipped_files"]}
    assert set(skipped) == {"n01440764/00.jpg", "n01440764/01b.jpg", "other/note.png"}
    assert skipped["n01440764/00.jpg"] == "empty file"
    assert skipped["other/note.png"].startswith("not an image in a supported format")
    assert "damaged" in skipped["n01440764/01b.jpg"]
    assert report.images == 25

    patchmine.build_index(photographs, tmp_path / "p.patchmine", WANTED)
    good, broken = (patchmine.open_index(tmp_path / name) for name in ("p.patchmine", "m.patchmine"))
    column = {}
    for index in (good, broken):
        values, places = index.store.column("colour", 0)
        column[index] = {
            index.store.image(i).path: (value, place)
            for i, (value, place) in enumerate(zip(values, places, strict=True))
        }
    assert column[broken].pop("other/misnamed.png") == column[good]["n01440764/01.jpg"]
    assert column[broken] == column[good]


def test_strict_makes_a_broken_photograph_an_error_and_keeps_the_work(mixed, tmp_path):
    out = tmp_path / "m.patchmine"
    with pytest.raises(SourceError, match="3 of 28 photographs could not be read, the first 'n01440764/00.jpg'"):
        patchmine.build_index(mixed, out, WANTED, Run(strict=True))
    assert patchmine.build_index(mixed, out, WANTED).mined == 0
    assert len(patchmine.open_index(out)) == 25


def test_a_folder_of_nothing_but_broken_photographs_is_an_error(tmp_path):
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"junk")
    with pytest.raises(SourceError, match="none of the 1 photographs"):
        patchmine.build_index(folder, tmp_path / "b.patchmine", WANTED)


def test_digest_size_and_class_of_each_photograph_are_stored(photographs, tmp_path):
    patchmine.build_index(photographs, tmp_path / "p.patchmine", WANTED)
    index = patchmine.open_index(tmp_path / "p.patchmine")
    assert len(index) == 24
    for image in range(24):
        record = index.store.image(image)
        data = (photographs / record.path).read_bytes()
        assert record.digest == hashlib.blake2b(data, digest_size=16).hexdigest()
        assert record.class_name == record.path.split("/")[0]
        with Image.open(photographs / record.path) as picture:
            stored, turned = picture.size, record.path.endswith("04.png")
        assert record.size == (stored[::-1] if turned else stored)


def test_the_same_photographs_give_the_same_table_from_wherever_they_come(photographs, tmp_path):
    members = {entry.path: (photographs / entry.path).read_bytes() for entry in open_source(str(photographs)).entries()}
    for kind, pack in (("tar", tarred), ("zip", zipped)):
        pack(tmp_path / f"photographs.{kind}", dict(reversed(members.items())))
    rows = [f"{path},{path.partition('/')[0]}\n" for path in members]
    (tmp_path / "list.csv").write_text("path,class\n" + "".join(rows))
    (tmp_path / "list.txt").write_text("\n".join(members))
    (tmp_path / "classes.csv").write_text("".join(rows))
    for kind in ("n01443537", "n01440764", "other"):
        (tmp_path / kind).symlink_to(photographs / kind)

    patchmine.build_index(photographs, tmp_path / "folder.patchmine", WANTED)
    expected = datasets(tmp_path / "folder.patchmine")
    labeled = replace(WANTED, labels=tmp_path / "classes.csv")
    for name, wanted in (
        ("photographs.tar", WANTED),
        ("photographs.zip", WANTED),
        ("list.csv", WANTED),
        ("list.txt", labeled),
    ):
        out = tmp_path / f"{name}.patchmine"
        patchmine.build_index(tmp_path / name, out, wanted)
        assert datasets(out) == expected, name
        index = patchmine.open_index(out)
        patch = next(iter(index.unit("colour:0").top(1)))
        assert patch.crop().size == (patch.box.width, patch.box.height)
        # The paths being the same, the folder can stand in for what was packed.
        beside = next(iter(patchmine.open_index(out, source=photographs).unit("colour:0").top(1)))
        assert beside.crop().size == patch.crop().size


def test_a_photograph_that_a_list_names_twice_counts_twice_and_one_that_is_gone_is_skipped(photographs, tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("\n".join([*map(str, sorted(photographs.rglob("*.jpg"))[:3] * 2), "gone.jpg"]))
    report = patchmine.build_index(file, tmp_path / "l.patchmine", WANTED)
    assert report.images == 6
    assert report.manifest["skipped_files"] == [{"image": "gone.jpg", "reason": "no such file"}]


def test_labels_from_a_csv(photographs, tmp_path):
    (tmp_path / "labels.csv").write_text("path,class\nother/02.jpg,cat\n")
    patchmine.build_index(photographs, tmp_path / "l.patchmine", replace(WANTED, labels=tmp_path / "labels.csv"))
    index = patchmine.open_index(tmp_path / "l.patchmine")
    classes = {index.store.image(i).path: index.store.image(i).class_name for i in range(24)}
    assert classes["other/02.jpg"] == "cat"
    assert classes["other/05.jpg"] == "other"
    (tmp_path / "labels.csv").write_text("other/99.jpg,cat\n")
    with pytest.raises(SourceError, match=r"names 'other/99\.jpg'"):
        patchmine.build_index(photographs, tmp_path / "n.patchmine", replace(WANTED, labels=tmp_path / "labels.csv"))


def test_without_a_table_the_top_is_the_same(shapes_index_dir, tmp_path):
    out = tmp_path / "small.patchmine"
    patchmine.build_index(SHAPES, out, replace(WANTED, table=False))
    with_table = datasets(shapes_index_dir)
    without = datasets(out)
    assert not [name for name in without if name.endswith(("/position", "/value")) and "/top/" not in name]
    assert all(with_table[name] == content for name, content in without.items())


BRIGHT = """
import torch
from torch import nn
from patchmine import Preprocessing

def build():
    conv = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        conv.weight[:] = torch.tensor([20.0, 0.5]).view(2, 1, 1, 1)
        conv.bias[:] = 0
    half = (0.5, 0.5, 0.5)
    return nn.Sequential(conv, nn.ReLU6(inplace=True)), Preprocessing(32, (32, 32), "bilinear", half, half)
"""


def test_a_layer_behind_relu6_is_reported_with_its_saturated_units(tmp_path):
    folder, code = tmp_path / "bright", tmp_path / "net.py"
    folder.mkdir()
    code.write_text(BRIGHT)
    rng = np.random.default_rng(3)
    for number in range(40):
        picture = Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
        (folder / f"{number:02d}.jpg").write_bytes(jpeg(picture))
    out = tmp_path / "s.patchmine"
    patchmine.build_index(folder, out, model=f"{code}:build", layers=("0", "1"), keep=30)
    index = patchmine.open_index(out)
    assert {layer["layer"]: layer["saturated"] for layer in index.manifest["layers"]} == {"0": 0, "1": 1}
    unit = index.unit("1:0")
    assert (unit.statistics.maximum, unit.statistics.tied, unit.statistics.saturated) == (6, 40, True)
    assert not index.unit("1:1").statistics.saturated
    # Among the tied, the smallest image ids come first.
    assert [patch.image_id for patch in unit.top(30)] == list(range(30))


SHARED = """
from torch import nn
from patchmine import Preprocessing

class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.act = nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 6, 3), nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(self.second(self.act(self.first(x))))

def build():
    half = (0.5, 0.5, 0.5)
    return Shared(), Preprocessing(32, (32, 32), "bilinear", half, half)
"""


def test_of_a_module_that_is_called_again_in_another_shape_the_last_call_counts(photographs, tmp_path):
    (tmp_path / "net.py").write_text(SHARED)
    out = tmp_path / "s.patchmine"
    patchmine.build_index(photographs, out, model=f"{tmp_path}/net.py:build", layers=("act", "second"))
    index = patchmine.open_index(out)
    assert index.layers == {"second": 6, "act": 6}
    before, after = (index.store.table(layer)[0] for layer in ("second", "act"))
    assert np.array_equal(after, np.maximum(before, 0))


def test_the_default_layers_of_such_a_network_are_read_before_it(tmp_path):
    from patchmine import models
    from patchmine.networks.layers import choose

    (tmp_path / "net.py").write_text(BRIGHT)
    assert choose(models.load(f"{tmp_path}/net.py:build"), ()) == ("0",)


def test_out_of_memory_halves_the_batch_and_goes_on(shapes_index_dir, tmp_path, monkeypatch):
    real = TorchExecutor.run

    def hungry(self, pixels, images, bounds):
        if len(pixels) > 3:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")
        return real(self, pixels, images, bounds)

    monkeypatch.setattr(TorchExecutor, "run", hungry)
    notes = []
    progress = Silent()
    progress.note = notes.append
    out = tmp_path / "small.patchmine"
    patchmine.build_index(SHAPES, out, replace(WANTED, executor="torch", batch_size=12), progress=progress)
    assert "out of memory with 12 photographs at once; continuing with 6" in notes
    assert "out of memory with 6 photographs at once; continuing with 3" in notes
    with h5py.File(out / store.ACTIVATIONS) as small, h5py.File(shapes_index_dir / store.ACTIVATIONS) as whole:
        for layer in whole["layers"]:
            np.testing.assert_allclose(small[f"layers/{layer}/value"][:], whole[f"layers/{layer}/value"][:], atol=1e-3)

    monkeypatch.setattr(TorchExecutor, "run", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(RequestError, match="not enough memory for a single photograph"):
        patchmine.build_index(SHAPES, tmp_path / "none.patchmine", replace(WANTED, executor="torch"))


def test_the_stages_of_the_threads_add_up_to_the_time_of_mining(tmp_path):
    wanted = replace(WANTED, executor="torch", batch_size=2)
    manifest = patchmine.build_index(SHAPES, tmp_path / "x.patchmine", wanted, Run(workers=2)).manifest
    stages = manifest["stages"]
    assert stages["total"] == pytest.approx(stages["start"] + stages["mining"] + stages["publish"], abs=0.01)
    # A short job has a first and a last batch that one thread alone computes: scripts.bench.index measures a long one.
    assert 0.5 * stages["mining"] < sum(stages["of_mining"].values()) <= 1.01 * stages["mining"]
    assert stages["of_mining"].keys() == {"read", "decode", "forward", "wait"}
    assert "limit" not in stages


def test_a_profile_measures_the_limit_of_the_machine(cli, tmp_path):
    done = cli("index", SHAPES, "--model", "shapes", "-o", tmp_path / "x.patchmine", "--profile")
    assert "; the slowest part: " in done.stdout.splitlines()[0]
    limit = patchmine.open_index(tmp_path / "x.patchmine").manifest["stages"]["limit"]
    assert limit["both"] == pytest.approx(1 / (1 / limit["decoding"] + 1 / limit["forward"]), rel=0.01)
    stages = [line.split()[0] for line in done.stdout.splitlines() if re.match(r"\w+ +\d+\.\d\d +\d+%  ", line)]
    assert stages[0] == "import"
    assert {"list", "read", "decode", "forward", "rank", "write", "table", "effective"} <= set(stages)
    assert re.search(r"limit of this machine: \d+ images/s .* the whole call \d\.\d\d", done.stdout.splitlines()[-1])
