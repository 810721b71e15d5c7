"""Exports opened by the very tools that they are for, where these are installed.

    pip install datasets pycocotools mlcroissant fiftyone
    python -m pytest tests/slow/test_exports.py -m slow --index INDEX [--photographs DIR]

FiftyOne's importer of COCO files runs without its database; a data set in its app needs MongoDB beside it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from patchmine.index import Index
from patchmine.kept import positions
from patchmine.networks.taps import survey
from patchmine.photographs.decode import normalized, prepare
from patchmine.quantiles import ERROR

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def layer(index: Index) -> str:
    """A layer in the middle of the network."""
    return list(index.layers)[len(index.layers) // 2]


def test_datasets_opens_the_folder_and_the_file_with_pictures(index: Index, layer: str, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    index.export("hf", tmp_path / "folder", layers=[layer], k=3)
    index.export("hf", tmp_path / "file.parquet", layers=[layer], k=3)
    cache = str(tmp_path / "cache")
    opened = [
        datasets.load_dataset(str(tmp_path / "folder"), split="train", cache_dir=cache),
        datasets.load_dataset("parquet", data_files=str(tmp_path / "file.parquet"), split="train", cache_dir=cache),
    ]
    for found in opened:
        assert len(found) == 3 * index.layers[layer]
        for row in list(found)[:20]:
            patch = index.unit(f"{layer}:{row['channel']}").top(3)[row["rank"] - 1]
            assert row["image"].size == (patch.box.width, patch.box.height)
            assert (row["photograph"], row["value"]) == (patch.image, patch.value)


@pytest.fixture
def labels(index: Index, layer: str, tmp_path: Path) -> Path:
    index.export("coco", tmp_path / "coco", layers=[layer], k=3)
    return tmp_path / "coco" / "labels.json"


def test_pycocotools_opens_the_labels(index: Index, layer: str, labels: Path) -> None:
    found = pytest.importorskip("pycocotools.coco").COCO(str(labels))
    assert len(found.getAnnIds()) == 3 * index.layers[layer]
    for annotation in found.loadAnns(found.getAnnIds())[:50]:
        patch = index.unit(annotation["attributes"]["unit"]).top(3)[annotation["attributes"]["rank"] - 1]
        (image,) = found.loadImgs(annotation["image_id"])
        left, top, width, height = annotation["bbox"]
        assert (image["file_name"], (left, top, left + width, top + height)) == (patch.image, patch.box.as_tuple())


def test_fiftyone_reads_the_labels(index: Index, layer: str, labels: Path) -> None:
    coco = pytest.importorskip("fiftyone.utils.coco")
    source = index.source.spec
    importer = coco.COCODetectionDatasetImporter(data_path=source, labels_path=str(labels), label_types="detections")
    detections: list[tuple[str, Any]] = []
    with importer:
        for path, _, found in importer:
            detections += [(path, detection) for detection in found.detections]
    assert len(detections) == 3 * index.layers[layer]
    for path, detection in detections[:50]:
        patch = index.unit(detection.unit).top(3)[detection.rank - 1]
        assert Path(path).relative_to(source).as_posix() == patch.image
        width, height = index.placement(patch.image_id).source
        left, top, across, down = detection.bounding_box
        box = np.array([left * width, top * height, (left + across) * width, (top + down) * height])
        assert np.allclose(box, patch.box.as_tuple())


def test_mlcroissant_reads_every_record(index: Index, layer: str, tmp_path: Path) -> None:
    croissant = pytest.importorskip("mlcroissant")
    index.export("croissant", tmp_path / "croissant", layers=[layer], k=3)
    found = croissant.Dataset(jsonld=str(tmp_path / "croissant" / "croissant.json"))
    assert not found.metadata.ctx.issues.errors
    records = list(found.records(record_set="patches"))
    assert len(records) == 3 * index.layers[layer]
    patch = index.unit(f"{layer}:0").top(1)[0]
    assert (records[0]["patches/image"].decode(), records[0]["patches/value"]) == (patch.image, patch.value)


def test_pandas_opens_the_parquet_with_its_types(index: Index, layer: str, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    index.export("parquet", tmp_path / "patches.parquet", layers=[layer], k=3)
    found = pandas.read_parquet(tmp_path / "patches.parquet")
    assert len(found) == 3 * index.layers[layer]
    assert found["value"].dtype == "float64"
    assert found["box_left"].dtype == "int64"


def test_the_thresholds_of_milan_are_quantiles_over_all_positions(index: Index, layer: str, tmp_path: Path) -> None:
    index.export("milan", tmp_path / "milan", layers=[layer], k=3)
    network = index.network()
    (tap,) = survey(network.module, network.blank(), [layer])
    every: list[torch.Tensor] = []
    handle = network.layer(layer).register_forward_hook(
        lambda _m, _i, output: every.append(tap.layout.grid_of(output)[0].flatten(1).clone())
    )
    with torch.inference_mode():
        for image in range(len(index)):
            pixels = prepare(index.photograph(image), index.preprocessing).tensor
            network.module(normalized(pixels[None], index.preprocessing))
    handle.remove()
    exact = np.quantile(torch.cat(every, 1).numpy(), 0.99, axis=1)
    found = np.loadtxt(tmp_path / "milan" / layer / "thresholds.csv", delimiter=",")
    error = np.abs(found - exact) / np.abs(exact)
    print(f"{layer}: relative error at most {error.max():.2e}, median {np.median(error):.2e}")
    assert error.max() <= 1.1 * ERROR
    kept = positions.read(index.directory, index.store.manifest["job_digest"], index.layers, len(index))
    assert kept is not None
    averages = torch.stack([part.mean(1, dtype=torch.float64) for part in every])
    assert np.allclose(kept.mean(layer)[:], averages.numpy(), atol=1e-4)


def test_pointers_say_nothing_about_the_machine(index: Index, layer: str, tmp_path: Path) -> None:
    index.export("pointers", tmp_path / "patches.json", layers=[layer], k=3)
    text = (tmp_path / "patches.json").read_text("utf-8")
    assert index.source.spec not in text
    assert json.loads(text)["patches"]
