"""Receptive fields of whole model zoos against two oracles that share no code with patchmine.

    python -m pytest tests/slow/test_fields.py -m slow -s                      # a dozen networks, ten minutes
    python -m pytest tests/slow/test_fields.py -m slow -s --networks all       # an hour or two on two cores
    python -m pytest tests/slow/test_fields.py -m slow -s --networks all -k "resnet and 224x224"
    python -m pytest tests/slow/test_fields.py -m slow -s --networks all --results FILE    # resumes

`tests.support.measured_fields` measures a network. Networks that agree in FILE, JSON lines, are not measured again;
`python -m docs.figures.fields_checked FILE` makes the page of the documentation of it.
"""

from __future__ import annotations

import gc
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.measured_fields import KINDS, measure, row

pytestmark = pytest.mark.slow

INNER = 3
"""Inner layers per network, drawn at random."""

# Classification networks of torchvision that are not CNNs.
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


def plan(which: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """The networks to measure, each with its input size."""
    sizes = {"97x131": QUICK.split()}
    if which == "all":
        import torchvision

        names = torchvision.models.list_models(module=torchvision.models)
        everything = ["torchvision:" + name for name in names if not NOT_CNN.search(name)]
        sizes = {"97x131": everything + ["timm:" + name for name in TIMM.split()]}
        sizes.update({size: names.split() for size, names in MORE_SIZES.items()})
    for size, group in sizes.items():
        height, width = (int(part) for part in size.split("x"))
        for name in group:
            yield name, (height, width)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    planned = list(plan(metafunc.config.getoption("--networks")))
    ids = [f"{name}-{height}x{width}" for name, (height, width) in planned]
    metafunc.parametrize(("name", "size"), planned, ids=ids)


def test_no_field_differs_from_an_oracle(name: str, size: tuple[int, int], request: pytest.FixtureRequest) -> None:
    results: Path | None = request.config.getoption("--results")
    found = known(results).get((name, size)) if results else None
    if found is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = {**measure(name, size, INNER), "asked": list(size)}
        gc.collect()
        if results:
            with results.open("a") as file:
                file.write(json.dumps(found) + "\n")
    print(f"\n{row(found)}", end="")
    compared = {kind: found[kind] for kind in KINDS if kind in found}
    assert compared["nan_full"]["of"] > 0
    assert not [example["example"] for example in compared.values() if example["wrong"]]


def known(results: Path) -> dict[tuple[str, tuple[int, int]], dict]:
    """The results in the file that agree, by network and the input size asked for."""
    found = map(json.loads, results.read_text().splitlines()) if results.exists() else ()
    return {(r["network"], tuple(r["asked"])): r for r in found if not any(r[k]["wrong"] for k in KINDS if k in r)}
