"""`patchmine layers` and `patchmine rf`: what could be indexed, and what each layer sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from patchmine import request
from patchmine.cli import options

if TYPE_CHECKING:
    from patchmine.receptive import FieldKind


def layers(model: options.Model = request.MODEL, json: options.Json = False) -> None:
    """The layers of a network that could be indexed; the default ones are marked.

    Example: `patchmine layers --model torchvision:resnet18`
    """
    from patchmine import models
    from patchmine.cli.output import print_json, print_table
    from patchmine.layers import choose, trace

    network = models.load(model, pretrained=False)
    calls = {call.layer: call for call in trace(network)}
    if json:
        listed = [{"layer": c.layer, "channels": c.channels, "grid": list(c.grid)} for c in calls.values()]
        print_json({"model": model, "layers": listed})
        return
    chosen = choose(network, ())
    print_table(
        [
            (
                c.layer,
                type(c.module).__name__,
                c.channels,
                "x".join(map(str, c.grid)),
                "default" if c.layer in chosen else "",
            )
            for c in calls.values()
        ],
        ["layer", "module", "channels", "grid", ""],
    )


def rf(
    model: options.Model = request.MODEL,
    layer_patterns: options.Layers = None,
    field: options.Field = request.FIELDS[0],
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="HxW", help="Another input size than the network's own.", show_default=False),
    ] = None,
    json: options.Json = False,
) -> None:
    """What each layer sees of the input: exact receptive fields, in input pixels.

    The table gives size, stride and offset (vertical x horizontal) of the unclipped fields, the negative offset being
    the padding that the first one holds, and the share of positions whose field lies wholly inside the input.

    Example: `patchmine rf --model torchvision:resnet50 --layers 'layer?'`
    """
    from patchmine import models
    from patchmine.cli.output import print_json, print_table
    from patchmine.errors import RequestError, nearest
    from patchmine.layers import choose
    from patchmine.receptive import receptive_fields

    if field not in request.FIELDS:
        raise RequestError(f"there is no --field {field!r}{nearest(field, request.FIELDS)}")
    network = models.load(model, pretrained=False)
    height, width = network.preprocessing.crop if size is None else _parsed(size)
    chosen = choose(network, layer_patterns or ())
    fields = receptive_fields(network.module, (height, width), chosen, field=cast("FieldKind", field))
    if json:
        print_json({"model": model, "input": [height, width], "layers": [f.as_dict() for f in fields.values()]})
        return
    print_table(
        [
            (
                found.layer,
                f"{group.channels[0]}-{group.channels[1] - 1}",
                "x".join(map(str, found.grid)),
                found.status + (", local" if found.local else ""),
                *("x".join(map(str, pair)) if pair else None for pair in (group.size, group.stride, group.offset)),
                f"{found.inside(group):.0%}",
            )
            for found in fields.values()
            for group in found.groups
        ],
        ["layer", "channels", "grid", "status", "size", "stride", "offset", "inside"],
    )


def _parsed(size: str) -> tuple[int, int]:
    from patchmine.errors import RequestError

    height, cross, width = size.partition("x")
    if not (cross and height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise RequestError(f"{size!r} is no size: write HEIGHTxWIDTH, as in --size 224x224")
    return int(height), int(width)
