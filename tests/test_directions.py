"""Directions in the channels of a layer are units of their own, and every command answers for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import patchmine
from patchmine.index import Index
from tests.conftest import SHAPES
from tests.support.commands import failed

LAYER = "thing"
VIRTUAL = "thing@probe"
ONES = (3, 0, 23)
"""The channels of the layer that the first directions are."""
MIXED = f"{VIRTUAL}:3"
QUICK = ("--steps", 2, "--seeds", 2, "--canvas", 48, "--budget", 1000)


def weights() -> np.ndarray:
    """Directions (5, 24): three channels, a mixture, and one that is never above its bias."""
    found = np.zeros((5, 24), np.float32)
    found[range(3), ONES] = 1
    found[3] = np.random.default_rng(0).normal(size=24)
    return found


@pytest.fixture(scope="session")
def directions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A probe in safetensors, with the names of its directions."""
    file = tmp_path_factory.mktemp("directions") / "probe.safetensors"
    bias = torch.tensor([0.0, 0.0, 0.0, 0.5, -1.0])
    save_file({"weight": torch.from_numpy(weights()), "bias": bias}, file)
    file.with_suffix(".txt").write_text("red cross\nblue\nblue\nmixture 12\nnever\n")
    return file


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, directions: Path) -> Path:
    """An index of drawn photographs, with the layer and the directions in it."""
    directory = tmp_path_factory.mktemp("indexes") / "probe.patchmine"
    asked = (f"{VIRTUAL}={directions}",)
    patchmine.build_index(
        SHAPES, directory, model="shapes", layers=("shape", LAYER), directions=asked, shard_size=12, keep=10
    )
    return directory


@pytest.fixture
def index(built: Path) -> Index:
    return patchmine.open_index(built)


@pytest.mark.parametrize("executor", ["torch", "openvino"])
def test_a_one_hot_direction_is_its_channel_to_the_last_bit(tmp_path, directions, executor):
    patchmine.build_index(
        SHAPES,
        tmp_path / "i",
        model="shapes",
        layers=(LAYER,),
        directions=(f"{VIRTUAL}={directions}",),
        executor=executor,
        limit=12,
    )
    index = patchmine.open_index(tmp_path / "i")
    for unit, channel in enumerate(ONES):
        for one, other in zip(index.store.column(VIRTUAL, unit), index.store.column(LAYER, channel), strict=True):
            assert one.tobytes() == other.tobytes()
        tops = [index.unit(word).top(10) for word in (f"{VIRTUAL}:{unit}", f"{LAYER}:{channel}")]
        assert [(p.image, p.value, p.position, p.box) for p in tops[0]] == [
            (p.image, p.value, p.position, p.box) for p in tops[1]
        ]


def test_a_direction_is_the_product_with_the_channels(index, network_maps):
    weight, bias = torch.from_numpy(weights()), torch.tensor([0.0, 0.0, 0.0, 0.5, -1.0])
    for image in (0, 17):
        maps = network_maps(index, image)
        expected = torch.einsum("ud,dyx->uyx", weight.double(), maps.double()) + bias[:, None, None]
        for unit in range(5):
            values, places = index.store.column(VIRTUAL, unit)
            assert values[image] == pytest.approx(float(expected[unit].max()), abs=1e-5)
            assert places[image] == int(expected[unit].flatten().argmax())


@pytest.fixture
def network_maps():
    """A layer's own maps for a photograph of an index, by a plain hook."""

    def maps(index: Index, image: int) -> torch.Tensor:
        from patchmine.photographs.decode import normalized, prepare

        network = index.network()
        pixels = prepare(index.photograph(image), index.preprocessing).tensor
        found: list[torch.Tensor] = []
        handle = network.layer(LAYER).register_forward_hook(lambda _m, _i, out: found.append(out[0].clone()))
        with torch.no_grad():
            network.module(normalized(pixels[None], index.preprocessing))
        handle.remove()
        return found[0]

    return maps


def test_units_have_the_names_of_the_text_file(index):
    names = [unit.name for unit in index.units(VIRTUAL)]
    assert names == ["red_cross", "blue", "blue_2", "mixture_12_3", "never"]
    assert index.unit("red_cross").unit == index.unit(f"{VIRTUAL}_0").unit


