"""The decoder-row check: a sparse autoencoder that encodes a latent's own decoder row must find that latent.

A wrong transpose, a decoder bias that is not subtracted (or subtracted where it must not be) and a forgotten scaling
change every latent and raise no error. Here they show: the strongest latent is then another one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from patchmine.readouts._readout import Norm, Readout

_LATENTS = 256  # the latents that are checked, spread over all
_MOST = 0.5
_CLEARLY = 0.25  # the least gain by which another reading of a file counts
_STRENGTHS = (1.0, 4.0, 16.0, 64.0)
_FACTOR = 7.0  # by which inputs are multiplied that the autoencoder normalizes itself
_ALIKE = 0.01


@dataclass(frozen=True)
class Decoder:
    """How an autoencoder decodes, as its file tells it: x = (z @ rows + bias) / scale + shift.

    `rows` (units, width); `bias` (width,). `centered` says whether its encoder subtracts the bias, `norm` what it does
    to its inputs first.
    """

    rows: Tensor
    bias: Tensor
    centered: bool
    scale: float = 1.0
    shift: Tensor | float = 0.0
    norm: Norm = "none"

    def inputs(self, latents: Tensor, strength: float, bias: float = 1.0) -> Tensor:
        """Vectors of the layer (latents, width), each of which is one latent's alone."""
        return (strength * self.rows[latents] + bias * self.bias) / self.scale + self.shift


@dataclass(frozen=True)
class Directions:
    """What a kind reads from a file. `decoder` is None for directions that were not trained to reconstruct."""

    readout: Readout
    decoder: Decoder | None = None


def checked(found: Directions) -> Readout:
    """The readout. Raises ValueError, with its figures, if it is not sound or fails the check."""
    readout, decoder = found.readout, found.decoder
    readout.check()
    if decoder is None:
        return readout
    if tuple(decoder.rows.shape) != (readout.units, readout.width):
        raise ValueError(
            f"its encoder makes {readout.units} latents of {readout.width} numbers, but its decoder has the shape "
            f"{list(decoder.rows.shape)}: one of them is transposed"
        )
    if not bool(decoder.rows.isfinite().all() and decoder.bias.isfinite().all()):
        raise ValueError("its decoder holds values that are not finite")
    alive = decoder.rows.abs().amax(1).nonzero()[:, 0]
    if not len(alive):
        raise ValueError("its decoder is zero")
    latents = alive[torch.linspace(0, len(alive) - 1, min(len(alive), _LATENTS)).round().long()]
    _check_norm(readout, decoder, latents)
    share = _share(readout, decoder, latents, 1.0)
    if share > _MOST:
        return readout
    said = f"the decoder rows of {len(latents)} latents, encoded, make {share:.0%} of these latents the strongest"
    for way, other in _others(readout, decoder):
        better = _share(other, decoder, latents, 1.0)
        if better > max(_MOST, share + _CLEARLY):
            raise ValueError(f"{said}, but {better:.0%} {way}: it is not of the format that it seems to be")
    if max(_share(readout, decoder, latents, strength) for strength in _STRENGTHS) <= _MOST:
        raise ValueError(
            f"{said}: its encoder and its decoder do not belong together, or one of them is transposed or not scaled"
        )
    return readout


def _check_norm(readout: Readout, decoder: Decoder, latents: Tensor) -> None:
    """Raises ValueError if the latents depend on the length of an input that the autoencoder normalizes."""
    if decoder.norm == "none":
        return
    plain, inputs = replace(readout, activation="linear"), decoder.inputs(latents, 1.0)
    before, after = plain.cells(inputs), plain.cells(_FACTOR * inputs)
    change = float((after - before).norm() / before.norm())
    if not change < _ALIKE:
        raise ValueError(
            f"it normalizes its inputs by {decoder.norm}, but inputs {_FACTOR:g} times as long change its latents by "
            f"{change:.0%}: the normalization is missing"
        )


def _others(readout: Readout, decoder: Decoder) -> list[tuple[str, Readout]]:
    """Other ways to read the file."""
    shift = torch.zeros(readout.width) + decoder.shift
    as_decoded = replace(readout, norm=decoder.norm, scale=decoder.scale)
    found = [
        ("if the decoder bias is not subtracted", replace(as_decoded, center=shift)),
        ("if the decoder bias is subtracted", replace(as_decoded, center=shift + decoder.bias / decoder.scale)),
    ]
    if readout.width == readout.units:
        found.append(("if the encoder is transposed", replace(readout, weight=readout.weight.T.contiguous())))
    return found


def _share(readout: Readout, decoder: Decoder, latents: Tensor, strength: float) -> float:
    """The share of latents that are the strongest where the input is their own decoder row.

    Of an encoder that does not subtract the decoder's bias, the row with or without that bias counts, whichever gives
    more.
    """
    plain = replace(readout, activation="linear")
    inputs = [decoder.inputs(latents, strength, bias) for bias in ((1.0,) if decoder.centered else (1.0, 0.0))]
    if decoder.norm != "none":  # the rows are as normalized inputs are
        plain = replace(plain, norm="none")
    return max(float((plain.cells(x).argmax(1) == latents).float().mean()) for x in inputs)
