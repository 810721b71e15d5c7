"""Relevance computed again, to check that which an index keeps."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from patchmine.errors import StoreError, UnreadableError
from patchmine.networks.taps import survey
from patchmine.ranking import Int64
from patchmine.relevance.building import Photographs
from patchmine.relevance.kept import kept, mending
from patchmine.relevance.propagation import Propagator
from patchmine.relevance.table import FILE, Relevances

TOLERANCE = 1e-2
"""The largest accepted difference, as a share of the largest relevance in the layer and photograph."""


def whole(index: Photographs) -> tuple[Relevances | None, str | None]:
    """The relevance that the index keeps, and what is wrong with it; both None where it keeps none.

    Raises UnreadableError for a file that the system withholds.
    """
    if not (index.directory / FILE).exists():
        return None, None
    try:
        found = kept(index)
    except UnreadableError:
        raise
    except StoreError as error:
        return None, str(error)
    if found.changed():
        return None, f"{FILE} is not what was written; compute it again: {mending(index)}"
    return found, None


def differences(
    index: Photographs, found: Relevances, batches: Iterable[tuple[Int64, torch.Tensor]]
) -> tuple[float, list[str]]:
    """The largest difference between the kept relevance and that of these photographs, given by their ids and pixels,
    and which photographs differ by more than TOLERANCE."""
    network = index.network()
    taps = survey(network.module, network.blank(), [figures.layer for figures in found.layers])
    propagator = Propagator(network, taps, found.origin.rule, torch.device("cpu"))
    output, largest, wrong = found.images("output"), 0.0, []
    for ids, pixels in batches:
        asked = np.flatnonzero(output[ids] >= 0)
        if not len(asked):
            continue
        again = propagator.run(pixels[asked], output[ids[asked]].astype(np.int64))
        off = np.zeros(len(asked))
        for layer, values in again.layers.items():
            for name, computed in (("sum", values.sum), ("max", values.maximum)):
                recorded = found.of_layer(layer, name)[ids[asked].tolist()]
                scale = np.abs(recorded).max(1) + np.finfo(np.float32).tiny
                off = np.maximum(off, np.nan_to_num(np.abs(computed - recorded).max(1) / scale, nan=np.inf))
        largest = max(largest, float(off.max()))
        wrong += [
            f"the relevance in {index.store.image(int(ids[row])).path!r} differs from that in the index by {share:.1e} "
            "of the largest"
            for row, share in zip(asked, off, strict=True)
            if share > TOLERANCE
        ]
    return largest, wrong
