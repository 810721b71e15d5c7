"""Receptive fields of whole networks against the two oracles of `field_oracles`.

Per network: the last layer of every stage (of every grid size) and a few inner layers drawn at random; every position
of every channel by NaN probing, and gradients at a sample of positions. Networks have random weights: nothing is
downloaded.
"""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from patchmine.errors import ModelError
from patchmine.fields.exact import receptive_fields
from patchmine.fields.field import ReceptiveField
from patchmine.networks.layouts import Layout, layout_of
from patchmine.units import Position
from tests.support.field_oracles import gradient_fields, nan_fields, positive

KINDS = ("nan_full", "gradient_full", "nan_local", "gradient_local")
"""An oracle and a field: of each, a result says how many intervals or boxes are wrong, of how many."""

# In these something other than a pooled gate is global (attention, a lambda layer, a norm over the picture), which
# the oracles cannot hold constant: only the full field is compared.
ONLY_FULL = re.compile(
    r"^(bat_|coatnet|edgenext|efficientvit|focalnet|gcres|lambda|sehalo|xcit|mixer|poolformer|"
    r"resnet50_gn|resnetv2_50x1|efficientnet_b0_gn|botnet|halonet|convformer)"
)


def build(name: str) -> nn.Module:
    kind, _, short = name.partition(":")
    torch.manual_seed(0)
    if kind == "timm":
        import timm

        module: nn.Module = timm.create_model(short, pretrained=False)
    else:
        import torchvision

        more: dict[str, Any] = {"init_weights": False} if short in ("googlenet", "inception_v3") else {}
        module = torchvision.models.get_model(short, weights=None, **more)
    return module.eval()


