"""Vision transformers: tokens on the grid, class and register tokens, and what every command says of them."""

import json
import re
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import patchmine
from patchmine.errors import FieldError, ModelError
from patchmine.fields.cropping import Cropping
from patchmine.fields.exact import receptive_fields
from patchmine.fields.field import ReceptiveField
from patchmine.index import Index
from patchmine.mining.fields import NORMED
from patchmine.networks.calls import Resolved, resolved, without_tokens
from patchmine.networks.layers import choose, trace
from patchmine.networks.layouts import Layouts, Prefix
from patchmine.networks.network import Network
from patchmine.networks.taps import maps, survey
from patchmine.photographs.decode import prepare
from patchmine.units import Box, Position
from tests.support import tiny_vit
from tests.support.asgi import ask
from tests.support.commands import failed
from tests.support.tiny_vit import PATCH, SIDE, WIDTH, TinyVit

FILE = Path(tiny_vit.__file__)
MODEL = f"{FILE}:build"


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


# An index of tokens ---------------------------------------------------------------------------------------

LAYERS = (
    "blocks.1",
    "blocks.1@cls",
    "blocks.2.attn.heads",
    "blocks.2.mlp.0",
    "blocks.2",
    "blocks.2@cls",
    "blocks.2@reg",
)
PHOTOGRAPHS = 30


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("tokens") / "tiny.patchmine"
    patchmine.build_index(
        f"shapes:{PHOTOGRAPHS}", directory, model=MODEL, layers=LAYERS, keep=PHOTOGRAPHS, batch_size=7
    )
    return directory


@pytest.fixture
def index(directory) -> Index:
    opened = patchmine.open_index(directory)
    opened.use(MODEL)
    return opened


def sequences(index: Index) -> dict[str, torch.Tensor]:
    """What the modules of LAYERS return for every photograph: (photographs, tokens, channels)."""
    module, preprocessing = tiny_vit.build()
    found: dict[str, torch.Tensor] = {}
    for name in {without_tokens(layer) for layer in LAYERS}:
        module.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: found.__setitem__(name, out))
    pictures = [prepare(index.photograph(image), preprocessing).tensor for image in range(len(index))]
    with torch.no_grad():
        module.eval()((torch.stack(pictures) / 255 - 0.5) / 0.5)
    return found


def test_the_ranking_is_that_of_a_pass_written_apart(index):
    outputs = sequences(index)
    for layer in LAYERS:
        tokens = outputs[without_tokens(layer)]
        part = {"cls": tokens[:, :1], "reg": tokens[:, 1:3]}.get(layer.rpartition("@")[2], tokens[:, 3:])
        values, places = part.max(1)
        for channel in range(0, part.shape[2], 5):
            order = values[:, channel].argsort(descending=True, stable=True)
            top = index.unit(f"{layer}:{channel}").top(PHOTOGRAPHS)
            assert [patch.image_id for patch in top] == order.tolist()
            assert torch.allclose(torch.tensor([patch.value for patch in top]), values[order, channel], atol=1e-5)
            assert [patch.position.y * index.field(layer).grid[1] + patch.position.x for patch in top] == (
                places[order, channel].tolist()
            )


def test_a_token_is_a_square_of_the_grid_that_sees_the_whole_input(index):
    for layer in ("blocks.2.attn.heads", "blocks.2.mlp.0", "blocks.2"):
        field = index.field(layer)
        assert (field.status, field.token, field.place_name) == ("whole_input", "token", "token")
        assert field.group(0).seen(Position(1, 2)) == Box(2 * PATCH, PATCH, 3 * PATCH, 2 * PATCH)
        assert field.reached(0, Position(1, 2)) == Box(0, 0, SIDE, SIDE)
    assert index.field("blocks.2@cls").token == "class token"
    assert index.field("blocks.2@reg").token == "register"
    full = receptive_fields(index.network().module, (SIDE, SIDE), ["blocks.2"], field="full")["blocks.2"]
    assert (full.token, full.squares, full.groups[0].rows.tolist()[0]) == ("token", False, [0, SIDE])


def wide(size: int, cells: int, effective: np.ndarray | None = None) -> ReceptiveField:
    """The field of a layer of tokens on a grid over a square input."""
    (found,) = receptive_fields(TinyVit(side=size).eval(), (size, size), ["blocks.0"]).values()
    assert found.grid == (cells, cells)
    return replace(found, effective=effective)


def test_the_crop_of_a_token_shows_its_surroundings_inside_the_input():
    field = wide(80, 10, np.linspace(0, 1, 60, dtype=np.float32))
    shown = Cropping("rf").settled(field, 0)
    for position, window in [
        (Position(5, 5), Box(16, 16, 72, 72)),
        (Position(0, 9), Box(24, 0, 80, 56)),
        (Position(9, 0), Box(0, 24, 56, 80)),
    ]:
        square = field.group(0).seen(position)
        view = shown.view(field, 0, position)
        assert (view.window, view.shown, view.outlines) == (window, window, (square,))
        assert shown.box(field, 0, position) == window
    # The effective field reaches beyond the token's own square, and is clipped to the input alone.
    effective = Cropping("erf", 0.5)
    assert field.effective_size(0.5) == 61
    assert effective.box(field, 0, Position(5, 5)) == Box(13, 13, 75, 75)
    assert effective.box(field, 0, Position(0, 0)) == Box(0, 0, 35, 35)


