"""What `patchmine export` writes, read by readers of its own: each follows the code of the tool that will read it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

import patchmine
from patchmine.errors import PhotographError
from patchmine.exports import kinds
from patchmine.networks.taps import maps, survey
from patchmine.photographs.decode import normalized, prepare
from patchmine.quantiles import ERROR, SMALLEST
from patchmine.questions.rename import give
from patchmine.system import digests
from tests.support.commands import failed

LAYER = "colour"
FILES = {"csv": "o.csv", "json": "o.json", "parquet": "o.parquet", "pointers": "o.json"}
"""The kinds that make a file, and how a user would call it."""

WHOLE = ("clip-dissect", "cosy")
"""The kinds that take whole layers. Of the others three units are enough: each reading draws its photograph anew."""

needs_arrow = pytest.mark.skipif(find_spec("pyarrow") is None, reason="the extra 'pandas' is not installed")
READING = ["crops", "csv", "json", "parquet", "hf", "coco", "pointers", "croissant", "psychophysics"]


@pytest.fixture(scope="module")
def of_folder(photographs, tmp_path_factory):
    """An index of a folder whose class names sort differently as folders and as parts of paths."""
    place = tmp_path_factory.mktemp("sources")
    for old, new in (("n01443537", "a"), ("n01440764", "a-b"), ("other", "b")):
        shutil.copytree(photographs / old, place / "photographs" / new)
    patchmine.build_index(place / "photographs", place / "own.patchmine", model="shapes", layers=[LAYER], keep=12)
    return place


@pytest.fixture(scope="module")
def index(of_folder):
    return patchmine.open_index(of_folder / "own.patchmine")


@pytest.fixture
def export(index, tmp_path, monkeypatch):
    """Export into a place of its own; returns the place. Trials are short, because the index has 24 photographs."""
    monkeypatch.setattr("patchmine.exports.psychophysics.REFERENCES", 4)

    def run(kind, name=None, **asked):
        out = tmp_path / (name or FILES.get(kind, f"o-{kind}"))
        if "layers" not in asked and "units" not in asked:
            asked["units"] = () if kind in WHOLE else [f"{LAYER}:{channel}" for channel in (0, 3, 5)]
            asked["layers"] = [LAYER] if kind in WHOLE else ()
        index.export(kind, out, **asked)
        return out

    return run


def tree(place):
    """Every file below a place with its bytes, or a file as one of a nameless folder."""
    if place.is_file():
        return {"": place.read_bytes()}
    return {file.relative_to(place).as_posix(): file.read_bytes() for file in place.rglob("*") if file.is_file()}


def activations(index, layer):
    """The maps of a layer for every photograph, straight through the module: float32 (images, channels, h, w)."""
    network = index.network()
    taps = survey(network.module, network.blank(), [layer])
    pixels = torch.stack([prepare(index.photograph(image), index.preprocessing).tensor for image in range(len(index))])
    return maps(network.module, normalized(pixels, index.preprocessing), taps)[layer].numpy()


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=needs_arrow) if k in ("parquet", "hf") else k for k in kinds.names]
)
def test_the_same_export_has_the_same_bytes(kind, export):
    first, again = tree(export(kind, f"1-{FILES.get(kind, '')}")), tree(export(kind, f"2-{FILES.get(kind, '')}"))
    assert first == again
    assert first


def test_exports_that_only_read_load_no_torch(index, tmp_path):
    """A file kind with pyarrow too: torch takes seconds to load."""
    named = [kind for kind in READING if kind not in ("parquet", "hf") or find_spec("pyarrow")]
    program = f"""
import sys, patchmine
from patchmine.exports import psychophysics
psychophysics.REFERENCES = 4
index = patchmine.open_index({str(index.directory)!r})
for kind in {named}:
    index.export(kind, {str(tmp_path)!r} + "/" + kind, units=["{LAYER}:0"])