ANSWERS = {
    "top": ["--unit", MIXED, "-k", 3, "--json"],
    "top tight": ["--unit", MIXED, "-k", 2, "--crop", "tight", "--json"],
    "top facets": ["--unit", MIXED, "--pick", "facets", "-k", 2, "--json"],
    "top spectrum": ["--unit", MIXED, "--pick", "spectrum", "-k", 4, "-o", "spectrum.png"],
    "top project": ["--unit", MIXED, "-k", 2, "--project", "guided", "-o", "projected.png"],
    "sheet": ["--layer", VIRTUAL, "-o", "sheet.png"],
    "units": ["--layer", VIRTUAL, "--json"],
    "name": [MIXED, "blend"],
    "similar": ["--unit", MIXED, "-k", 3, "--json"],
    "similar image": ["--image", "000020.png", "--layer", VIRTUAL, "-k", 3, "--json"],
    "fires": ["000020.png", "--layer", VIRTUAL, "-k", 3, "--json"],
    "tighten": ["--unit", MIXED, "-k", 1],
    "synth": ["--unit", MIXED, "--steps", 2, "--json"],
    "compare": ["--unit", MIXED, "-k", 2, "--steps", 2, "-o", "compare.png"],
    "why": ["--unit", MIXED, "-o", "why", *QUICK],
    "site": ["--units", MIXED, "-o", "site"],
    "info": ["--json"],
    "rf": ["--layers", VIRTUAL, "--json"],
    "verify": ["--all"],
    "export": ["csv", "-o", "patches.csv", "--layer", VIRTUAL, "-k", 2],
    "export coco": ["coco", "-o", "coco", "--layer", VIRTUAL, "-k", 2],
    "export milan": ["milan", "-o", "milan", "--layer", VIRTUAL, "-k", 2],
    "export clip-dissect": ["clip-dissect", "-o", "dissect", "--layer", VIRTUAL],
    "export pointers": ["pointers", "-o", "pointers.json", "--layer", VIRTUAL, "-k", 2],
    "pack": ["-o", "packed.tar"],
    "embed": [],
}
"""What every command is asked about a direction."""


@pytest.mark.parametrize("asked", [pytest.param(a, marks=pytest.mark.slow if a == "why" else ()) for a in ANSWERS])
def test_every_command_answers_for_a_direction(cli, built, tmp_path, asked):
    shutil.copytree(built, tmp_path / "probe.patchmine")
    command, words = asked.split()[0], ANSWERS[asked]
    done = cli(command, *words, "-i", "probe.patchmine")
    assert done.returncode == 0, done.stderr
    if "--json" in words:
        document = json.loads(done.stdout)
        assert VIRTUAL in json.dumps(document)
    if "-o" in words:
        assert (tmp_path / words[words.index("-o") + 1]).exists()


def test_a_one_hot_direction_has_the_tight_crops_and_synthetic_images_of_its_channel(built, tmp_path):
    shutil.copytree(built, tmp_path / "i")
    index = patchmine.open_index(tmp_path / "i")
    direction, channel = index.unit(f"{VIRTUAL}:0"), index.unit(f"{LAYER}:{ONES[0]}")
    assert [p.box for p in direction.top(3, crop="tight")] == [p.box for p in channel.top(3, crop="tight")]
    one, other = (unit.synthesize(steps=3)[0] for unit in (direction, channel))
    assert np.array_equal(one.picture, other.picture) and one.value == other.value
    # Their neighbors are the same, because patches of a virtual layer are compared by the channels of its layer.
    near, around = (index.similar(unit.unit, k=3) for unit in (direction, channel))
    assert near.similarities[0] == around.similarities[0] == pytest.approx(1)


def test_the_index_keeps_the_directions_and_needs_the_file_no_more(cli, built, tmp_path):
    shutil.copytree(built, tmp_path / "i")
    (kept,) = (tmp_path / "i" / "directions").iterdir()
    data = kept.read_bytes()
    kept.write_bytes(data[:-4] + b"\0\0\x80\x3f")
    words = ("fires", "000020.png", "-i", "i", "--layer", VIRTUAL)
    assert "does not hold the directions" in failed(cli(*words))
    kept.unlink()
    assert "is missing; build the index again with --fresh" in failed(cli(*words))


