"""`patchmine layers` and `patchmine rf`: what could be indexed, and what each layer sees."""

from __future__ import annotations

from patchmine import request
from patchmine.cli import options


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


def rf(model: options.Model = request.MODEL, layer_patterns: options.Layers = None, json: options.Json = False) -> None:
    """What each layer sees of the input: exact receptive fields, in input pixels.

    Example: `patchmine rf --model torchvision:resnet50 --layers 'layer?'`
    """
    from patchmine import models
    from patchmine.cli.output import print_json, print_table
    from patchmine.layers import choose
    from patchmine.receptive import receptive_fields

    network = models.load(model, pretrained=False)
    height, width = network.preprocessing.crop
    fields = receptive_fields(network.module, (height, width), choose(network, layer_patterns or ()))
    if json:
        print_json({"model": model, "input": [height, width], "layers": [f.as_dict() for f in fields.values()]})
        return
    print_table(
        [
            (
                field.layer,
                f"{group.channels[0]}-{group.channels[1] - 1}",
                "x".join(map(str, field.grid)),
                field.status,
                *("x".join(map(str, pair)) if pair else None for pair in (group.size, group.stride, group.offset)),
                f"{field.inside(group):.0%}",
            )
            for field in fields.values()
            for group in field.groups
        ],
        ["layer", "channels", "grid", "status", "size", "stride", "offset", "inside"],
    )
