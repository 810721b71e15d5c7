"""The network's own predictions for photographs without classes, read with one more tap on its output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from patchmine.errors import ModelError
from patchmine.executors import Bound, Reduced
from patchmine.labels.imagenet import class_keys
from patchmine.networks.network import Network
from patchmine.networks.taps import Tap, survey
from patchmine.ranking import Int64
from patchmine.sources import Entry

OUTPUT = ""
"""The name of the whole network among its torch modules."""


@dataclass(frozen=True)
class Predictor:
    """The classes of a network in the order of its outputs, and the tap on these outputs."""

    classes: tuple[str, ...]
    tap: Tap

    def bound(self) -> Bound:
        """A bound that no output beats, so that no vectors are kept."""
        units = len(self.classes)
        return np.full(units, np.inf, np.float32), np.zeros(units, np.int64)

    def predictions(self, images: Int64, output: Reduced) -> dict[int, str]:
        """The class with the highest output, by image id, for each image whose outputs are all finite."""
        sound = np.flatnonzero(np.isfinite(output.value).all(axis=1))
        best = output.value.argmax(axis=1)
        return {int(images[row]): self.classes[best[row]] for row in sound}


def predicts(network: Network, entries: Sequence[Entry]) -> bool:
    """Whether the network predicts classes: no photograph has one, and the network's classes have names."""
    return network.class_names is not None and all(entry.class_name is None for entry in entries)


def predictor(network: Network, entries: Sequence[Entry]) -> Predictor | None:
    """The predictor; None if no predictions are needed or the output is not one number for each class."""
    if not predicts(network, entries) or network.class_names is None:
        return None
    try:
        (tap,) = survey(network.module, network.blank(), [OUTPUT])
    except ModelError:
        return None
    if tap.layout.order != "vector" or tap.layout.channels != len(network.class_names):
        return None
    return Predictor(class_keys(network.class_names), tap)


def with_output(bounds: Mapping[str, Bound], predictor: Predictor | None) -> dict[str, Bound]:
    """The bounds, with one for the network's output if there is a predictor."""
    return dict(bounds) if predictor is None else {**bounds, OUTPUT: predictor.bound()}