def test_merging_and_extending_keep_the_directions(tmp_path, directions, built):
    asked = (f"{VIRTUAL}={directions}",)
    common = {"model": "shapes", "layers": (LAYER,), "directions": asked, "keep": 10}
    for part, folder in enumerate(("a", "b")):
        source = patchmine.open_index(built)
        (tmp_path / folder).mkdir()
        for image in range(part * 10, part * 10 + 10):
            (tmp_path / folder / source.path(image)).write_bytes(source.photograph(image))
        patchmine.build_index(tmp_path / folder, tmp_path / f"{folder}.patchmine", **common)
    patchmine.merge_indexes([tmp_path / "a.patchmine", tmp_path / "b.patchmine"], tmp_path / "both")
    merged, whole = patchmine.open_index(tmp_path / "both"), patchmine.open_index(built)
    values, _ = whole.store.column(VIRTUAL, 3)
    assert np.allclose(merged.store.column(VIRTUAL, 3)[0], values[:20], atol=1e-6)
    assert merged.unit(MIXED).synthesize(steps=2)


def test_another_readout_of_the_same_name_is_another_job(cli, built, tmp_path):
    np.save(tmp_path / "other.npy", weights()[:4])
    words = ("index", SHAPES, "-o", built, "--model", "shapes", "--layers", "shape", "--layers", LAYER, "--keep", 10)
    done = cli(*words, "--shard-size", 12, "--directions", f"{VIRTUAL}={tmp_path / 'other.npy'}")
    assert "holds another job: its directions" in done.stderr.splitlines()[-1]


def test_layers_lists_the_directions(cli, directions):
    done = cli("layers", "--model", "shapes", "--directions", f"{VIRTUAL}={directions}", "--json")
    assert json.loads(done.stdout)["layers"][-1] == {"layer": VIRTUAL, "channels": 5, "grid": [56, 56]}


def test_layers_can_name_the_directions_alone(cli, directions):
    words = ("--model", "shapes", "--directions", f"{VIRTUAL}={directions}", "--layers", VIRTUAL, "--limit", 4)
    done = cli("index", SHAPES, "-o", "i", *words, "--json")
    assert json.loads(done.stdout)["layers"] == [{"layer": VIRTUAL, "units": 5, "grid": [56, 56]}]


WRONG = {
    "thing@probe": "'thing@probe' is not LAYER@NAME=FILE",
    "thing=w.npy": "is not LAYER@NAME=FILE",
    "thing@cls=w.npy": "thing@cls means tokens of the layer: choose another name",
    "thing@reg=w.npy": "thing@reg means tokens of the layer: choose another name",
    "thing@1=w.npy": "'1' is not a name for directions",
    "thing@a/b=w.npy": "'a/b' is not a name for directions",
    "thing@p=gone.npy": "file 'gone.npy' not found",
    "thin@p=w.npy": "no layer of shapes matches 'thin'; did you mean thing or gain?",
    "thing@p=narrow.npy": "'narrow.npy' have 8 numbers each, but layer 'thing' has 24 channels: choose a layer of 8: "
    "contrast, relu@1, colour, relu@2, pool",
    "thing@p=odd.npy": "have 7 numbers each, but layer 'thing' has 24 channels, and no layer of shapes has 7",
    "thing@p=nan.npy": "its weight holds 1 value that is not finite",
    "thing@p=cube.npy": "its array has shape [2, 2, 24], not [units, width]",
    "thing@p=unknown.safetensors": "the format of directions 'unknown.safetensors' is unknown: it holds some [3]; "
    "known: ",
    "thing@p=code.pt": "are a pickle with more than tensors and plain settings, which can run any code",
    "thing@p=text.npy": "cannot be read",
    "thing@p=short.npy": "'short.txt' names 1 units, but 'short.npy' has 2",
}


