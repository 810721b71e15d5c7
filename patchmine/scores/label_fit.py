"""How well a unit's label fits: the correlation that chose it, of its photographs with the unit's activation.

The rule is that of labels (`labels.evidence`); labels can change without the job, so the index does not keep it here.
"""

from __future__ import annotations

import numpy as np

from patchmine.scores._evidence import Evidence, Float64
from patchmine.units import Unit

HELP = "label-fit: the correlation of the label's photographs with the unit's activation"
KEPT = False


def of_layer(evidence: Evidence) -> Float64:
    support = evidence.index.labels.support
    numbers = [support(Unit(evidence.layer, unit)).r for unit in range(evidence.units)]
    return np.array([np.nan if number is None else number for number in numbers], np.float64)
