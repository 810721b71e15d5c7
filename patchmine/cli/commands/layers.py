"""`patchmine layers` and `patchmine rf`: the layers of a network, and their receptive fields."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from patchmine import defaults
from patchmine.cli import options

if TYPE_CHECKING:
    from patchmine.fields.exact import FieldKind
    from patchmine.fields.field import FieldGroup, ReceptiveField
    from patchmine.networks.network import Network


def layers(
    model: options.Model = defaults.MODEL,
    directions: options.Directions = None,
    threshold: options.Threshold = None,
    json: options.Json = False,
) -> None:
    """List the layers of a network that can be indexed; the default ones are marked.

    `NAME@1` is the first call of a module that is called several times; `NAME` alone is the last. In a transformer
    `NAME` are the tokens on the grid, `NAME@cls` is the class token, and `NAME@reg` are the registers. Layers of
    directions come last.

    Example: `patchmine layers --model torchvision:resnet18`
    """
    from patchmine.cli.output import print_json, print_table
    from patchmine.networks.calls import MARK, aliases, as_dict, described

    network = _loaded(model, directions or (), threshold)
    from patchmine.networks.layers import choose, trace
    from patchmine.networks.taps import survey
    from patchmine.networks.virtual import carried

    calls = trace(network)
    virtual = survey(network.module, network.blank(), list(carried(network.module))) if directions else ()
    if json:
        listed = [
            {"layer": c.name, "channels": c.channels, "grid": list(c.grid), **as_dict(c.call, c.calls)} for c in calls
        ]
        listed += [
            {"layer": tap.layer, "channels": tap.layout.channels, "grid": list(tap.layout.grid)} for tap in virtual
        ]
        print_json({"model": model, "layers": listed})
        return
    remarks: dict[tuple[str, int], list[str]] = {}
    default = choose(network, ())
    for c in calls:
        notes = remarks.setdefault((c.layer, c.call), [])
        if c.layout.group:
            notes.append(f"{MARK}{c.layout.group}")
        else:
            notes += filter(None, ["default" * (c.name in default), described(c.call, c.calls)])
    for other, layer in aliases(network.module).items():
        for (name, _), notes in remarks.items():
            if name == layer:
                notes.append(f"also {other}")
    print_table(
        [
            (
                c.name,
                type(c.module).__name__,
                c.channels,
                "x".join(map(str, c.grid)),
                ", ".join(remarks[c.layer, c.call]),
            )
            for c in calls
            if not c.layout.group
        ]
        + [
            (tap.layer, "directions", tap.layout.channels, "x".join(map(str, tap.layout.grid)), "default")
            for tap in virtual
        ],
        ["layer", "module", "channels", "grid", ""],
    )


def _loaded(model: str, directions: Sequence[str], threshold: float | None) -> Network:
    """The network, as far as its layers matter. Wrong words are refused before torch is loaded."""
    from patchmine import models
    from patchmine.readouts import asked

    asked(directions)
    network = models.load(model, pretrained=False)
    from patchmine.networks.directions import given

    return given(network, directions, threshold)[0]


def rf(
    model: options.Model = defaults.MODEL,
    layer_patterns: options.Layers = None,
    field: options.Field = defaults.FIELDS[0],
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="HxW", help="Input size. Default: the network's own.", show_default=False),
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(
            "-i",
            "--index",
            metavar="DIR",
            help="Show the fields stored in this index, with their effective sizes, instead of computing them.",
            show_default=False,
        ),
    ] = None,
    share: options.Energy = defaults.SHARE,
    json: options.Json = False,
) -> None:
    """Compute the exact receptive field of each layer, in input pixels.

    The table gives the size and stride (vertical x horizontal) of the unclipped fields, and the padding (top+bottom x
    left+right) inside the first and the last one. `inside` is the share of positions whose field lies wholly inside
    the input. A token of a transformer sees the whole input; its size is that of its own square. With an index,
    `effective` is the size of the box that holds most of the gradient's energy.

    Example: `patchmine rf --model torchvision:resnet50 --layers 'layer?'`
    """
    from patchmine.cli.output import print_json, print_table
    from patchmine.errors import RequestError
    from patchmine.networks.calls import as_dict, described

    input_size = None if size is None else _parsed(size)
    if index is None:
        model, fields, calls = _computed(model, layer_patterns or (), field, input_size)
    elif size is not None or model != defaults.MODEL or field != defaults.FIELDS[0]:
        raise RequestError("--index shows the fields of that index: leave out --model, --size and --field")
    else:
        model, fields, calls = _stored(index, layer_patterns or ())
    if json:
        layers = [
            found.as_dict() | {"effective_size": found.effective_size(share), **as_dict(*call)}
            for found, call in zip(fields, calls, strict=True)
        ]
        print_json({"model": model, "input": list(fields[0].input), "layers": layers})
        return
    print_table(
        [
            (
                found.layer,
                f"{group.channels[0]}-{group.channels[1] - 1}",
                "x".join(map(str, found.grid)),
                ", ".join(filter(None, [found.status, found.token or ("local" * found.local)])),
                *("x".join(map(str, pair)) if pair else None for pair in (group.size, group.stride)),
                _padding(group, found),
                f"{found.inside(group):.0%}",
                found.effective_size(share),
                described(*call),
            )
            for found, call in zip(fields, calls, strict=True)
            for group in found.groups
        ],
        ["layer", "channels", "grid", "status", "size", "stride", "padding", "inside", "effective", ""],
    )


Calls = list[tuple[int, int]]
"""For each layer, which call of its module it is, from 1, and of how many."""


def _computed(
    model: str, patterns: Sequence[str], field: str, size: tuple[int, int] | None
) -> tuple[str, list[ReceptiveField], Calls]:
    """The fields of a network's layers, from its structure alone."""
    from patchmine import models

    network = models.load(model, pretrained=False)  # refuses a wrong word before torch is loaded
    from patchmine.fields.exact import receptive_fields
    from patchmine.networks.layers import choose, trace

    input_size = network.preprocessing.crop if size is None else size
    chosen = choose(network, patterns)
    fields = receptive_fields(network.module, input_size, chosen, field=cast("FieldKind", field))
    calls = {call.name: (call.call, call.calls) for call in trace(network)}
    return model, list(fields.values()), [calls[layer] for layer in fields]


