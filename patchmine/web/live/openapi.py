"""The OpenAPI description of the JSON API."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from patchmine import defaults
from patchmine.web.live.jobs import KINDS

_WHOLE = {"type": "integer", "minimum": 0}
_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}


def description(compute: bool) -> dict[str, Any]:
    """The document at /openapi.json; `compute` adds long work."""
    paths = {
        "/api/units": {"get": _get("The units, as `patchmine units --json`", "Units", [_LAYER, _MATCH, _LABEL, _SORT])},
        "/api/units/{unit}/top": {"get": _get("The patches of a unit, as `patchmine top --json`", "Top", _TOP)},
        "/api/units/{unit}/map": {"get": _get("A unit's activations on one photograph", "Map", [_UNIT_PATH, _IMAGE])},
        "/api/similar": {
            "get": _get(
                "The nearest patches, as `patchmine similar --json`", "Similar", [_UNIT, _IMAGE, *_ASKED, _BOX]
            ),
            "post": _post("The patches nearest to a photograph that is sent", "Similar", [*_ASKED, _BOX]),
        },
        "/api/fires": {
            "get": _get("The units that a photograph drives, as `patchmine fires --json`", "Fires", [_IMAGE, *_ASKED]),
            "post": _post("The units that a photograph that is sent drives", "Fires", _ASKED),
        },
    }
    if compute:
        number = _parameter("number", _WHOLE, "path", "The number of the job.")
        paths |= {
            "/api/jobs": {
                "get": _get("All work", "Jobs", []),
                "post": {
                    **_get("Start work on a unit", "Job", [_UNIT, _KIND]),
                    "responses": _responses("Job", "202"),
                },
            },
            "/api/jobs/{number}": {
                "get": _get("How far a job is", "Job", [number]),
                "delete": _get("Stop a job at its next step", "Job", [number]),
            },
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "patchmine", "version": version("patchmine")},
        "paths": paths,
        "components": {"schemas": _SCHEMAS},
    }


def _parameter(name: str, schema: dict[str, Any], where: str, text: str) -> dict[str, Any]:
    return {"name": name, "in": where, "required": where == "path", "description": text, "schema": schema}


def _query(name: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
    return _parameter(name, schema, "query", text)


def _get(summary: str, schema: str, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    return {"summary": summary, "parameters": parameters, "responses": _responses(schema)}


def _post(summary: str, schema: str, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    photograph = {media: {"schema": {"type": "string", "format": "binary"}} for media in ("image/*", "image/jpeg")}
    return {**_get(summary, schema, parameters), "requestBody": {"required": True, "content": photograph}}


def _responses(schema: str, done: str = "200") -> dict[str, Any]:
    refusals = {
        "400": "a parameter that does not fit",
        "404": "no such layer, unit, photograph or job",
        "409": "a question that this index cannot answer",
        "413": "a photograph that is too large",
        "422": "no photograph",
        "429": "too many photographs wait",
        "503": "the index is gone",
    }
    return {
        done: {"description": "the answer", "content": _json(schema)},
        **{code: {"description": text, "content": _json("Error")} for code, text in refusals.items()},
    }


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _object(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "required": sorted(fields), "properties": fields}


def _list(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


_UNIT_PATH = _parameter("unit", _TEXT, "path", "LAYER:CHANNEL, or a name.")
_UNIT = _query("unit", _TEXT, "LAYER:CHANNEL, or a name.")
_LAYER = _query("layer", _TEXT, "Only this layer.")
_MATCH = _query("match", _TEXT, "Only units whose name or LAYER:CHANNEL matches this shell pattern.")
_SORT = _query("sort", {"enum": list(defaults.SORTS)}, "In this order; without it, in that of the network.")
_LABEL = _query("label", _TEXT, "Only units whose label matches this shell pattern.")
_IMAGE = _query("image_id", _WHOLE, "The number of a photograph of the index.")
_K = _query("k", {"type": "integer", "minimum": 1, "maximum": 1000, "default": defaults.K}, "How many.")
_BOX = _query(
    "box",
    {"type": "string", "pattern": r"^\d{1,9},\d{1,9},\d{1,9},\d{1,9}$"},
    "left,top,right,bottom in pixels of the photograph.",
)
_KIND = _query("kind", {"enum": list(KINDS)}, "What to compute.")
_ASKED = [_LAYER, _K]
_TOP = [
    _UNIT_PATH,
    _K,
    _query("pick", _TEXT, f"{', '.join(defaults.PICKS)}."),
    _query("crop", {"enum": list(defaults.CROPS)}, "What a patch's box holds."),
    _query("seed", {"type": "integer", "minimum": 0, "maximum": 10**9}, "The seed of pick=random."),
    _query("share", _NUMBER, "The share of the activation or of the gradient's energy in the box."),
    _query("class", _TEXT, "Only photographs of this class or noun."),
    _query("not_class", _TEXT, "Leave out photographs of this class or noun."),
    _query("diverse", {"type": "boolean"}, "No two photographs of one class, and no near duplicates."),
]
_NAMED = {"layer": _TEXT, "channel": _WHOLE, "name": _TEXT, "label": _or_null(_TEXT)}
_EDGES = _object(
    left={"type": "integer"}, top={"type": "integer"}, right={"type": "integer"}, bottom={"type": "integer"}
)
_PLACE = {"position": _object(y=_WHOLE, x=_WHOLE), "visible": _NUMBER, "input_box": _EDGES, "box": _EDGES}
_PATCH = {
    "rank": _WHOLE,
    "value": _NUMBER,
    "image": _TEXT,
    "image_id": {"type": "integer", "minimum": -1},
    "class": _or_null(_TEXT),
    **_PLACE,
}
_SCHEMAS = {
    "Error": _object(error=_TEXT),
    "Units": _object(index=_TEXT, labels={"type": "object"}, units=_list(_object(**_NAMED, max=_or_null(_NUMBER)))),
    "Top": _object(index=_TEXT, pick=_TEXT, crop=_TEXT, unit=_object(**_NAMED), patches=_list(_object(**_PATCH))),
    "Similar": _object(
        index=_TEXT,
        query={"type": "object"},
        patches=_list(_object(**_PATCH, **_NAMED, similarity=_NUMBER)),
        units=_list(_object(**_NAMED, similarity=_NUMBER)),
    ),
    "Fires": _object(
        index=_TEXT,
        image=_TEXT,
        units=_list(_object(**_NAMED, **_PLACE, value=_NUMBER, percentile=_NUMBER, deviation=_NUMBER)),
    ),
    "Map": _object(
        unit=_object(**_NAMED), image_id=_WHOLE, grid=_list(_WHOLE), values=_list(_list(_or_null(_NUMBER))), box=_EDGES
    ),
    "Job": _object(
        job=_WHOLE, kind=_TEXT, unit=_TEXT, state=_TEXT, done=_WHOLE, total=_WHOLE, what=_TEXT, message=_TEXT
    ),
    "Jobs": _object(jobs=_list({"$ref": "#/components/schemas/Job"})),
}

__all__ = ["description"]
