"""Checks patchmine's receptive fields against two oracles on whole model zoos.

    python scripts/check_fields.py                      # everything, an hour or two on two cores
    python scripts/check_fields.py --quick              # a dozen networks, a minute
    python scripts/check_fields.py --only resnet --size 224x224
    python scripts/check_fields.py --results FILE       # resumable: what FILE already holds is not run again
    python scripts/check_fields.py --results FILE --table docs/receptive-fields-checked.md

Per network: the last layer of every stage (of every grid size) and a few inner layers drawn at random; every
position of every channel by NaN probing, and gradients at a sample of positions. Networks have random weights:
nothing is downloaded. Exits with 1 when anything disagrees or fails.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import re
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from field_oracles import gradient_fields, nan_fields, positive
from torch import Tensor, nn

from patchmine.errors import ModelError
from patchmine.fields.exact import receptive_fields
from patchmine.fields.field import ReceptiveField
from patchmine.networks.network import Layout, layout_of
from patchmine.units import Position

# Classification networks of torchvision that are no CNN.
NOT_CNN = re.compile(r"swin|vit")

# One network, a small one, of each family.
TIMM = """
bat_resnext26ts coatnet_bn_0_rw_224 convformer_s18 convmixer_768_32 convnext_atto convnextv2_atto cs3darknet_focus_s
cs3edgenet_x cs3sedarknet_l cspnext_tiny cspresnet50 cspresnext50 darknet17 densenet121 densenetblur121d
dla34 dla60_res2net dm_nfnet_f0 dpn48b dpn68 eca_nfnet_l0 eca_resnet33ts eca_vovnet39b ecaresnet26t ecaresnetlight
edgenext_xx_small efficientnet_b0 efficientnet_b0_gn efficientnet_blur_b0 efficientnet_cc_b0_4e efficientnet_es
efficientnet_lite0 efficientnetv2_rw_t efficientvit_b0 ese_vovnet19b_dw ese_vovnet19b_slim fasternet_t0 fastvit_t8
fbnetc_100 fbnetv3_b focalnet_tiny_srf gcresnext26ts gernet_s ghostnet_050 ghostnetv2_100 ghostnetv3_050
hardcorenas_a hgnet_tiny hgnetv2_b0 hrnet_w18_small inception_next_atto inception_resnet_v2 inception_v3 inception_v4
lambda_resnet26t lcnet_035 lcnetv2_small legacy_senet154 legacy_seresnet18 legacy_xception mambaout_femto mixnet_s
mnasnet_small mobilenet_edgetpu_v2_xs mobilenetv1_100 mobilenetv2_050 mobilenetv3_small_050
mobilenetv4_conv_blur_medium mobilenetv4_conv_small_035 mobileone_s0 nasnetalarge nf_regnet_b0 nf_resnet26 nfnet_l0
pnasnet5large poolformer_s12 rdnet_tiny regnetx_002 regnety_002 regnetz_005 regnetz_b16 repghostnet_050 repvgg_a0
repvit_m0_9 res2net50_14w_8s resnest14d resnet10t resnet18 resnet18d resnet26t resnet32ts resnet50_gn resnet50_clip
resnetaa34d resnetblur50 resnetrs50 resnetv2_18 resnetv2_50x1_bit resnext26ts rexnet_100 selecsls42b semnasnet_075
seresnext26d_32x4d sehalonet33ts skresnet18 spnasnet_100 starnet_s050 tf_efficientnet_lite0 tf_efficientnetv2_b0
tf_inception_v3 tf_mixnet_s tf_mobilenetv3_small_075 tinynet_e tresnet_m vgg11 vgg11_bn vovnet39a wide_resnet50_2
xception41 xcit_nano_12_p16_224 mixer_s32_224 poolformerv2_s12
"""

# In these something else than a pooled gate is global (attention, a lambda layer, a norm over the picture), which
# the oracles cannot hold constant: only the full field is compared.
ONLY_FULL = re.compile(
    r"^(bat_|coatnet|edgenext|efficientvit|focalnet|gcres|lambda|sehalo|xcit|mixer|poolformer|"
    r"resnet50_gn|resnetv2_50x1|efficientnet_b0_gn|botnet|halonet|convformer)"
)

QUICK = """
torchvision:resnet18 torchvision:googlenet torchvision:shufflenet_v2_x0_5 torchvision:mnasnet0_5
torchvision:squeezenet1_1 timm:tf_efficientnet_lite0 timm:convnext_atto timm:dla34 timm:mixnet_s
timm:hrnet_w18_small timm:ghostnet_050 timm:resnet10t
"""

# Beyond the odd size that every network is tried at.
MORE_SIZES = {
    "160x160": "timm:tf_efficientnet_lite0 torchvision:resnet50 torchvision:mobilenet_v3_small",
    "224x224": """torchvision:resnet50 torchvision:vgg16 torchvision:googlenet torchvision:convnext_tiny
        torchvision:efficientnet_b0 timm:tf_efficientnet_lite0 timm:tf_mobilenetv3_small_075 timm:regnety_002
        timm:convnextv2_atto""",
    "299x299": "torchvision:inception_v3 timm:tf_efficientnet_lite0 timm:tf_inception_v3",
}


def plan(options: argparse.Namespace) -> Iterator[tuple[str, tuple[int, int]]]:
    """The networks to check, each with its input size."""
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    everything = ["torchvision:" + name for name in names if not NOT_CNN.search(name)]
    everything += ["timm:" + name for name in TIMM.split()]
    sizes = {"97x131": QUICK.split() if options.quick else everything}
    if options.size:
        sizes = {options.size: sizes["97x131"]}
    elif not options.quick:
        sizes.update({size: names.split() for size, names in MORE_SIZES.items()})
    for size, group in sizes.items():
        height, width = (int(part) for part in size.split("x"))
        for name in group:
            if not options.only or any(re.search(only, name) for only in options.only):
                yield name, (height, width)


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


def check(name: str, size: tuple[int, int], inner: int) -> dict[str, Any]:
    """One network: what was compared, what disagreed, and the seconds."""
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


KINDS = ("nan_full", "gradient_full", "nan_local", "gradient_local")


def row(result: dict[str, Any]) -> str:
    """One line of the table."""
    size = "x".join(map(str, result["size"]))
    if "error" in result:
        return f"{result['network']:38} {size:>8}  FAILED: {result['error']}"
    shown = [f"{result[k]['wrong']}/{result[k]['of']}" if k in result else "-" for k in KINDS]
    status = "whole_input" if "whole_input" in result["status"].values() else "exact"
    line = f"{result['network']:38} {size:>8} {len(result['layers']):6} {status:>11}"
    line += "".join(f" {text:>14}" for text in shown)
    line += f" {result['seconds']['fields']:7.2f} {sum(result['seconds'].values()):7.1f}"
    notes = [result["note"], *(result[k]["example"] for k in KINDS if k in result)]
    return line + "".join(f"\n    {note}" for note in notes if note)


def agrees(result: dict[str, Any]) -> bool:
    return "error" not in result and not any(result[kind]["wrong"] for kind in KINDS if kind in result)


HEADER = (
    f"{'network':38} {'input':>8} {'layers':>6} {'status':>11}"
    + "".join(f" {kind:>14}" for kind in KINDS)
    + f" {'fields s':>7} {'all s':>7}"
)


PREFACE = """Written by `scripts/check_fields.py --table`. For the last layer of every grid size of each network and
three inner layers drawn at random: how many intervals of input rows and columns differ, of how many,
from NaN probing (every position of every channel) and from gradients of the same network with positive
weights (boxes at two corners and inside, for up to three groups of channels). *Full*: the whole field.
*Local*: gates held constant; where a network has no gate, or one that the oracles cannot hold, there is
none. Seconds are those of patchmine's own computation. A fixed or least input size of a network takes
precedence over 97x131."""


def page(results: list[dict[str, Any]]) -> str:
    """The results as a page of documentation."""
    titles = ["network", "input", "layers", "status", *(kind.replace("_", ", ") for kind in KINDS), "seconds"]
    lines = [
        "# The networks whose receptive fields have been checked",
        "",
        PREFACE,
        "",
        " | ".join(["", *titles, ""]).strip(),
        "|" + " --- |" * len(titles),
    ]
    for r in sorted(results, key=lambda r: (r["network"], r["size"])):
        if "error" in r:
            lines.append(f"| `{r['network']}` | failed: {r['error']} |")
            continue
        status = "whole_input" if "whole_input" in r["status"].values() else "exact"
        counts = [f"{r[kind]['wrong']:,} of {r[kind]['of']:,}" if kind in r else "" for kind in KINDS]
        size = "x".join(map(str, r["size"]))
        cells = [f"`{r['network']}`", size, str(len(r["layers"])), status, *counts, f"{r['seconds']['fields']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    families = {
        kind: len({r["network"] for r in results if r["network"].startswith(kind)}) for kind in ("torchvision", "timm")
    }
    sums = ", ".join(
        f"{kind.replace('_', ' ')} {sum(r[kind]['wrong'] for r in results if kind in r):,} of "
        f"{sum(r[kind]['of'] for r in results if kind in r):,}"
        for kind in KINDS
    )
    lines += ["", f"{families['torchvision']} networks of torchvision, {families['timm']} of timm; in all {sums}.", ""]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a dozen networks")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="networks whose name holds this")
    parser.add_argument("--size", metavar="HxW", help="one input size for all")
    parser.add_argument("--inner", type=int, default=3, help="inner layers per network, drawn at random")
    parser.add_argument("--results", type=Path, metavar="FILE", help="JSON lines, one per network; resumed")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the results as a page in Markdown")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    done: dict[tuple[str, tuple[int, int]], dict[str, Any]] = {}
    if options.results and options.results.exists():
        for line in options.results.read_text().splitlines():
            result = json.loads(line)
            if agrees(result):
                done[result["network"], tuple(result["asked"])] = result
    results = []
    print(HEADER, flush=True)
    for name, size in plan(options):
        result = done.get((name, size)) or {}
        if not result:
            try:
                result = check(name, size, options.inner)
            except Exception as error:  # noqa: BLE001 - one network that fails must not hide the others
                last = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{Path(last.filename).name}:{last.lineno}"
                result = {"network": name, "size": list(size), "error": f"{type(error).__name__}: {error} ({where})"}
            result["asked"] = list(size)
            if options.results:
                with options.results.open("a") as file:
                    file.write(json.dumps(result) + "\n")
        results.append(result)
        print(row(result), flush=True)
        gc.collect()
    bad = [result for result in results if not agrees(result)]
    if options.table:
        options.table.write_text(page(results))
    total = {kind: sum(r[kind]["of"] for r in results if kind in r) for kind in KINDS}
    wrong = {kind: sum(r[kind]["wrong"] for r in results if kind in r) for kind in KINDS}
    print(
        f"{len(results)} networks, {len(bad)} that disagree or fail; "
        + ", ".join(f"{kind} {wrong[kind]} wrong of {total[kind]}" for kind in KINDS)
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
