"""Vision transformers: tokens on the grid, class and register tokens, and what every command says of them."""

from pathlib import Path

import pytest
import torch
from torch import nn

from patchmine.errors import FieldError, ModelError
from patchmine.fields.exact import receptive_fields
from patchmine.networks.calls import Resolved, resolved
from patchmine.networks.layers import choose, trace
from patchmine.networks.layouts import Layouts, Prefix
from patchmine.networks.network import Network
from patchmine.networks.taps import maps, survey
from tests.support import tiny_vit
from tests.support.tiny_vit import SIDE, WIDTH, TinyVit

MODEL = f"{Path(tiny_vit.__file__)}:build"


@pytest.fixture(scope="module")
def tiny() -> Network:
    module, preprocessing = tiny_vit.build()
    return Network("tiny", module.eval().requires_grad_(False), preprocessing, "")


# Names and layouts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "meant"),
    [
        ("blocks.3", Resolved("blocks.3")),
        ("blocks.3@cls", Resolved("blocks.3", None, "cls")),
        ("blocks.3@reg", Resolved("blocks.3", None, "reg")),
        ("blocks.3@2", Resolved("blocks.3", 2)),
        ("blocks.3@2@cls", Resolved("blocks.3", 2, "cls")),
        ("odd@cls", Resolved("odd@cls")),
        ("odd@cls@cls", Resolved("odd@cls", None, "cls")),
        ("blocks.3@cls@cls", Resolved("blocks.3@cls@cls")),
        ("blocks.9@cls", Resolved("blocks.9@cls")),
        ("@cls", Resolved("@cls")),
    ],
)
def test_one_function_reads_the_names_of_layers(layer, meant):
    assert resolved(layer, {"", "blocks.3", "odd@cls"}) == meant


def test_class_and_register_tokens_are_apart_from_the_grid(tiny):
    layers = ["blocks.1", "blocks.1@cls", "blocks.1@reg"]
    taps = survey(tiny.module, tiny.blank(), layers)
    seen = []
    hook = tiny.module.blocks[1].register_forward_hook(lambda _m, _i, out: seen.append(out))
    inputs = torch.rand(2, 3, SIDE, SIDE)
    found = maps(tiny.module, inputs, taps)
    hook.remove()
    assert [tap.layout.tokens for tap in taps] == ["grid", "cls", "reg"]
    assert [found[layer].shape for layer in layers] == [(2, WIDTH, 4, 4), (2, WIDTH, 1, 1), (2, WIDTH, 1, 2)]
    assert torch.equal(found["blocks.1"].flatten(2).transpose(1, 2), seen[0][:, 3:])
    assert torch.equal(found["blocks.1@cls"][..., 0, 0], seen[0][:, 0])
    assert torch.equal(found["blocks.1@reg"][:, :, 0].transpose(1, 2), seen[0][:, 1:3])


@pytest.mark.parametrize(
    ("parameters", "prefix"),
    [
        ({"cls_token": (1, 1, 8)}, Prefix(True, frozenset({0, 1}))),
        ({"class_embedding": (8,)}, Prefix(True, frozenset({0, 1}))),
        ({"cls_token": (1, 1, 8), "reg_token": (1, 4, 8)}, Prefix(True, frozenset({0, 1, 4, 5}))),
        ({"cls_token": (1, 1, 8), "dist_token": (1, 1, 8)}, Prefix(True, frozenset({0, 1, 2}))),
        ({"reg_token": (1, 4, 8)}, Prefix(False, frozenset({0, 4}))),
        ({"weight": (4, 8)}, Prefix()),
    ],
)
def test_the_parameters_tell_what_stands_in_front_of_the_grid(parameters, prefix):
    module = nn.Module()
    for name, shape in parameters.items():
        module.register_parameter(name, nn.Parameter(torch.zeros(shape)))
    assert Prefix.of(module) == prefix


def test_registers_without_a_class_token(tiny):
    module = nn.Sequential(nn.Identity())
    module.register_parameter("reg_token", nn.Parameter(torch.zeros(1, 4, 8)))
    layouts = Layouts(module, (32, 32))
    assert layouts.of("0@reg", torch.zeros(1, 20, 8)).grid == (1, 4)
    with pytest.raises(ModelError, match="'0@cls': the output of 0 has no class token: choose 0 or 0@reg"):
        layouts.of("0@cls", torch.zeros(1, 20, 8))


def test_patterns_match_tokens_beside_the_grid_only_with_the_mark(tiny):
    assert choose(tiny, ["blocks.?"]) == ("blocks.0", "blocks.1", "blocks.2")
    assert choose(tiny, ["blocks.[01]@cls"]) == ("blocks.0@cls", "blocks.1@cls")
    assert choose(tiny, ["blocks.2@*", "blocks.2"]) == ("blocks.2", "blocks.2@cls", "blocks.2@reg")
    assert choose(tiny, ["blocks.1.attn.heads"]) == ("blocks.1.attn.heads",)


def test_what_each_head_sees_is_no_layer(tiny):
    assert not [call for call in trace(tiny) if call.layer.endswith("q_norm")]


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("blocks.1.attn.q_norm", "is no grid of tokens, but one for each attention head"),
        ("patch_embed@cls", "the output of patch_embed has no class token: choose patch_embed"),
        ("head@reg", "the output of head has no registers: choose head"),
        ("blocks.7@cls", "did you mean"),
    ],
)
def test_a_layer_that_is_no_grid_of_tokens_is_refused(tiny, pattern, complaint):
    with pytest.raises(ModelError, match=complaint):
        choose(tiny, [pattern])


def test_a_sequence_that_is_no_grid_is_refused():
    module = TinyVit()
    with pytest.raises(ModelError, match="15 tokens are no grid over an input of 32x32 pixels"):
        Layouts(module, (32, 32)).of("norm", torch.zeros(1, 15, WIDTH))


def test_before_the_first_attention_the_class_token_is_a_constant(tiny):
    with pytest.raises(FieldError, match=r"'blocks\.0\.norm1@cls' does not depend on the input"):
        receptive_fields(tiny.module, (SIDE, SIDE), ["blocks.0.norm1@cls"])


def test_a_class_token_sees_the_whole_input(tiny):
    for layer in ("blocks.0@cls", "blocks.2@reg"):
        field = receptive_fields(tiny.module, (SIDE, SIDE), [layer])[layer]
        assert (field.status, field.local) == ("whole_input", False)
        assert field.groups[0].rows.tolist() == [[0, SIDE]]
