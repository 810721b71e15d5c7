"""Compare an index with a brute-force loop: plain torch, fp32, no tricks, no code of patchmine in between.

    python scripts/check_answers.py PHOTOGRAPHS [-i INDEX] [-k 25] [--executor E] [--device D] [--precision P]

Builds the index with the default network if it is not there (with the executor, device and precision asked for),
computes every unit's maximum and position in every photograph again with a loop as a notebook would have it, and
counts the units whose top k agree in photographs and positions. A disagreement is excused where the values are
nearer than a relative 1e-4. Also prints the network's top-1 accuracy where the folders are WordNet ids, which proves
that the weights were loaded right. Exits with 1 when a unit disagrees or a value is off by more than 1e-4 (relative,
and absolute below 1).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import InterpolationMode, v2

import patchmine
from patchmine import models
from patchmine.labels.imagenet import class_label, imagenet_labels

TOLERANCE = 1e-4


@dataclass
class Truth:
    """One layer by brute force: each unit's maximum, its position, and the value at the position in the index."""

    values: np.ndarray
    positions: np.ndarray
    at_indexed: np.ndarray


def brute_force(folder: Path, paths: list[str], indexed: dict[str, np.ndarray]) -> tuple[dict[str, Truth], np.ndarray]:
    """The truth by layer, arrays (images, units), and the predicted class of each photograph.

    `indexed` holds the positions in the index, by layer.
    """
    layers = list(indexed)
    net = models.load().module
    seen: dict[str, torch.Tensor] = {}
    for layer in layers:
        net.get_submodule(layer).register_forward_hook(
            lambda _module, _inputs, output, layer=layer: seen.__setitem__(layer, output.clone())
        )
    transform = v2.Compose(
        [
            v2.Resize(256, InterpolationMode.BICUBIC, antialias=True),
            v2.CenterCrop(224),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    rows: dict[str, list[tuple[np.ndarray, ...]]] = {layer: [] for layer in layers}
    predicted = []
    for image, path in enumerate(paths):
        data = torch.frombuffer(bytearray((folder / path).read_bytes()), dtype=torch.uint8)
        picture = decode_jpeg(data, ImageReadMode.RGB, apply_exif_orientation=True)
        with torch.no_grad():
            predicted.append(int(net(transform(picture)[None]).argmax()))
        for layer in layers:
            maps = seen[layer][0].flatten(1).numpy()
            at_indexed = np.take_along_axis(maps, indexed[layer][image][:, None].astype(np.int64), 1)[:, 0]
            rows[layer].append((maps.max(1), maps.argmax(1), at_indexed))
    truths = {layer: Truth(*(np.stack(part) for part in zip(*found, strict=True))) for layer, found in rows.items()}
    return truths, np.array(predicted)


def near(a: float, b: float) -> bool:
    return abs(a - b) <= TOLERANCE * max(1.0, abs(a), abs(b))


def agreement(truth: Truth, channel: int, images: np.ndarray, places: np.ndarray) -> tuple[bool, bool]:
    """Whether one unit's ranking is that of the truth: to the letter, and but for near ties."""
    values = truth.values[:, channel]
    order = np.argsort(-values, kind="stable")[: len(images)]
    same_images, same_places = images == order, places == truth.positions[images, channel]
    excused = all(
        (same_image or near(values[image], values[true_image]))
        and (same_place or near(truth.at_indexed[image, channel], values[image]))
        for image, true_image, same_image, same_place in zip(images, order, same_images, same_places, strict=True)
    )
    return bool(same_images.all() and same_places.all()), excused


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-i", "--index", type=Path)
    parser.add_argument("-k", type=int, default=25)
    parser.add_argument("--executor", help="for the index that is built")
    parser.add_argument("--device", help="for the index that is built")
    parser.add_argument("--precision", default="fp32", help="for the index that is built; not fp32: only reported")
    options = parser.parse_args()
    index_path = options.index or Path(f"{options.folder.name}.patchmine")
    if not index_path.exists():
        how = {"executor": options.executor, "precision": options.precision, "device": options.device}
        patchmine.build_index(options.folder, index_path, **how)
    index = patchmine.open_index(index_path)
    records = [index.store.image(image) for image in range(len(index))]
    tables = {layer: index.store.table(layer) for layer in index.layers}
    truths, predicted = brute_force(
        options.folder, [r.path for r in records], {layer: places for layer, (_, places) in tables.items()}
    )
    identical = agreeing = total = kept = 0
    worst = 0.0
    for layer, channels in index.layers.items():
        truth, (values, _) = truths[layer], tables[layer]
        worst = max(worst, float((np.abs(values - truth.values) / np.maximum(1, np.abs(truth.values))).max()))
        for channel in range(channels):
            _, images, places = index.store.top(layer, channel)
            to_the_letter, excused = agreement(truth, channel, images[: options.k], places[: options.k])
            total += 1
            best = np.argsort(-truth.values[:, channel], kind="stable")[: options.k]
            kept += len(np.intersect1d(best, images[: options.k]))
            identical += to_the_letter
            agreeing += excused
    job = index.manifest["job"]
    computed = f"{job['runtime']} on {job['device']}, {job['precision']}"
    print(f"{total} units, top {options.k} of {len(records)} photographs; {computed}")
    print(f"of the true top {options.k}, kept: {kept / (total * min(options.k, len(records))):.2%}")
    print(f"identical in photographs, order and positions: {identical}")
    print(f"identical but for near ties (relative {TOLERANCE:g}): {agreeing}")
    print(f"largest difference of a value (relative, absolute below 1): {worst:.2e}")
    labels = imagenet_labels()
    classes = [class_label(r.class_name or "") for r in records]
    known = [label in labels for label in classes]
    if any(known):
        hits = np.mean([labels[p] == c for p, c, k in zip(predicted, classes, known, strict=True) if k])
        print(f"top-1 accuracy of the network: {hits:.1%} of {sum(known)} photographs")
    return 1 if job["precision"] == "fp32" and (agreeing < total or worst > TOLERANCE) else 0


if __name__ == "__main__":
    sys.exit(main())
