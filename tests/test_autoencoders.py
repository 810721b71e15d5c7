"""Sparse autoencoders: every format gives the latents of an encoder written apart, and silent traps do not pass."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from patchmine.errors import ModelError
from patchmine.readouts import _contents, kinds, load
from patchmine.readouts._check import Directions, checked
from patchmine.readouts._readout import Readout
from tests.support import autoencoders as made

EVERY = [(kind, make) for kind, makes in made.FORMATS.items() for make in makes]
IDS = [make.__name__ for _, make in EVERY]


def vectors(count: int = 40) -> torch.Tensor:
    """Activations as an autoencoder of these weights meets them: sums of some decoder rows, and the center."""
    random = torch.Generator().manual_seed(1)
    codes = torch.rand(count, made.UNITS, generator=random) * (torch.rand(count, made.UNITS, generator=random) < 0.06)
    return 3 * codes @ made.W_DEC + made.B_DEC + 0.05 * torch.randn(count, made.WIDTH, generator=random)


def read(file: Path, threshold: float | None = None) -> Directions:
    contents = _contents.opened(file, threshold)
    (kind,) = [kind for kind in kinds if kind.claim(contents)]
    return kind.read(contents)


def test_every_format_has_a_file_here():
    assert {"linear", *made.FORMATS} == set(kinds.names)


@pytest.mark.parametrize(("kind", "make"), EVERY, ids=IDS)
def test_latents_are_those_of_an_encoder_written_apart(tmp_path, kind, make):
    file = make(tmp_path)
    readout, _ = load(file.file, file.threshold)
    x = vectors()
    if "msae" in kind:
        x = x / made.SCALE + made.MEAN
    expected = file.encode(x)
    assert 0 < (expected > 0).float().mean() < 0.7  # neither dead nor dense
    found = readout.cells(x)
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) < 1e-4
    contents = _contents.opened(file.file, file.threshold)
    assert [name for name in kinds.names if kinds.get(name, "").claim(contents)] == [kind]


@pytest.mark.parametrize(("kind", "make"), EVERY, ids=IDS)
def test_maxima_over_places_do_not_depend_on_the_blocks(tmp_path, monkeypatch, kind, make):
    file = make(tmp_path)
    readout, _ = load(file.file, file.threshold)
    maps = vectors(3 * 4 * 5).reshape(3, 4, 5, made.WIDTH).permute(0, 3, 1, 2)
    latents = readout.maps(maps).flatten(2)
    value, place = readout.strongest(maps)
    assert torch.equal(value, latents.max(2).values)
    assert torch.equal(place, latents.max(2).indices)
    monkeypatch.setattr("patchmine.readouts._readout.BLOCK", 7 * made.UNITS)  # less than the places of a photograph
    in_blocks, there = readout.strongest(maps)
    assert torch.allclose(in_blocks, value, atol=1e-5)
    assert (there == place).float().mean() > 0.99


CENTERED = [(kind, make) for kind, make in EVERY if make.__name__ not in ("fact",) and "overcomplete" not in kind]


@pytest.mark.parametrize(("kind", "make"), CENTERED, ids=[make.__name__ for _, make in CENTERED])
def test_a_forgotten_or_needless_center_fails_the_check(tmp_path, kind, make):
    """The first silent trap: b_dec."""
    file = make(tmp_path)
    found = read(file.file, file.threshold)
    assert checked(found) is found.readout
    assert found.decoder is not None
    wrong = None if found.readout.center is not None else found.decoder.bias
    with pytest.raises(ValueError, match=r"the decoder rows of 96 latents, encoded, make \d+% of these latents the st"):
        checked(replace(found, readout=replace(found.readout, center=wrong)))


SCALED = [
    make
    for _, make in EVERY
    if make.__name__ in ("prisma_layer_norm_topk", "saelens_jumprelu", "msae", "msae_jumprelu")
]


@pytest.mark.parametrize("make", SCALED, ids=[make.__name__ for make in SCALED])
def test_a_forgotten_scaling_fails_the_check(tmp_path, make):
    """The second silent trap: inputs that are not normalized, or not centered and scaled."""
    found = read(make(tmp_path).file)
    raw = replace(found.readout, norm="none", scale=1.0, center=made.B_DEC)
    with pytest.raises(ValueError, match=r"make \d+% of these latents the strongest|change its latents by \d+%"):
        checked(replace(found, readout=raw))


def test_a_wrong_transpose_fails_the_check(tmp_path):
    found = read(made.saelens(tmp_path).file)
    rows = found.decoder
    assert rows is not None
    for readout in (
        replace(found.readout, weight=found.readout.weight.flip(1)),  # encoder and decoder of different autoencoders
        replace(found.readout, weight=found.readout.weight.T.contiguous(), bias=torch.zeros(made.WIDTH), center=None),
    ):
        with pytest.raises(ValueError, match="transposed"):
            checked(replace(found, readout=readout))
    square = Readout(weight=made.W_ENC[:, : made.WIDTH], bias=torch.zeros(made.WIDTH))
    turned = replace(square, weight=square.weight.T.contiguous())
    decoder = replace(rows, rows=made.W_DEC[: made.WIDTH], bias=torch.zeros(made.WIDTH))
    assert checked(Directions(square, decoder)) is square
    with pytest.raises(ValueError, match="but 100% if the encoder is transposed"):
        checked(Directions(turned, decoder))


def test_a_file_of_another_format_than_it_claims_is_refused_with_figures(tmp_path):
    """The settings say that b_dec is not subtracted, but the weights were trained with it."""
    save_file(made.NAMED, tmp_path / "sae_weights.safetensors")
    (tmp_path / "cfg.json").write_text(json.dumps({"architecture": "standard", "apply_b_dec_to_input": False}))
    readout, _ = load(tmp_path)  # a row alone, without b_dec, is enough for such an encoder
    assert readout.center is None
    save_file(made.ABSORBED, tmp_path / "sae_weights.safetensors")
    (tmp_path / "cfg.json").write_text(json.dumps({"architecture": "standard", "apply_b_dec_to_input": True}))
    with pytest.raises(
        ModelError, match=r"\d+% of these latents the strongest, but 100% if the decoder bias is not sub"
    ):
        load(tmp_path)


WRONG = {
    "no threshold": "does not hold the threshold above which its latents count: give --threshold T",
    "not sparse": "it does not say how its code is made sparse: give --threshold T",
    "nan": "its weight holds 1 value that is not finite",
    "no k": "its activation is top-k, but its settings name no k",
    "factor": "expected_average_only_in, whose factor is not in the file",
    "pickled": "are a pickle with more than tensors and plain settings",
    "cut": "cannot be read",
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_file_that_cannot_be_read_is_refused_in_a_line(tmp_path, fault):
    if fault == "no threshold":
        tensors = {**made.NAMED, "k": torch.tensor(5), "threshold": torch.tensor(-1.0)}
        torch.save(tensors, file := tmp_path / "ae.pt")
    elif fault == "not sparse":
        file = made.overcomplete_batch_topk(tmp_path).file
    elif fault == "nan":
        weight = made.W_ENC.clone()
        weight[3, 4] = torch.nan
        save_file({**made.NAMED, "W_enc": weight}, file := tmp_path / "sae.safetensors")
    elif fault == "no k":
        file = made._prisma(tmp_path, {"activation_fn_str": "topk"})
    elif fault == "factor":
        file = made._lens(tmp_path, {"architecture": "standard", "normalize_activations": "expected_average_only_in"})
    elif fault == "pickled":
        torch.save({"cfg": Path("a"), "state_dict": made.NAMED}, file := tmp_path / "sae.pt")
    else:
        file = made.saev_relu(tmp_path).file
        file.write_bytes(file.read_bytes()[:4000])
    with pytest.raises(ModelError) as refused:
        load(file)
    assert WRONG[fault] in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_exporter_makes_a_pickled_autoencoder_readable(tmp_path):
    import runpy

    exporter = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "export_directions.py"))
    torch.save({"cfg": {"block_layer": -2}, "state_dict": made.NAMED, "n": Path("x")}, tmp_path / "sae.pt")
    with pytest.raises(ModelError, match=r"scripts/export_directions.py FILE OUT.safetensors"):
        load(tmp_path / "sae.pt")
    exporter["main"](tmp_path / "sae.pt", tmp_path / "out.safetensors")
    readout, _ = load(tmp_path / "out.safetensors")
    assert torch.equal(readout.weight, made.W_ENC)
