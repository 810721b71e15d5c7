"""Machine interpretability score: can a judge of similarity tell what drives a unit from what does not?

After Zimmermann, Klindt & Brendel (NeurIPS 2024), whose judge is DreamSim. In each task the judge sees references of
both ends and a query of each; it answers by d = (mean similarity to the strong references) - (that to the weak ones),
and is right with the probability sigmoid(ALPHA (d of the strong query - d of the weak query)). The score is the mean
over tasks: 0.5 is guessing. Here similarity is the cosine of the index's own embedding, and ALPHA is not fitted to
people: values of different judges cannot be compared. References are dealt as in `export psychophysics`.
"""

from __future__ import annotations

import numpy as np

from patchmine.ranking import rank_column
from patchmine.scores._evidence import Evidence, Float64, Lacking

HELP = (
    "mis: machine interpretability score, how often a judge of similarity tells strong from weak photographs; 0.5 to 1"
)
KEPT = True

TASKS, REFERENCES, ALPHA = 20, 9, 16.0
"""The most tasks of a unit, the references of each side of a task, and the judge's sharpness."""

EXTREME = 0.1
"""The share of photographs at each end that tasks are made of; more where two tasks need more."""

_FEWEST = 2


def of_layer(evidence: Evidence) -> Float64:
    embedding = evidence.embedding
    values = evidence.values[embedding.images]
    needed = 2 * _FEWEST * (REFERENCES + 1)
    if len(values) < needed:
        raise Lacking(f"two tasks need {needed} photographs, and {len(values)} have a vector in {embedding.layer}")
    found = np.full(evidence.units, np.nan)
    for unit in range(evidence.units):
        column = values[:, unit]
        ranked = rank_column(column)
        if len(ranked) < needed or column[ranked[0]] == column[ranked[-1]]:
            continue
        tasks = min(TASKS, max(_FEWEST, int(EXTREME * len(ranked)) // (REFERENCES + 1)))
        rng = np.random.default_rng(unit)
        # One order, so that ties put no photograph on both sides.
        (strong, strong_query), (weak, weak_query) = (
            _dealt(embedding.vectors[order[: tasks * (REFERENCES + 1)]], tasks, rng) for order in (ranked, ranked[::-1])
        )
        margin = ((strong_query - weak_query) * (strong - weak)).sum(axis=1, dtype=np.float64)
        found[unit] = (1 / (1 + np.exp(-ALPHA * margin))).mean()
    return found


def _dealt(vectors: np.ndarray, tasks: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The mean of each task's references and its query, both (tasks, channels), from vectors with the strongest first.

    The references are cut into bins of neighbors in rank, and each task gets one of every bin.
    """
    bins = np.split(np.arange(tasks * REFERENCES), REFERENCES)
    references = np.stack([rng.permutation(part) for part in bins], axis=1)
    return vectors[references].mean(axis=1), vectors[tasks * REFERENCES :][rng.permutation(tasks)]