@pytest.mark.parametrize("crop", ["rf", "erf", "image", "auto"])
@pytest.mark.parametrize("unit", ["blocks.2:3", "blocks.2@cls:3", "blocks.2@reg:3"])
def test_every_crop_shows_a_part_of_the_photograph(index, unit, crop):
    for patch in index.unit(unit).top(3, crop=crop):
        width, height = patch.placement.source
        assert Box(0, 0, width, height).contains(patch.box)
        assert patch.crop().size == (patch.box.width, patch.box.height)
        assert patch.visible == 1
        if crop in ("rf", "erf", "image"):
            assert patch.box.contains(patch.placement.to_source(patch.input_box))


# Tokens to doubt -------------------------------------------------------------------------------------------


def test_the_usual_norm_is_the_median_over_all_tokens_of_some_photographs(index):
    readable = np.unique(np.linspace(0, PHOTOGRAPHS - 1, NORMED).round().astype(int))
    for layer in ("blocks.1", "blocks.2.mlp.0"):
        norms = sequences(index)[layer][readable, 3:].norm(dim=2).numpy().ravel()
        median = np.median(norms)
        deviation = 1.4826 * np.median(np.abs(norms - median))
        assert index.store.token_norm(layer) == pytest.approx((median, deviation), rel=1e-4)
    assert index.store.token_norm("blocks.2@cls") is None


def test_a_random_network_has_nothing_to_doubt_beside_the_grid(index):
    for layer in ("blocks.2@cls", "blocks.2@reg"):
        summary = index.unit(f"{layer}:0").summary()
        assert (summary["outlier_tokens"], summary["positional"]) == (None, None)


def test_planted_outliers_and_places_are_marked(tmp_path):
    """Place 6 holds a token of huge norm in every photograph, which drives channel 0 alone."""
    patchmine.build_index("shapes:30", tmp_path / "i", model=f"{FILE}:planted", layers=("blocks.0",))
    opened = patchmine.open_index(tmp_path / "i")
    summary = opened.unit("blocks.0:0").summary()
    assert (summary["outlier_tokens"], summary["positional"]) == (1.0, 1.0)
    assert summary["marks"] == ["outlier-tokens", "positional"]
    shares = set()
    for unit in opened.units("blocks.0"):
        places = [patch.position for patch in unit.top(25)]
        summary = unit.summary()
        assert summary["positional"] == pytest.approx(max(map(places.count, places)) / 25)
        assert summary["outlier_tokens"] == pytest.approx(places.count(Position(1, 2)) / 25)
        assert ("outlier-tokens" in summary["marks"]) == (summary["outlier_tokens"] > 0.5)
        shares.add(summary["outlier_tokens"])
    assert 0 in shares


# Every command ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["blocks.2:3", "blocks.2@cls:3"])
@pytest.mark.parametrize(
    "words",
    [
        "top --unit U -k 3",
        "top --unit U -k 3 -o top.svg",
        "sheet --unit U -k 3 --layout strip --provenance -o strip.svg",
        "sheet --unit U -k 3 --layout context --crop erf --provenance -o context.svg",
        "sheet --unit U --layout zeiler --project gradxinput --model M -o zeiler.svg",
        "units --layer L --sort positional",
        "name U mine",
        "similar --unit U -k 3",
        "fires PHOTOGRAPH --layer L -k 3 --model M",
        "synth --unit U --steps 2 --model M -o synth.png",
        "export csv --unit U -k 3 -o table.csv",
        "export crops --unit U -k 3 -o crops",
        "export coco --unit U -k 3 -o coco",
        "export clip-dissect --layer L -o clip",
        "export cosy --layer L --model M -o cosy",
        "export milan --unit U -k 2 --model M -o milan",
        "rf --layers L --model M",
    ],
)
def test_commands_answer_for_tokens(cli, directory, tmp_path, photographs, monkeypatch, words, unit):
    asked(cli, directory, tmp_path, photographs, monkeypatch, words, unit)


@pytest.mark.parametrize(
    ("words", "unit"),
    [
        ("top --unit U -k 2 --crop tight --model M -o top.svg", "blocks.2@reg:3"),
        ("tighten --layer L -k 1 --model M", "blocks.2@cls:3"),
        ("compare --unit U --steps 2 -k 3 --model M -o compare.svg", "blocks.2:3"),
        ("site --units U -o site", "blocks.2:3"),
        ("verify --model M", "blocks.2:3"),
        ("info", "blocks.2:3"),
        ("embed", "blocks.2:3"),
        ("pack -o packed.tar", "blocks.2:3"),
    ],
)
def test_slower_commands_answer_for_tokens(cli, directory, tmp_path, photographs, monkeypatch, words, unit):
    asked(cli, directory, tmp_path, photographs, monkeypatch, words, unit)