@pytest.mark.parametrize("word", WRONG)
def test_wrong_directions_are_refused_in_a_line(cli, tmp_path, word):
    arrays = {"w": (2, 24), "narrow": (2, 8), "odd": (1, 7), "cube": (2, 2, 24), "nan": (2, 24), "short": (2, 24)}
    for name, shape in arrays.items():
        array = np.ones(shape, np.float32)
        array.flat[5] = np.nan if name == "nan" else 1
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "short.txt").write_text("one\n")
    (tmp_path / "text.npy").write_text("not an array at all")
    save_file({"some": torch.zeros(3)}, tmp_path / "unknown.safetensors")
    torch.save({"cfg": Path("x"), "W_enc": torch.zeros(3)}, tmp_path / "code.pt")
    done = cli("index", SHAPES, "-o", "i", "--model", "shapes", "--limit", 2, "--directions", word)
    assert WRONG[word] in failed(done)
    assert not (tmp_path / "i").exists()


def test_a_virtual_layer_that_a_network_does_not_carry_is_unknown(cli):
    done = cli("index", SHAPES, "-o", "i", "--model", "shapes", "--limit", 2, "--layers", VIRTUAL)
    assert "no layer of shapes matches 'thing@probe'" in failed(done)


def test_the_latents_of_an_autoencoder_are_units(cli, tmp_path, built):
    """End to end: an overcomplete file with a threshold, and every latent's maximum as its encoder gives it."""
    from tests.support import autoencoders as made

    file = made.overcomplete_batch_topk(tmp_path)
    words = ("index", SHAPES, "-o", "i", "--model", "shapes", "--layers", LAYER, "--limit", 6, "--keep", 5)
    asked = ("--directions", f"{LAYER}@sae={file.file}")
    assert "does not say how its code is made sparse" in failed(cli(*words, *asked))
    assert cli(*words, *asked, "--threshold", file.threshold).returncode == 0
    index = patchmine.open_index(tmp_path / "i")
    network = index.network()
    found: list[torch.Tensor] = []
    handle = network.layer(LAYER).register_forward_hook(lambda _m, _i, out: found.append(out[0].clone()))
    from patchmine.photographs.decode import normalized, prepare

    with torch.no_grad():
        for image in range(6):
            pixels = prepare(index.photograph(image), index.preprocessing).tensor
            network.module(normalized(pixels[None], index.preprocessing))
    handle.remove()
    latents = torch.stack([file.encode(maps.flatten(1).T) for maps in found])
    expected = latents.amax(1)
    table = torch.tensor(np.stack([index.store.column(f"{LAYER}@sae", unit)[0] for unit in range(made.UNITS)], 1))
    assert float((table - expected).abs().max()) < 1e-4
    assert 0 < (expected > 0).float().mean() < 1


