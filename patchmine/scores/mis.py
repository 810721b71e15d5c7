"""Machine interpretability score: can a judge of similarity tell what drives a unit from what does not?

After Zimmermann, Klindt & Brendel (NeurIPS 2024), whose judge is DreamSim. In each task the judge sees nine references
of each end and a query of each; it answers by d = (mean similarity to the strong references) - (that to the weak ones),
and is right with the probability sigmoid(ALPHA (d of the strong query - d of the weak query)). The score is the mean
over tasks: 0.5 is guessing. Here similarity is the cosine of the index's own embedding, and ALPHA is not fitted to
people: values of different judges cannot be compared.

The photographs of an end are dealt into groups of ten, one of each tenth of their ranks. Each photograph is the query
of one task, with the other nine of its group as references: one query a group would leave the score to chance.
"""

from __future__ import annotations

from math import ceil

import numpy as np

from patchmine.ranking import Float32, rank_column
from patchmine.scores._evidence import Evidence, Float64, Lacking

HELP = (
    "mis: machine interpretability score, how often a judge of similarity tells strong from weak photographs; 0.5 to 1"
)
KEPT = True

GROUP, ALPHA = 10, 16.0
"""The photographs of a group, of which one is the query, and the judge's sharpness."""

EXTREME, MOST = 0.1, 20
"""The share of photographs at each end that tasks are made of, and the most groups of them."""

LEAST = ceil(2 * GROUP / EXTREME)
"""The fewest photographs: two groups at each end. With fewer, the ends are not extreme, or a unit's score is chance."""


def of_layer(evidence: Evidence) -> Float64:
    values, embedding = evidence.values, evidence.embedding
    values = values[embedding.images]
    if len(values) < LEAST:
        raise Lacking(f"it needs {LEAST} photographs, and {len(values)} have a vector in {embedding.layer}")
    found = np.full(evidence.units, np.nan)
    for unit in range(evidence.units):
        column = values[:, unit]
        ranked = rank_column(column)
        if len(ranked) < LEAST or column[ranked[0]] == column[ranked[-1]]:
            continue
        count = GROUP * min(MOST, int(EXTREME * len(ranked)) // GROUP)
        rng = np.random.default_rng(unit)
        # One order, so that ties put no photograph on both sides.
        (strong, strong_query), (weak, weak_query) = (
            _dealt(embedding.vectors[order[:count]], rng) for order in (ranked, ranked[::-1])
        )
        margin = ((strong_query - weak_query) * (strong - weak)).sum(axis=-1, dtype=np.float64)
        found[unit] = (1 / (1 + np.exp(-ALPHA * margin))).mean()
    return found


def _dealt(vectors: Float32, rng: np.random.Generator) -> tuple[Float32, Float32]:
    """The mean of the references and the query of each task, both (groups, GROUP, channels).

    The vectors are those of one end, the most extreme first. Task i of each group has a query of the same tenth of the
    ranks.
    """
    tenths = np.split(np.arange(len(vectors)), GROUP)
    groups: Float32 = vectors[np.stack([rng.permutation(tenth) for tenth in tenths], axis=1)]
    references: Float32 = (groups.sum(axis=1, keepdims=True) - groups) / np.float32(GROUP - 1)
    return references, groups
