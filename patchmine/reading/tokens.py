"""What the tokens of a unit's best patches say against the unit: outliers in norm, or one place again and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from patchmine.defaults import K
from patchmine.fields.field import ReceptiveField
from patchmine.ranking import CELLS
from patchmine.store.reading import Store
from patchmine.units import Unit

OUTLYING = 4.0
"""Robust deviations above the layer's median norm from which on a token is an outlier."""

_HALF = 0.5
_BLOCK = 4096  # vectors in memory at once


@dataclass(frozen=True)
class TokenFacts:
    """Of the tokens in the K best patches of a unit: the share of `outliers`, whose norm is far above the layer's, and
    `positional`, the share of the commonest place. None for a unit without tokens on a grid, or of an older index."""

    outliers: float | None = None
    positional: float | None = None

    @classmethod
    def of(cls, store: Store, field: ReceptiveField, unit: Unit) -> TokenFacts:
        """Those of a unit in the layer of this field. Each layer is read once."""
        if field.tokens != "grid":
            return cls()
        known = _known.setdefault(store, {})
        if unit.layer not in known:
            known[unit.layer] = _of_layer(store, unit.layer)
        return known[unit.layer][unit.channel]

    @property
    def marks(self) -> list[str]:
        """The reasons to doubt the unit, each if it holds for more than half of the patches."""
        shares = {"outlier-tokens": self.outliers, "positional": self.positional}
        return [mark for mark, share in shares.items() if share is not None and share > _HALF]

    @property
    def text(self) -> str | None:
        """The marks in words, with their shares; None without any."""
        words = {
            "outlier-tokens": f"outlier tokens: {self.outliers or 0:.0%} of the top {K} have a norm far above usual",
            "positional": f"positional: {self.positional or 0:.0%} of the top {K} are in one place",
        }
        return "; ".join(words[mark] for mark in self.marks) or None

    def numbers(self) -> dict[str, Any]:
        """The shares as `units --json` has them."""
        return {"outlier_tokens": self.outliers, "positional": self.positional}


_known: WeakKeyDictionary[Store, dict[str, list[TokenFacts]]] = WeakKeyDictionary()


def _of_layer(store: Store, layer: str) -> list[TokenFacts]:
    top = store.top_of_all(layer)
    filled, images, places = top.filled[:, :K], top.images[:, :K], top.positions[:, :K]
    usual = store.token_norm(layer)
    outlying = None if usual is None else _norms(store, layer, images, places) > usual[0] + OUTLYING * usual[1]
    found = []
    for unit, there in enumerate(filled):
        if not there.any():
            found.append(TokenFacts())
            continue
        _, counts = np.unique(places[unit, there], return_counts=True)
        outliers = None if outlying is None else round(float(outlying[unit, there].mean()), 6)
        found.append(TokenFacts(outliers, round(float(counts.max() / there.sum()), 6)))
    return found


def _norms(store: Store, layer: str, images: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.float32]:
    """The norm of the token at each (image, place); both (units, patches), as is the result. NaN where none is kept."""
    vectors, kept_images, kept_places = store.vectors(layer)
    kept = kept_images * CELLS + kept_places
    norms = np.full(len(kept) + 1, np.nan, np.float32)
    for start in range(0, len(kept), _BLOCK):
        block = vectors[start : start + _BLOCK].astype(np.float32)
        norms[start : start + len(block)] = np.sqrt((block**2).sum(axis=1))
    order = np.argsort(kept)
    wanted = images * CELLS + places
    at = np.minimum(np.searchsorted(kept, wanted, sorter=order), max(len(kept) - 1, 0))
    row = order[at] if len(kept) else np.zeros_like(at)
    return norms[np.where(kept[row] == wanted, row, len(kept))] if len(kept) else norms[np.zeros_like(wanted)]