def asked(cli, directory, tmp_path, photographs, monkeypatch, words, unit):
    """Run a command about a unit; what it says and writes calls a token a token."""
    here = tmp_path / "i.patchmine"
    shutil.copytree(directory, here)
    monkeypatch.setenv("PATCHMINE_INDEX", str(here))
    photograph = min(photographs.rglob("*.jpg"))
    meant = {"U": unit, "L": unit.partition(":")[0], "M": MODEL, "PHOTOGRAPH": photograph}
    done = cli(*(meant.get(word, word) for word in words.split()))
    assert done.returncode == 0, done.stderr
    written = "".join(file.read_text() for pattern in ("*.svg", "*.txt") for file in tmp_path.glob(pattern))
    assert "receptive field" not in done.stdout + done.stderr + written
    if "top.svg" in words or "strip" in words or "context" in words:
        said = " ".join(re.sub("<[^>]+>", " ", written).split())
        assert {"blocks.2:3": "token", "blocks.2@cls:3": "class token", "blocks.2@reg:3": "register"}[unit] in said


@pytest.mark.parametrize(("unit", "word"), [("blocks.2:3", "token"), ("blocks.2@cls:3", "class token")])
def test_pages_call_a_token_a_token(directory, unit, word):
    pytest.importorskip("starlette", reason="needs the extra 'web'")
    from patchmine.web.live.app import Application
    from patchmine.web.live.current import Current

    app = Application(Current(directory))
    page = ask(app, f"/units/{unit}?crop=rf")
    assert page.status == 200
    assert f">{word}<" in page.text
    for text in (page.text, ask(app, "/").text):
        assert "receptive field" not in text


def test_indexes_of_tokens_merge_into_that_of_all_photographs(tmp_path, directory):
    source = patchmine.open_index(directory).source
    for name, chosen in (("one", range(15)), ("two", range(15, PHOTOGRAPHS))):
        folder = tmp_path / "photographs" / name
        folder.mkdir(parents=True)
        for number in chosen:
            (folder / f"{number:06d}.png").write_bytes(source.read(f"{number:06d}.png"))
        patchmine.build_index(folder, tmp_path / name, model=MODEL, layers=("blocks.2@cls", "blocks.2"))
    patchmine.merge_indexes([tmp_path / "one", tmp_path / "two"], tmp_path / "both", model=MODEL)
    merged, whole = patchmine.open_index(tmp_path / "both").store, patchmine.open_index(directory).store
    for layer in ("blocks.2@cls", "blocks.2"):
        assert np.allclose(merged.table(layer)[0], whole.table(layer)[0], atol=1e-5)
        assert (merged.table(layer)[1] == whole.table(layer)[1]).all()
    assert merged.token_norm("blocks.2") == pytest.approx(whole.token_norm("blocks.2"), rel=1e-4)


def test_why_is_no_question_for_tokens(cli, directory):
    for unit in ("blocks.2:3", "blocks.2@cls:3"):
        message = failed(cli("why", "-i", directory, "--unit", unit, "--model", MODEL, "-o", "why"))
        assert f"{unit} reads tokens" in message
        assert f"patchmine compare --unit {unit}" in message


def test_projections_through_relus_are_refused_where_there_is_none(cli, directory):
    words = ["--unit", "blocks.2:3", "--layout", "zeiler", "--model", MODEL, "-o", "z.png"]
    done = cli("sheet", "-i", directory, *words)
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert "--project guided is defined only for ReLU" in message
    assert message.endswith("use --project gradxinput, ig, or occlusion")


def test_the_program_names_what_a_layer_has_beside_the_grid(cli):
    table = cli("layers", "--model", MODEL).stdout.splitlines()
    assert next(line for line in table if line.startswith("blocks.2 ")).endswith("@cls, @reg")
    listed = {entry["layer"]: entry for entry in json.loads(cli("layers", "--model", MODEL, "--json").stdout)["layers"]}
    assert listed["blocks.2@reg"] == {"layer": "blocks.2@reg", "channels": WIDTH, "grid": [1, 2]}
    fields = json.loads(cli("rf", "--model", MODEL, "--layers", "blocks.2", "--json").stdout)["layers"]
    assert [(field["status"], field["tokens"]) for field in fields] == [("whole_input", "grid")]
    assert failed(cli("index", "shapes:2", "--model", MODEL, "--layers", "patch_embed@cls")).endswith(
        "the output of patch_embed has no class token: choose patch_embed"
    )


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs OpenVINO")
def test_openvino_ranks_tokens_as_torch_does(directory, tmp_path):
    patchmine.build_index(
        f"shapes:{PHOTOGRAPHS}", tmp_path / "o", model=MODEL, layers=LAYERS, keep=PHOTOGRAPHS, executor="openvino"
    )
    theirs, ours = patchmine.open_index(tmp_path / "o").store, patchmine.open_index(directory).store
    for layer in LAYERS:
        assert np.allclose(theirs.table(layer)[0], ours.table(layer)[0], atol=1e-4)
        assert (theirs.table(layer)[1] == ours.table(layer)[1]).mean() > 0.99