@pytest.fixture(scope="session")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same latents twice: of a top-k autoencoder, whose table is sparse, and with the table stored densely."""
    from tests.support import autoencoders as made

    folder = tmp_path_factory.mktemp("sparse")
    tensors = {**made.NAMED, "b_enc": made.B_ENC - 0.5}
    cfg = {"architecture": "topk", "k": 2, "apply_b_dec_to_input": True}
    save_file(tensors, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(cfg))
    common = {"model": "shapes", "layers": (LAYER,), "keep": 10, "shard_size": 12, "limit": 40}
    with pytest.MonkeyPatch.context() as patched:
        for name, smaller in (("cells", True), ("dense", False)):
            patched.setattr("patchmine.sparse.Columns.smaller", smaller)
            patched.setattr("patchmine.sparse.UNITS", 40)  # so that the table is written in three blocks of units
            asked = (f"{LAYER}@sae={folder}",)
            patchmine.build_index(SHAPES, folder / name, directions=asked, **common)
    return folder / "cells", folder / "dense"


def test_a_sparse_table_is_the_dense_one_to_the_last_bit(sparse):
    cells, dense = map(patchmine.open_index, sparse)
    layer = f"{LAYER}@sae"
    assert cells.store._datasets.has("layers", layer, "sparse") and not dense.store._datasets.has(
        "layers", layer, "sparse"
    )
    for one, other in zip(cells.store.table(layer), dense.store.table(layer), strict=True):
        assert one.dtype == other.dtype and one.tobytes() == other.tobytes()
    values, _ = dense.store.table(layer)
    assert 0 < (values != 0).mean() < 0.9
    for name in ("mean", "std", "positive", "minimum", "maximum", "tied", "quantiles"):
        assert np.array_equal(cells.stats(layer)[name], dense.stats(layer)[name]), name
    assert np.array_equal(cells.store.top_of_all(layer).keys, dense.store.top_of_all(layer).keys)
    for part in (slice(3, 9), slice(None), [1, 5]):
        assert np.array_equal(cells.store.table_on_disk(layer)[0][part], dense.store.table_on_disk(layer)[0][part])
    assert np.array_equal(
        cells.store.table_on_disk(layer)[1][5:9, 30:70], dense.store.table_on_disk(layer)[1][5:9, 30:70]
    )


@pytest.mark.parametrize(
    "words",
    [
        ["units", "--layer", f"{LAYER}@sae", "--sort", "positive", "--json"],
        ["top", "--unit", f"{LAYER}@sae:7", "--pick", "quantile:0.9", "-k", 4, "--json"],
        ["top", "--unit", f"{LAYER}@sae:7", "--pick", "bottom", "-k", 4, "--json"],
        ["similar", "--unit", f"{LAYER}@sae:7", "-k", 4, "--json"],
        ["fires", "000020.png", "--layer", f"{LAYER}@sae", "-k", 4, "--json"],
        ["verify", "--all"],
        ["name", "--auto"],
    ],
    ids=lambda words: " ".join(map(str, words[:4])),
)
def test_a_sparse_table_gives_the_answers_of_the_dense_one(cli, sparse, tmp_path, words):
    answers = []
    for directory in sparse:
        shutil.copytree(directory, tmp_path / directory.name)
        done = cli(*words, "-i", directory.name)
        assert done.returncode == 0, done.stderr
        answers.append(done.stdout.replace(directory.name, "INDEX"))
    assert answers[0] == answers[1] or words[0] == "verify"  # which counts datasets


def test_an_interrupted_run_of_sparse_shards_resumes(tmp_path, sparse):
    """Its shards are read back, and their rankings save work."""
    from patchmine.store.shardfile import ShardFile, shard_path

    cells = patchmine.open_index(sparse[0])
    job = cells.job
    values, positions = cells.store.table(f"{LAYER}@sae")
    from patchmine import sparse as sparsely
    from patchmine.store.shardfile import write_shard

    arrays = sparsely.arrays(values[:12], positions[:12])
    about = {"job": job.digest, "shard": 0, "images": [{"reason": None}] * 12}
    write_shard(shard_path(tmp_path, 0), about, {f"1/{name}": array for name, array in arrays.items()})
    shard = ShardFile.open(shard_path(tmp_path, 0))
    for units in (slice(None), slice(10, 20)):
        for one, other in zip(shard.table("1", units), (values[:12, units], positions[:12, units]), strict=True):
            assert np.array_equal(one, other)


def test_damaged_cells_are_refused(sparse, tmp_path):
    import h5py

    from patchmine.errors import StoreError

    layer = f"{LAYER}@sae"
    for place, value in (("row", 1000), ("start", -5)):
        shutil.copytree(sparse[0], tmp_path / place)
        with h5py.File(tmp_path / place / "activations.h5", "r+") as file:
            file[f"layers/{layer}/sparse/{place}"][1] = value
        with pytest.raises(StoreError, match="build"):
            patchmine.open_index(tmp_path / place).store.table(layer)


def test_units_are_chosen_by_frequency_and_maximum(cli, sparse):
    layer = f"{LAYER}@sae"
    stats = patchmine.open_index(sparse[0]).stats(layer)
    words = ("units", "-i", sparse[0], "--layer", layer, "--json")
    done = cli(*words, "--frequency", "0.05:0.5", "--maximum", "1:")
    chosen = [unit["channel"] for unit in json.loads(done.stdout)["units"]]
    wanted = (stats["positive"] >= 0.05) & (stats["positive"] <= 0.5) & (stats["maximum"] >= 1)
    assert chosen == np.flatnonzero(wanted).tolist() and 0 < len(chosen) < 96
    assert "write LOW:HIGH" in failed(cli(*words, "--frequency", "often"))
    assert "write LOW:HIGH" in failed(cli(*words, "--maximum", "3:1"))
    assert "widen them" in failed(cli(*words, "--maximum", "1e9:"))
