"""Discover-then-Name: `tied_bias`, `encoder._weight` [1, units, width], `encoder._bias` [1, units], `decoder._weight`.

relu((x - tied_bias) W + b). The first dimension is that of components, of which there is one.
"""

from __future__ import annotations

from torch import Tensor

from patchmine.readouts._check import Decoder, Directions
from patchmine.readouts._contents import Contents
from patchmine.readouts._readout import Readout

HELP = "discover-then-name: tied_bias, encoder._weight, encoder._bias and decoder._weight"

_NAMES = ("encoder._weight", "encoder._bias", "decoder._weight", "tied_bias")


def claim(contents: Contents) -> bool:
    return contents.has(*_NAMES[:3])


def read(contents: Contents) -> Directions:
    weight, bias, rows = (_alone(contents, name, ndim) for name, ndim in zip(_NAMES, (2, 1, 2), strict=False))
    units, width = weight.shape
    center = contents.tensor("tied_bias").reshape(-1) if contents.has("tied_bias") else weight.new_zeros(width)
    if len(center) != width:
        raise ValueError(f"its tied_bias has {len(center)} numbers, not {width}")
    rows = rows.T.contiguous() if tuple(rows.shape) == (width, units) else rows
    readout = Readout(weight=weight.T.contiguous(), bias=bias, center=center, activation="relu")
    return Directions(readout, Decoder(rows, center, centered=True))


def _alone(contents: Contents, name: str, ndim: int) -> Tensor:
    """The tensor of the only component."""
    found = contents.tensor(name)
    if found.ndim == ndim + 1:
        if len(found) != 1:
            raise ValueError(f"its {name} has {len(found)} components, not 1")
        found = found[0]
    if found.ndim != ndim:
        raise ValueError(f"its {name} has shape {list(found.shape)}")
    return found
