"""The table of patches with a description in Croissant 1.0, as JSON-LD: which columns it has and what they mean."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from patchmine.exports import Asked, Export, csv
from patchmine.exports._rows import columns

HELP = "croissant: the table of csv with its description as JSON-LD"
FOLDER = True
K = 25

_TABLE = "patches.csv"
_TYPES = {int: "sc:Integer", float: "sc:Float", str: "sc:Text"}

_MEANINGS = {
    "layer": "The layer of the unit, by its name in the network.",
    "channel": "The channel of the layer that is the unit.",
    "name": "The name of the unit: its label and its channel, or a name that a person gave.",
    "label": "What most of the unit's best photographs show, by their classes.",
    "pick": "Which patches of the unit: top, bottom, random and others.",
    "rank": "The rank of the patch in its pick, from 1.",
    "value": "The activation of the unit.",
    "image": "The path of the photograph in the collection.",
    "image_id": "The number of the photograph in the index.",
    "class": "The class of the photograph.",
    "visible": "The share of the receptive field, or of the token, that lies inside the input.",
    "digest": "BLAKE2b digest (16 bytes) of the photograph's file.",
    "retained": "The share of the activation that the tight crop alone brings back.",
    "without": "The share of the activation that is left without the tight crop.",
    "area": "The share of the input that the tight crop covers.",
}
_GROUPS = {
    "position_": "Cell of the layer's grid: {}.",
    "input_box_": "The receptive field, or the token's square, in pixels of the input: {}.",
    "box_": "The patch in pixels of the photograph: {}.",
}

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "equivalentProperty": "cr:equivalentProperty",
    "samplingRate": "cr:samplingRate",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def check(asked: Asked) -> None: ...


def write(export: Export, out: Path) -> str:
    said = csv.write(export, out / _TABLE)
    (out / "croissant.json").write_text(json.dumps(_document(export, out / _TABLE), indent=1) + "\n", "utf-8")
    return said


def _document(export: Export, table: Path) -> dict[str, Any]:
    index, job = export.index, export.index.job
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"patches-{index.directory.stem}",
        "description": (
            f"The patches of {len(index)} photographs that drive {len(export.units)} units of {job.model} hardest "
            f"(weights {job.weights}), found by patchmine. Photographs are named by path and digest."
        ),
        "version": "1.0.0",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": _TABLE,
                "name": _TABLE,
                "contentUrl": _TABLE,
                "encodingFormat": "text/csv",
                "sha256": _sha256(table),
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "patches",
                "name": "patches",
                "field": [
                    {
                        "@type": "cr:Field",
                        "@id": f"patches/{name}",
                        "name": name,
                        "description": _meaning(name),
                        "dataType": _TYPES[kind],
                        "source": {"fileObject": {"@id": _TABLE}, "extract": {"column": name}},
                    }
                    for name, kind in columns(export.asked).items()
                ],
            }
        ],
    }


def _meaning(column: str) -> str:
    if column in _MEANINGS:
        return _MEANINGS[column]
    prefix = next(prefix for prefix in _GROUPS if column.startswith(prefix))
    return _GROUPS[prefix].format(column.removeprefix(prefix))


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
