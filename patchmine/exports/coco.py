"""Patches as detections in COCO's format, which FiftyOne and pycocotools open: a category for each unit."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from patchmine.exports import Asked, Export
from patchmine.exports._rows import counted
from patchmine.units import Box

HELP = "coco: labels.json with the patches as detections, for FiftyOne and pycocotools"
FOLDER = True
K = 25


def check(asked: Asked) -> None: ...


def write(export: Export, out: Path) -> str:
    images: dict[int, dict[str, Any]] = {}
    annotations: list[dict[str, Any]] = []
    categories = {unit.unit: number for number, unit in enumerate(export.units, 1)}
    for unit, patches in export.every():
        for pick, patch in patches:
            images.setdefault(patch.image_id, _image(export, patch.image_id))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": patch.image_id + 1,
                    "category_id": categories[unit.unit],
                    "bbox": _bbox(patch.box),
                    "area": patch.box.area,
                    "iscrowd": 0,
                    "attributes": {
                        "unit": str(unit.unit),
                        "pick": pick,
                        "rank": patch.rank,
                        "value": patch.value,
                        "digest": export.index.digest(patch.image_id),
                    },
                }
            )
    document = {
        "info": {"description": f"patches of {export.index.job.model}, by patchmine"},
        "images": [images[image] for image in sorted(images)],
        "annotations": annotations,
        "categories": _categories(export),
    }
    (out / "labels.json").write_text(json.dumps(document, allow_nan=False) + "\n", "utf-8")
    return counted(len(annotations), len(export.units))


def _image(export: Export, image: int) -> dict[str, Any]:
    record = export.index.store.image(image)
    # Readers take 0 for missing.
    return {"id": image + 1, "file_name": record.path, "width": record.size[0], "height": record.size[1]}


def _bbox(box: Box) -> list[int]:
    return [box.left, box.top, box.width, box.height]


def _categories(export: Export) -> list[dict[str, Any]]:
    """A category for each unit, by its name where no other unit has it: readers tell categories apart by name."""
    names = Counter(unit.name for unit in export.units)
    return [
        {
            "id": number,
            "name": unit.name if names[unit.name] == 1 else f"{unit.name} ({unit.unit})",
            "supercategory": unit.unit.layer,
        }
        for number, unit in enumerate(export.units, 1)
    ]