def _stored(directory: Path, patterns: Sequence[str]) -> tuple[str, list[ReceptiveField], Calls]:
    """The fields that an index holds, for the nominal input size."""
    from fnmatch import fnmatchcase

    from patchmine.errors import RequestError, nearest
    from patchmine.index import open_index
    from patchmine.networks.calls import of_dict

    index = open_index(directory)
    for pattern in patterns:
        if not any(fnmatchcase(layer, pattern) for layer in index.layers):
            raise RequestError(f"no layer of {index.name} matches {pattern!r}{nearest(pattern, index.layers)}")
    wanted = patterns or ["*"]
    chosen = [layer for layer in index.layers if any(fnmatchcase(layer, pattern) for pattern in wanted)]
    calls = {entry["layer"]: of_dict(entry) for entry in index.manifest["layers"]}
    return index.manifest["job"]["model"], [index.field(layer) for layer in chosen], [calls[layer] for layer in chosen]


def _padding(group: FieldGroup, field: ReceptiveField) -> str | None:
    """top+bottom x left+right; None where the fields have no regular form."""
    from patchmine.units import Position

    if group.offset is None:
        return None
    first, last = group.whole(Position(0, 0)), group.whole(Position(field.grid[0] - 1, field.grid[1] - 1))
    height, width = field.input
    sides = (-first.top, last.bottom - height, -first.left, last.right - width)
    top, bottom, left, right = (max(side, 0) for side in sides)
    return f"{top}+{bottom}x{left}+{right}"


def _parsed(size: str) -> tuple[int, int]:
    from patchmine.errors import RequestError

    height, cross, width = size.partition("x")
    if not (cross and height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise RequestError(f"--size {size} is not a valid size: write HEIGHTxWIDTH, as in --size 224x224")
    return int(height), int(width)
