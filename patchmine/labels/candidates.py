"""The labels that can be tried: the classes of the photographs, and the WordNet nouns above them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from patchmine.labels.wordnet import ancestors, breadth

LEAST = 5
"""Minimum number of photographs that carry a label, and minimum number that do not."""


@dataclass(frozen=True)
class Labels:
    """Labels in the order of their keys.

    `members`, bool (labels, classes): whether a class lies below a label. `nouns`, bool (labels,): whether the label is
    a noun above classes instead of a class. `order`, int64 (labels,): 0 for the most specific label, and so on.
    """

    keys: tuple[str, ...]
    members: NDArray[np.bool_]
    nouns: NDArray[np.bool_]
    order: NDArray[np.int64]

    @classmethod
    def of_classes(cls, classes: Sequence[str]) -> Labels:
        """The classes and all nouns above them, sorted; of those with the same classes, only the most specific."""
        above = [{name} | ancestors(name) for name in classes]
        keys = sorted(set().union(*above))
        members = np.array([[key in of_class for of_class in above] for key in keys], np.bool_)
        known = set(classes)
        # Of two nouns above the same classes, the deeper one has more ancestors.
        ranked = sorted(keys, key=lambda key: (key not in known, breadth(key), -len(ancestors(key)), key))
        rank = {key: number for number, key in enumerate(ranked)}
        every = cls(
            tuple(keys),
            members.reshape(len(keys), len(classes)),
            np.array([key not in known for key in keys], np.bool_),
            np.array([rank[key] for key in keys], np.int64),
        )
        return every._rows(every._distinct(np.arange(len(keys)), np.ones(len(classes), np.bool_)))

    def tried(self, counts: NDArray[np.int64], least: int = LEAST) -> NDArray[np.int64]:
        """The rows of the labels to try; `counts` (classes,) has the photographs of each class.

        At least `least` photographs carry the label and at least LEAST do not. A noun above classes is left out if more
        than half of the photographs carry it. Of labels on the same photographs, only the most specific is tried.
        """
        inside, total = self.members @ counts, counts.sum()
        broad = self.nouns & (2 * inside > total)
        rows = np.flatnonzero((inside >= least) & (total - inside >= LEAST) & ~broad)
        present = counts > 0
        return rows if present.all() else self._distinct(rows, present)

    def _distinct(self, rows: NDArray[np.int64], present: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Of the rows with the same classes among those that are present, only the most specific; ascending."""
        first: dict[bytes, int] = {}
        for row in sorted(rows.tolist(), key=lambda row: int(self.order[row])):
            first.setdefault(self.members[row, present].tobytes(), row)
        return np.array(sorted(first.values()), np.int64)

    def _rows(self, rows: NDArray[np.int64]) -> Labels:
        keys = tuple(self.keys[row] for row in rows)
        return Labels(keys, self.members[rows], self.nouns[rows], self.order[rows])
