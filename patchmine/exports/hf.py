"""Crops and their table as `datasets.load_dataset` opens them: a folder, or one Parquet file with the pictures in it.

In the folder, metadata.csv names each picture in its column `file_name`. In Parquet, the column `image` holds bytes and
path, and the schema carries the features under `huggingface`, without which a reader sees plain bytes (datasets#5869).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from patchmine.exports import Asked, Export, _arrow
from patchmine.exports._pictures import pictures
from patchmine.exports._rows import columns, counted
from patchmine.exports.crops import write_folder

HELP = "hf: the crops as datasets.load_dataset opens them, a folder or with -o FILE.parquet one file"
FOLDER = True
FILES = (".parquet",)
K = 25

_ELSEWHERE = {"image": "photograph"}
"""Columns that have another name here: a reader puts the picture under `image`."""

_FEATURES = {int: "int64", float: "float64", str: "string"}


def check(asked: Asked) -> None:  # noqa: ARG001
    _arrow.check("hf")  # `datasets` needs it too


def write(export: Export, out: Path) -> str:
    kinds = {_ELSEWHERE.get(name, name): kind for name, kind in columns(export.asked).items()}
    if out.is_dir():
        return write_folder(export, out, "metadata.csv", kinds)
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    features |= {name: {"dtype": _FEATURES[kind], "_type": "Value"} for name, kind in kinds.items()}
    rows = (
        {"image": {"bytes": crop, "path": path}, **dict(zip(kinds, row.values(), strict=True))}
        for path, crop, row in pictures(export)
    )
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    return counted(_arrow.write_rows(out, rows, kinds, _arrow.picture("image"), about), len(export.units))
