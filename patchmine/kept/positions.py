"""Statistics over all positions of all photographs, which the table of maxima lacks: quantiles and averages.

They lie in positions.h5 of an index, with the digest of the job that they were measured for: those of another job count
as none. The file is written under another name and renamed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from patchmine.buckets.copies import bring
from patchmine.errors import StoreError, UnreadableError
from patchmine.ranking import Float32
from patchmine.store.hdf5 import Data, Datasets, refusal
from patchmine.system.atomic import whole_file
from patchmine.system.untrusted_json import TEXT

FILE = "positions.h5"

LEVELS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999)
"""The levels of the quantiles that are kept."""


class Positions:
    """The statistics that an index keeps; every dataset is checked before it is read."""

    def __init__(self, datasets: Datasets, layers: Mapping[str, int], images: int) -> None:
        self._datasets, self._layers, self._images = datasets, layers, images

    def quantile(self, layer: str, level: float) -> Float32:
        """One of LEVELS over all positions of all photographs, float32 (units,); NaN for a unit that is never finite.

        Raises StoreError for a damaged file.
        """
        shape = (self._layers[layer], len(LEVELS))
        found = self._data(layer, "quantiles", shape)[:]
        if (np.diff(found) < 0).any() or np.isinf(found).any():
            raise refusal(self._datasets.file, f"{layer}/quantiles", "they are not quantiles")
        quantile: Float32 = found[:, LEVELS.index(level)]
        return quantile

    def mean(self, layer: str) -> Data:
        """The average over the positions of each photograph, float32 (images, units), still on disk."""
        return self._data(layer, "mean", (self._images, self._layers[layer]))

    def _data(self, layer: str, name: str, shape: tuple[int, int]) -> Data:
        return self._datasets.data("layers", *layer.split("/"), name, dtypes=["f4"], shape=shape)


def read(directory: Path, job: str, layers: Mapping[str, int], images: int) -> Positions | None:
    """The statistics of the job with this digest; None where the index keeps none, or the file is damaged.

    Raises UnreadableError where the system withholds the file.
    """
    bring(directory / FILE)
    try:
        found = Datasets(directory / FILE)
        if found.label("job", TEXT) != job:
            return None
        kept = Positions(found, layers, images)
        for layer in layers:
            kept.quantile(layer, LEVELS[0]), kept.mean(layer)
    except UnreadableError:
        raise
    except (StoreError, OSError):
        return None
    return kept


class Writer:
    """Takes the averages photograph by photograph, and the quantiles at the end."""

    def __init__(self, group: object, layers: Mapping[str, int], images: int) -> None:
        import h5py

        assert isinstance(group, h5py.Group)
        self._groups = {layer: group.create_group(layer) for layer in layers}
        for layer, units in layers.items():
            self._groups[layer].create_dataset("mean", (images, units), np.float32)

    def mean(self, layer: str, images: slice | list[int], averages: Float32) -> None:
        """Averages, float32 (images, units), of these photographs, which ascend."""
        self._groups[layer]["mean"][images] = averages

    def quantiles(self, layer: str, quantiles: Float32) -> None:
        """float32 (units, LEVELS)."""
        written = self._groups[layer].create_dataset("quantiles", data=quantiles)
        written.attrs["of"] = LEVELS


@contextmanager
def writing(directory: Path, job: str, layers: Mapping[str, int], images: int) -> Iterator[Writer]:
    """Replace the statistics of an index when the block ends without an error. Raises RequestError."""
    from patchmine.store.writing import written

    with whole_file(directory / FILE) as making, written(making, "w") as h5:
        h5.attrs["job"] = job
        yield Writer(h5.create_group("layers"), layers, images)
