"""All scores of an index, from its file or computed and kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from patchmine.kept import scores as keeping
from patchmine.reading.opened import OpenIndex
from patchmine.scores import kinds
from patchmine.scores._evidence import Embedding, Evidence, Lacking
from patchmine.system.progress import Progress, Silent
from patchmine.units import Unit


@dataclass(frozen=True)
class Scores:
    """The scores of the units of some layers. `lacking` says why the index has no score of that name.

    `embedding` is the layer whose vectors stand for photographs.
    """

    columns: keeping.Columns
    embedding: str
    lacking: dict[str, str]

    def of(self, unit: Unit) -> dict[str, float | None]:
        """The unit's scores by name; None where it has none."""
        return {
            name: keeping.storable(float(column[unit.channel])) for name, column in self.columns[unit.layer].items()
        }

    @property
    def about(self) -> dict[str, Any]:
        """What the JSON says of all scores."""
        return {"embedding": self.embedding, "top": Evidence.k, "lacking": self.lacking}


def scores_of(index: OpenIndex[Any], layers: Sequence[str], progress: Progress | None = None) -> Scores:
    """The scores of every unit of these layers. What the index does not keep is computed, and kept if it can be."""
    shown = progress or Silent()
    job = str(index.store.manifest["job_digest"])
    kept = keeping.read(index.directory, job, index.layers)
    embedded: list[Embedding] = []
    found: keeping.Columns = {}
    lacking: dict[str, str] = {}
    fresh = False
    names = {name: name.replace("-", "_") for name in kinds.names}
    for number, layer in enumerate(layers):
        evidence = Evidence(index, layer, embedded)
        found[layer] = {}
        for kind, name in names.items():
            known = kept.get(layer, {}).get(name)
            if known is None:
                score = kinds.get(kind, "the score")
                try:
                    known = score.of_layer(evidence)
                except Lacking as reason:
                    lacking[name] = str(reason)
                    known = np.full(evidence.units, np.nan)
                else:
                    if score.KEPT:
                        kept.setdefault(layer, {})[name] = known
                        if not fresh:
                            shown.begin(len(layers), number, "layers for scores")
                            fresh = True
            found[layer][name] = known
        if fresh:
            shown.advance(1)
    if fresh:
        keeping.write(index.directory, job, kept)
    return Scores(found, list(index.layers)[-1], lacking)