print([name for name in ("torch", "faiss", "matplotlib") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_coco_has_the_boxes_of_top(index, export):
    document = json.loads((export("coco", k=3) / "labels.json").read_text())
    names = {image["id"]: image["file_name"] for image in document["images"]}
    sizes = {image["id"]: (image["width"], image["height"]) for image in document["images"]}
    assert len({category["name"] for category in document["categories"]}) == 3
    assert len(document["annotations"]) == 3 * 3
    for annotation in document["annotations"]:
        about = annotation["attributes"]
        patch = index.unit(about["unit"]).top(3)[about["rank"] - 1]
        left, top, width, height = annotation["bbox"]
        assert (left, top, left + width, top + height) == patch.box.as_tuple()
        assert (names[annotation["image_id"]], about["value"]) == (patch.image, patch.value)
        across, down = sizes[annotation["image_id"]]
        assert left + width <= across
        assert top + height <= down
        assert annotation["area"] == width * height


def test_tables_agree_and_take_several_picks(index, export):
    picks = ("top", "bottom", "random")
    rows = list(csv.DictReader(io.StringIO(export("csv", k=4, picks=picks, seed=1).read_text())))
    assert len(rows) == 3 * 4 * 3
    for row in rows:
        unit = index.unit(f"{row['layer']}:{row['channel']}")
        patch = unit.top(4, row["pick"], seed=1)[int(row["rank"]) - 1]
        assert (row["image"], float(row["value"]), row["name"]) == (patch.image, patch.value, unit.name)
        assert [int(row[f"box_{edge}"]) for edge in ("left", "top", "right", "bottom")] == list(patch.box.as_tuple())
        assert row["digest"] == index.digest(patch.image_id)
    document = json.loads(export("json", k=4, picks=picks, seed=1).read_text())
    patches = [(patch["image"], patch["pick"]) for unit in document["units"] for patch in unit["patches"]]
    assert patches == [(row["image"], row["pick"]) for row in rows]
    if find_spec("pyarrow"):
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(export("parquet", k=4, picks=picks, seed=1))
        assert table.column_names == list(rows[0])
        assert table.column("value").to_pylist() == [float(row["value"]) for row in rows]


def test_crops_are_cut_from_the_photographs_and_sort_by_rank(index, export):
    out = export("crops", k=12)
    rows = list(csv.DictReader(io.StringIO((out / "crops.csv").read_text())))
    assert [row["file_name"] for row in rows] == sorted(row["file_name"] for row in rows)
    assert {row["file_name"] for row in rows} == set(tree(out)) - {"crops.csv"}
    for row in rows[::7]:
        patch = index.unit(f"{row['layer']}:{row['channel']}").top(12)[int(row["rank"]) - 1]
        with Image.open(out / row["file_name"]) as crop:
            assert crop.size == (patch.box.width, patch.box.height)
            difference = np.asarray(crop, int) - np.asarray(patch.crop(), int)
            assert np.abs(difference).mean() < 4  # JPEG


def test_the_longest_names_fit_into_a_path(of_folder, tmp_path):
    shutil.copytree(of_folder / "own.patchmine", tmp_path / "named.patchmine")
    given = {f"{LAYER}:0": "鱼" * 100, f"{LAYER}:1": ".."}
    for unit, name in given.items():
        index = patchmine.open_index(tmp_path / "named.patchmine")
        give(index, index.resolved(unit), name)
    named = patchmine.open_index(tmp_path / "named.patchmine", source=of_folder / "photographs")
    assert named.unit(f"{LAYER}:0").name == "鱼" * 100
    for kind in ("crops", "c2"):
        named.export(kind, tmp_path / kind, units=list(given), k=1)
        assert sum(file.suffix == ".jpg" for file in (tmp_path / kind).rglob("*")) == 2


@needs_arrow
def test_hf_names_each_picture_and_says_that_it_is_one(export):
    """A folder of pictures with their names in metadata.csv, or Parquet whose schema says which column is an image."""
    import pyarrow.parquet

    out = export("hf", k=2)
    rows = list(csv.DictReader(io.StringIO((out / "metadata.csv").read_text())))
    assert next(iter(rows[0])) == "file_name"
    assert "image" not in rows[0]  # the name under which a reader puts the picture
    assert {row["file_name"] for row in rows} == set(tree(out)) - {"metadata.csv"}
    table = pyarrow.parquet.read_table(export("hf", "o.parquet", k=2))
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert list(features) == table.column_names
    for row, entry in zip(rows, table.to_pylist(), strict=True):
        assert entry["image"]["bytes"] == (out / row["file_name"]).read_bytes()
        assert entry["photograph"] == row["photograph"]


def test_croissant_describes_every_column_of_the_table(export):
    out = export("croissant", k=2)
    document = json.loads((out / "croissant.json").read_text())
    (file,), (records,) = document["distribution"], document["recordSet"]
    data = (out / file["contentUrl"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == file["sha256"]
    header = data.decode().partition("\n")[0].split(",")
    assert [field["source"]["extract"]["column"] for field in records["field"]] == header
    assert all(field["description"] for field in records["field"])


def test_clip_dissect_has_the_maxima_in_the_order_of_its_loader(of_folder, tmp_path):
    index = patchmine.open_index(of_folder / "own.patchmine")
    index.export("clip-dissect", tmp_path / "saved")
    loaded = torch.load(tmp_path / "saved" / f"own_shapes_{LAYER}_max.pt", weights_only=True)
    loader = ImageFolder(str(of_folder / "photographs"))
    paths = [os.path.relpath(path, of_folder / "photographs") for path, _ in loader.samples]
    assert paths == (tmp_path / "saved/own_photographs.txt").read_text().splitlines()
    ids = {record.path: record.image for record in index.store.records()}
    assert [ids[path] for path in paths] != sorted(ids.values())  # the two orders differ here
    assert torch.equal(loaded, torch.from_numpy(index.store.table(LAYER)[0][[ids[path] for path in paths]]))


def test_averages_are_those_over_all_positions(index, export):
    found = torch.load(export("cosy") / f"val_shapes-{LAYER}.pt", weights_only=True).numpy()
    average = torch.load(export("clip-dissect", pool="mean") / f"own_shapes_{LAYER}.pt", weights_only=True).numpy()
    expected = activations(index, LAYER).mean((2, 3), dtype=np.float64)
    assert np.allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert np.array_equal(np.sort(found, axis=0), np.sort(average, axis=0))  # the same rows in the order of folders


def milan(root, layers=None):
    """`TopImagesDataset` of neuron-descriptions, as far as it looks at the files: unit, images and masks by layer."""
    found = {}
    for layer in layers or [place.name for place in root.iterdir() if place.is_dir()]:
        images, masks = (torch.from_numpy(np.load(root / layer / f"{name}.npy")) for name in ("images", "masks"))
        assert images.dim() == masks.dim() == 5
        assert images.shape[:2] == masks.shape[:2]
        assert images.shape[3:] == masks.shape[3:]
        units = root / layer / "units.npy"
        numbers = torch.from_numpy(np.load(units)) if units.exists() else torch.arange(len(images))
        assert numbers.dim() == 1
        found[layer] = (numbers, images.float(), masks.float())
    return found


def maia(path, layer):
    """What MAIA's DatasetExemplars draws of each exemplar, dimmed outside the mask, with activations and thresholds."""
    activations = np.loadtxt(path / layer / "activations.csv", delimiter=",")
    thresholds = np.loadtxt(path / layer / "thresholds.csv", delimiter=",")
    images, masks = np.load(path / layer / "images.npy"), np.load(path / layer / "masks.npy")
    drawn = []
    for unit in range(activations.shape[0]):
        for number in range(min(activations.shape[1], 15)):
            mask = np.repeat(masks[unit, number], 3, axis=0)
            drawn.append(images[unit, number] * (mask > 0) + 0.25 * images[unit, number] * (mask == 0))
    return np.stack(drawn).transpose(0, 2, 3, 1).astype(np.uint8), activations, thresholds


def test_milan_reads_pictures_and_masks_of_the_top(index, export):
    out = export("milan", k=3, layers=[LAYER])
    (numbers, images, masks) = milan(out)[LAYER]
    assert numbers.tolist() == list(range(index.layers[LAYER]))
    assert not (out / LAYER / "units.npy").exists()
    assert images.shape[1:] == (3, 3, 224, 224)
    assert masks.shape[1:] == (3, 1, 224, 224)
    ids = np.loadtxt(out / LAYER / "ids.csv", delimiter=",").astype(int)
    values = np.loadtxt(out / LAYER / "activations.csv", delimiter=",")
    levels = np.loadtxt(out / LAYER / "thresholds.csv", delimiter=",")
    every = activations(index, LAYER)
    exact = np.quantile(every.transpose(1, 0, 2, 3).reshape(len(levels), -1), 0.99, axis=1)
    assert (np.abs(levels - exact) <= np.maximum(1.01 * ERROR * np.abs(exact), SMALLEST)).all()
    for unit in range(len(ids)):
        patches = index.unit(f"{LAYER}:{unit}").top(3)
        assert ids[unit].tolist() == [patch.image_id for patch in patches]
        assert np.allclose(values[unit], [patch.value for patch in patches], rtol=1e-5)
        for rank, image in enumerate(ids[unit]):
            pixels = prepare(index.photograph(image), index.preprocessing).tensor
            assert torch.equal(images[unit, rank], pixels.float())
            large = torch.nn.functional.interpolate(
                torch.from_numpy(every[image, unit])[None, None], size=(224, 224), mode="bilinear"
            )
            differ = (large[0, 0] > levels[unit]) != (masks[unit, rank, 0] > 0)
            assert differ.float().mean() < 0.002  # rounding at the threshold


def test_some_units_of_a_layer_have_their_numbers(export):
    out = export("milan", units=[f"{LAYER}:4", f"{LAYER}:1"], k=2)
    numbers, images, _ = milan(out)[LAYER]
    assert numbers.tolist() == [1, 4]
    assert len(images) == 2


def test_maia_draws_from_the_folder(export):
    drawn, values, thresholds = maia(export("maia", k=2), LAYER)
    assert drawn.shape[1:] == (224, 224, 3)
    assert len(values) == len(thresholds)
    assert drawn.std() > 10


def test_c2_is_read_as_its_score_reads_it(index, export):
    out = export("c2", k=4, units=[f"{LAYER}:{channel}" for channel in range(8)])
    folders = sorted(out.glob("concept_*"))
    assert folders
    for folder in folders:
        pictures, found, values = [], [], []
        for path in folder.glob("id_*_act_*.jpg"):
            match = re.compile(r"id_\d+_act_([0-9.]+)\.jpg").match(path.name)
            assert match is not None
            values.append(float(match[1]))
            found.append(torch.load(path.with_name(path.name.split("_act_")[0] + "_actmap.pt"), weights_only=True))
            with Image.open(path) as picture:
                pictures.append(np.asarray(picture.convert("RGB")))
        assert np.stack(pictures).shape[1:] == (224, 224, 3)
        stacked = torch.stack(found)
        assert stacked.dim() == 3
        assert stacked.min() >= 0
        assert np.allclose(stacked.amax((1, 2)), values, atol=1e-3)
        assert min(values) > 0


@pytest.fixture(scope="module")
def seen_whole(of_folder):
    """An index of photographs of several sizes, each seen whole: no two grids need be equal."""
    directory = of_folder / "whole.patchmine"
    patchmine.build_index(
        of_folder / "photographs", directory, model="shapes", layers=[LAYER], keep=3, view="whole", limit=8
    )
    return patchmine.open_index(directory)


def test_photographs_of_several_sizes_fit_their_readers(seen_whole, tmp_path):
    sizes = {seen_whole.placement(image).input for image in range(8)}
    assert len(sizes) > 1
    seen_whole.export("milan", tmp_path / "milan", k=3)
    (_, images, _) = milan(tmp_path / "milan")[LAYER]
    assert images.shape[2:] == (3, 224, 224)
    assert all(images[unit, rank].std() > 10 for unit in range(len(images)) for rank in range(3))
    seen_whole.export("c2", tmp_path / "c2", k=3)
    folders = sorted((tmp_path / "c2").iterdir())
    assert folders
    for folder in folders:
        assert len({torch.load(file, weights_only=True).shape for file in folder.glob("*.pt")}) == 1
    seen_whole.export("cosy", tmp_path / "cosy")
    averages = torch.load(tmp_path / "cosy" / f"val_shapes-{LAYER}.pt", weights_only=True)
    for image in range(8):
        pixels = prepare(seen_whole.photograph(image), seen_whole.preprocessing).tensor[None]
        network = seen_whole.network()
        taps = survey(network.module, torch.zeros(1, 3, *pixels.shape[2:]), [LAYER])
        found = maps(network.module, normalized(pixels, seen_whole.preprocessing), taps)[LAYER]
        assert torch.allclose(averages[image], found[0].mean((1, 2), dtype=torch.float64).float(), atol=1e-4)


def trials(out):
    with (out / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all((out / row["file"]).is_file() for row in rows)
    return rows


def test_no_picture_appears_twice_in_a_trial_and_no_query_is_a_reference(shapes_index, tmp_path):
    shapes_index.export("psychophysics", tmp_path / "out", units=["colour:0"])
    rows = trials(tmp_path / "out")
    for unit in {row["unit"] for row in rows}:
        of_unit = [row for row in rows if row["unit"] == unit]
        shown = [row["image"] for row in of_unit]
        assert len(shown) == len(set(shown))  # nor twice in all trials of a unit
        queries = {row["digest"] for row in of_unit if row["role"] == "query"}
        assert not queries & {row["digest"] for row in of_unit if row["role"] == "reference"}
        batches = {int(row["batch"]) for row in of_unit}
        assert batches == {0, 1}  # as many as 48 photographs allow
        for batch in batches:
            trial = [row for row in of_unit if int(row["batch"]) == batch]
            files = [f"{side}_{number}.png" for side in ("min", "max") for number in range(10)]
            assert [Path(row["file"]).name for row in trial] == files
            low, high = ([float(row["value"]) for row in trial if row["side"] == side] for side in ("min", "max"))
            assert max(low) <= min(high)
            assert high[:9] == sorted(high[:9])
            assert low[:9] == sorted(low[:9], reverse=True)
            assert {row["catch"] for row in trial} == {"1" if batch == 0 else "0"}


def test_trials_are_those_of_the_seed_whatever_else_is_exported(export):
    one = export("psychophysics", "one", units=[f"{LAYER}:0"])
    all_ = export("psychophysics", "all", units=[f"{LAYER}:1", f"{LAYER}:0"])
    assert tree(one).keys() <= tree(all_).keys()
    pictures = {name: data for name, data in tree(one).items() if name.endswith(".png")}
    assert all(tree(all_)[name] == data for name, data in pictures.items())
    other = export("psychophysics", "other", units=[f"{LAYER}:0"], seed=1)
    assert {name: data for name, data in tree(other).items() if name.endswith(".png")} != pictures


def test_pointers_hold_no_pixel_and_find_renamed_photographs(cli, of_folder, tmp_path):
    index = of_folder / "own.patchmine"
    words = ("export", "pointers", "-i", index, "-o", "patches.json", "-k", 2)
    assert cli(*words).returncode == 0
    patches = json.loads(Path("patches.json").read_text())["patches"]
    assert patches[0].keys() >= {"unit", "rank", "image", "digest", "box", "value"}
    assert list(patches[0]["box"]) == ["left", "top", "right", "bottom"]
    for number, file in enumerate(sorted((of_folder / "photographs").rglob("*.*"))):
        shutil.copy(file, tmp_path / f"{100 - number}{file.suffix}")
    done = cli("import", "pointers", "patches.json", "--source", tmp_path, "-o", "crops", "--json")
    document = json.loads(done.stdout)
    assert document["found"] == document["photographs"] == len({patch["digest"] for patch in patches})
    opened = patchmine.open_index(index)
    for patch, pointer in zip(patches, document["patches"], strict=True):
        assert digests.of_bytes((tmp_path / pointer["image"]).read_bytes()) == patch["digest"]
        assert pointer["was"] == patch["image"]
    rows = list(csv.DictReader(io.StringIO(Path("crops/crops.csv").read_text())))
    assert len(rows) == len(patches)
    first = opened.unit(patches[0]["unit"]).top(1)[0]
    with Image.open(Path("crops", rows[0]["file_name"])) as crop:
        assert np.abs(np.asarray(crop, int) - np.asarray(first.crop(), int)).mean() < 4


def test_pointers_without_their_photographs_are_counted(cli, of_folder, tmp_path):
    cli("export", "pointers", "-i", of_folder / "own.patchmine", "-o", "patches.json", "-k", 1)
    (tmp_path / "few").mkdir()
    shutil.copy(next(iter(sorted((of_folder / "photographs").rglob("*.*")))), tmp_path / "few")
    done = cli("import", "pointers", "patches.json", "--source", "few")
    assert done.returncode == 0
    assert "photographs found in few" in done.stdout
    strict = cli("import", "pointers", "patches.json", "--source", "few", "--strict")
    assert strict.returncode == 1
    assert "are not in 'few'" in strict.stderr


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds no pointers"),
        ('{"patches": 3}', "patches is 3"),
        ('{"patches": [{"unit": "x", "rank": 1}]}', "box"),
        ('{"patches": [{"unit": "../x", "box": {"left": 0, "top": 0, "right": 1, "bottom": 1}}]}', "not LAYER:CHANNEL"),
    ],
)
def test_a_file_that_is_not_one_of_pointers_is_refused(cli, tmp_path, text, reason):
    (tmp_path / "bad.json").write_text(text)
    assert reason in failed(cli("import", "pointers", "bad.json", "--source", "shapes:2"))


def test_pointers_of_a_stranger_write_nowhere_else(cli, of_folder, tmp_path):
    place = of_folder / "photographs/a"
    file = next(iter(sorted(place.iterdir())))
    box = {"left": 0, "top": 0, "right": 9, "bottom": 9}
    pointer = {"unit": "../../x/..:3", "pick": "../..", "rank": 1, "image": "i", "box": box, "value": 1.0}
    document = {"patches": [{**pointer, "digest": digests.of_bytes(file.read_bytes())}]}
    (tmp_path / "bad.json").write_text(json.dumps(document))
    before = set(tmp_path.parent.iterdir())
    done = cli("import", "pointers", "bad.json", "--source", place, "-o", "crops")
    assert done.returncode == 0
    (row,) = csv.DictReader(io.StringIO(Path("crops/crops.csv").read_text()))
    assert (tmp_path / "crops" / row["file_name"]).resolve().is_relative_to(tmp_path / "crops")
    assert set(tmp_path.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (
            ["nope", "-o", "out"],
            "unknown export 'nope': choose from c2, clip-dissect, coco, cosy, croissant, crops, csv, hf, ",
        ),
        (["csv", "-o", "there.csv"], "'there.csv' exists: give another name with -o, or replace it with --force"),
        (["coco", "-o", "full"], "'full' exists"),
        (["coco", "-o", "there.csv"], "is a file, but this makes a folder"),
        (["csv", "-o", "full", "--force"], "is a folder: name a file in it"),
        (["csv", "-o", "none/out.csv"], "folder 'none' not found"),
        (["csv", "-o", "out.csv", "--pick", "tpo"], "unknown --pick 'tpo'; did you mean top?"),
        (["csv", "-o", "out.csv", "--crop", "round"], "unknown --crop 'round'"),
        (["csv", "-o", "out.csv", "-k", "0"], "-k must be at least 1, not 0"),
        (["csv", "-o", "out.csv", "--layer", "color"], "the index has no layer 'color'; did you mean colour?"),
        (["csv", "-o", "out.csv", "--unit", "colour:99"], "unknown unit 'colour:99'"),
        (["csv", "-o", "out.csv", "--unit", "0", "--layer", "colour", "--layer", "thing"], "is ambiguous"),
        (["milan", "-o", "out", "--pick", "top", "--pick", "bottom"], "export milan takes one --pick, not 2"),
        (["psychophysics", "-o", "out", "--pick", "bottom"], "chooses its photographs by itself"),
        (["psychophysics", "-o", "out", "-k", "5"], "leave -k out"),
        (["clip-dissect", "-o", "out", "-k", "5"], "leave -k out"),
        (["clip-dissect", "-o", "out", "--pool", "min"], "unknown --pool 'min'; did you mean mean?"),
        (["cosy", "-o", "out", "--unit", "colour:1"], "give --layer colour in place of --unit"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_line(cli, shapes_index_dir, tmp_path, words, reason):
    (tmp_path / "there.csv").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    assert reason in failed_after_progress(cli("export", *words, "-i", shapes_index_dir))
    assert sorted(place.name for place in tmp_path.iterdir()) == ["full", "there.csv"]


def failed_after_progress(done):
    """The line of a refusal, which may follow lines of progress."""
    last = done.stderr.strip().splitlines()[-1]
    assert (done.returncode, done.stdout, last.startswith("patchmine: ")) == (1, "", True), done.stderr
    return last


def test_force_replaces_what_it_writes_and_nothing_else(cli, shapes_index_dir, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    (tmp_path / "out/labels.json").write_text("old")
    done = cli("export", "coco", "-i", shapes_index_dir, "-o", "out", "--layer", LAYER, "--force")
    assert done.returncode == 0
    assert (tmp_path / "out/notes.txt").read_text() == "mine"
    assert json.loads((tmp_path / "out/labels.json").read_text())["images"]


@pytest.fixture
def without_one(of_folder, tmp_path):
    """An index of photographs of which one is gone, and that one's path."""
    shutil.copytree(of_folder, tmp_path / "gone")
    index = patchmine.open_index(tmp_path / "gone/own.patchmine", source=tmp_path / "gone/photographs")
    lost = index.unit(f"{LAYER}:0").top(1)[0].image
    (tmp_path / "gone/photographs" / lost).unlink()
    return index, lost


def test_a_photograph_that_is_gone_is_left_out_of_crops_and_named(without_one, cli, tmp_path):
    index, lost = without_one
    words = ("-i", index.directory, "--source", tmp_path / "gone/photographs", "--layer", LAYER)
    done = cli("export", "crops", "-o", "crops", "-k", 2, *words)
    assert done.returncode == 0
    assert lost in done.stderr
    assert lost not in (tmp_path / "crops/crops.csv").read_text()
    strict = cli("export", "crops", "-o", "strict", "-k", 2, *words, "--strict")
    assert lost in failed_after_progress(strict)
    assert not (tmp_path / "strict").exists()


@pytest.mark.parametrize("kind", ["milan", "c2", "psychophysics"])
def test_a_photograph_that_an_export_needs_is_named(kind, without_one, tmp_path, monkeypatch):
    index, lost = without_one
    monkeypatch.setattr("patchmine.exports.psychophysics.REFERENCES", 4)
    with pytest.raises(PhotographError, match=re.escape(lost)):
        index.export(kind, tmp_path / "out", units=[f"{LAYER}:0"])
    assert [place.name for place in tmp_path.iterdir()] == ["gone"]


@pytest.mark.parametrize("kind", ["milan", "crops", "csv"])
def test_a_disk_that_fills_leaves_nothing_behind(kind, index, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    monkeypatch.setattr("csv.DictWriter.writerow", full)
    index.unit(f"{LAYER}:0").top(1)
    with pytest.raises(patchmine.PatchmineError, match="No space left on device; make room"):
        index.export(kind, tmp_path / "out", units=[f"{LAYER}:0"], k=2)
    assert list(tmp_path.iterdir()) == []


def test_an_index_that_cannot_be_written_is_measured_for_this_once(index, export, monkeypatch, tmp_path):
    expected = tree(export("cosy", "kept"))
    (index.directory / "positions.h5").unlink()
    monkeypatch.setattr("patchmine.exports._positions.unwritable", lambda folder: "Read-only file system")
    assert tree(export("cosy", "once")) == expected
    assert not (index.directory / "positions.h5").exists()


def test_positions_are_measured_once_and_anew_when_damaged(index, export, tmp_path):
    export("cosy", "first")
    kept = index.directory / "positions.h5"
    before = kept.read_bytes()
    export("cosy", "again")
    assert kept.read_bytes() == before
    kept.write_bytes(before[: len(before) // 2])
    out = export("cosy", "damaged")
    assert tree(out) == tree(tmp_path / "first")