def input_size(module: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """The size asked for, or the nearest one that the network takes."""
    config = getattr(module, "pretrained_cfg", {}) or {}
    if config.get("fixed_input_size"):
        return config["input_size"][1], config["input_size"][2]
    least = config.get("min_input_size") or (0, 0, 0)
    size = max(size[0], least[1]), max(size[1], least[2])
    try:
        with torch.no_grad():
            module(torch.zeros(1, 3, *size))
    except (RuntimeError, AssertionError):
        # Some add maps that only fit where every halving is even.
        return -(-size[0] // 32) * 32, -(-size[1] // 32) * 32
    return size


def layers_of(module: nn.Module, size: tuple[int, int], inner: int) -> dict[str, Layout]:
    """The last layer of every grid size, then `inner` others at random; with how each is read."""
    seen: list[tuple[str, Layout]] = []

    def hook(name: str) -> Any:
        def call(part: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim >= 3 and output.shape[0] == 1:
                try:
                    layout = layout_of(name, part, output, size)
                except ModelError:
                    return
                if min(layout.grid) > 1:
                    seen.append((name, layout))

        return call

    handles = [part.register_forward_hook(hook(name)) for name, part in module.named_modules() if name]
    with torch.no_grad():
        module(torch.zeros(1, 3, *size))
    for handle in handles:
        handle.remove()
    # A module that is called more than once may have several grids; the tests have one.
    calls = Counter(name for name, _ in seen)
    once = [(name, layout) for name, layout in seen if calls[name] == 1]
    chosen = dict({layout.grid: (name, layout) for name, layout in once}.values())
    others = [(name, layout) for name, layout in once if name not in chosen]
    chosen.update(random.Random(0).sample(others, min(inner, len(others))))
    return chosen


def per_channel(field: ReceptiveField, axis: str) -> np.ndarray:
    """(channels, positions, 2)."""
    parts = [np.repeat(getattr(group, axis)[None], group.channels[1] - group.channels[0], 0) for group in field.groups]
    return np.concatenate(parts)


def compare_nan(fields: dict[str, ReceptiveField], measured: dict[str, Any]) -> tuple[int, int, str]:
    """How many intervals disagree, of how many, and the first that does."""
    wrong = count = 0
    example = ""
    for layer, ends in measured.items():
        for axis, oracle in zip(("rows", "cols"), ends, strict=True):
            mine = per_channel(fields[layer], axis)
            differ = (mine != oracle).any(-1)
            wrong, count = wrong + int(differ.sum()), count + differ.size
            if differ.any() and not example:
                c, at = (int(v[0]) for v in np.nonzero(differ))
                example = f"{layer}:{c} {axis}[{at}] {mine[c, at].tolist()}, NaN says {oracle[c, at].tolist()}"
    return wrong, count, example


def samples_of(fields: dict[str, ReceptiveField]) -> list[tuple[str, tuple[int, int], tuple[int, int]]]:
    """Up to three groups of channels in each layer, at two corners and one place inside."""
    draw = random.Random(1)
    samples = []
    for layer, field in fields.items():
        height, width = field.grid
        inside = (draw.randrange(height), draw.randrange(width))
        for group in draw.sample(field.groups, min(3, len(field.groups))):
            samples += [(layer, group.channels, at) for at in ((0, 0), (height - 1, width - 1), inside)]
    return samples


def measure(name: str, size: tuple[int, int], inner: int) -> dict[str, Any]:
    """One network: the layers compared, the disagreements, and the seconds."""
    module = build(name)
    size = input_size(module, size)
    layouts = layers_of(module, size, inner)
    start = time.perf_counter()
    full = receptive_fields(module, size, list(layouts), field="full")
    seconds = {"fields": time.perf_counter() - start}
    kinds = {"full": full}
    gates = any(field.status == "whole_input" for field in full.values())
    skipped = ""
    if gates and ONLY_FULL.search(name.partition(":")[2]):
        skipped = "local field not compared"
    elif gates:
        kinds["local"] = receptive_fields(module, size, list(layouts), field="local")
    result: dict[str, Any] = {"network": name, "size": list(size), "layers": list(layouts), "note": skipped}
    result["status"] = {layer: field.status for layer, field in full.items()}
    for kind, fields in kinds.items():
        start = time.perf_counter()
        measured = nan_fields(module, size, layouts, held=kind == "local")
        wrong, count, example = compare_nan(fields, measured)
        result[f"nan_{kind}"] = {"wrong": wrong, "of": count, "example": example}
        seconds[f"nan_{kind}"] = time.perf_counter() - start
    module = positive(module)
    for kind, fields in kinds.items():
        start = time.perf_counter()
        samples = samples_of(fields)
        boxes = gradient_fields(module, size, layouts, samples, held=kind == "local")
        pairs = [
            (fields[layer].group(channels[0]).seen(Position(*at)).as_tuple(), box, layer, channels, at)
            for (layer, channels, at), box in zip(samples, boxes, strict=True)
        ]
        differ = [pair for pair in pairs if pair[0] != pair[1]]
        example = "{2}:{3} at {4}: {0}, the gradient says {1}".format(*differ[0]) if differ else ""
        result[f"gradient_{kind}"] = {"wrong": len(differ), "of": len(pairs), "example": example}
        seconds[f"gradient_{kind}"] = time.perf_counter() - start
    result["seconds"] = {key: round(value, 2) for key, value in seconds.items()}
    return result


def row(result: dict[str, Any]) -> str:
    """A result in one line, and one more for each disagreement."""
    size = "x".join(map(str, result["size"]))
    counts = [f"{kind} {result[kind]['wrong']} wrong of {result[kind]['of']}" for kind in KINDS if kind in result]
    status = "whole_input" if "whole_input" in result["status"].values() else "exact"
    seconds = f"{result['seconds']['fields']:.2f} s of {sum(result['seconds'].values()):.1f} s"
    line = f"{result['network']} {size}: {len(result['layers'])} layers, {status}, {', '.join(counts)}, {seconds}"
    notes = [result["note"], *(result[kind]["example"] for kind in KINDS if kind in result)]
    return line + "".join(f"\n    {note}" for note in notes if note)
