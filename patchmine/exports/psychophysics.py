"""Trials for experiments with people (Borowski 2021, Zimmermann 2021), in the folders of brendel-group/imi.

`stimuli/MODEL_INDEX/LAYER/channel_U/natural_images/batch_B/{min,max}_I.png`, 224 x 224. A batch is a trial: 0 to 8 are
the references of each side, 9 is the query. The references are the strongest photographs of each end, the queries those
next to them, so no query is a reference. References are dealt fairly: sorted, cut into bins of one photograph for each
batch, and each bin shuffled with the seed. Batch 0 is that of the catch trials. `trials.csv` lists all.
"""

from __future__ import annotations

import csv
import io
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from patchmine.errors import PhotographError, RequestError
from patchmine.exports import Asked, Export, _matrices
from patchmine.exports._pictures import file_name
from patchmine.photographs.placement import View
from patchmine.ranking import Int64, rank_column
from patchmine.reading.opened import OpenUnit
from patchmine.reading.patch import Patch
from patchmine.units import Box

HELP = "psychophysics: trials with references and queries of both ends of each unit, for experiments"
FOLDER = True
K = 1

BATCHES = 11
"""Trials of each unit, with that for catch trials."""

REFERENCES = 9
"""References of each side of a trial."""

SIDE = 224
_COLUMNS = ("unit", "batch", "catch", "side", "role", "rank", "value", "image", "digest", "file")


def check(asked: Asked) -> None:
    asked.only("psychophysics", pick=False)
    if asked.k is not None:
        raise RequestError(f"a trial has {REFERENCES} references and a query on each side: leave -k out")


def write(export: Export, out: Path) -> str:
    index, count = export.index, 0
    root = Path("stimuli", f"{_matrices.word(export)}_{file_name(index.directory.resolve().stem)}")
    shown = _Shown()
    export.progress.begin(len(export.units), 0, "units")
    with (
        (out / "trials.csv").open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
        ThreadPoolExecutor(export.asked.workers) as pool,
    ):
        table = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        table.writeheader()
        for unit in export.units:
            place = root / file_name(unit.unit.layer) / f"channel_{unit.unit.channel}" / "natural_images"
            trials = list(_trials(export, unit))
            pictures = pool.map(lambda trial: shown.png(trial[1]), trials)
            for (facts, patch), picture in zip(trials, pictures, strict=True):
                target = place / f"batch_{facts['batch']}" / facts["file"]
                (out / target).parent.mkdir(parents=True, exist_ok=True)
                (out / target).write_bytes(picture)
                digest = index.digest(patch.image_id)
                table.writerow({**facts, "image": patch.image, "digest": digest, "file": target.as_posix()})
            count += len({facts["batch"] for facts, _ in trials})
            export.progress.advance(1)
    return f"{count} trials of {len(export.units)} {'unit' if len(export.units) == 1 else 'units'}"


def _trials(export: Export, unit: OpenUnit) -> Iterator[tuple[dict[str, Any], Patch]]:
    """The pictures of a unit's trials: the columns of the table, but for the photograph's, and the patch."""
    values, places = export.index.store.column(unit.unit.layer, unit.unit.channel)
    ranked = rank_column(values)
    batches = min(BATCHES, len(ranked) // (2 * (REFERENCES + 1)))
    if batches < 2:
        raise RequestError(
            f"{unit.unit} is finite on {len(ranked)} photographs, but two trials need {4 * (REFERENCES + 1)}: index "
            "more of them"
        )
    ranks = {int(image): rank for rank, image in enumerate(ranked.tolist(), 1)}
    # The generator is the unit's own, so that its trials do not depend on which other units are exported.
    layer = list(export.index.layers).index(unit.unit.layer)
    rng = np.random.default_rng([export.asked.seed, layer, unit.unit.channel])
    for side, order in (("min", ranked[::-1]), ("max", ranked)):  # one order, so that ties put no image on both sides
        for batch, images in enumerate(_dealt(order, batches, rng)):
            for number, image in enumerate(images.tolist()):
                patch = export.index.patch(unit.unit, ranks[image], float(values[image]), image, int(places[image]))
                facts = {
                    "unit": str(unit.unit),
                    "batch": batch,
                    "catch": int(batch == 0),
                    "side": side,
                    "role": "query" if number == REFERENCES else "reference",
                    "rank": patch.rank,
                    "value": patch.value,
                    "file": f"{side}_{number}.png",
                }
                yield facts, patch


def _dealt(order: Int64, batches: int, rng: np.random.Generator) -> Int64:
    """The images of each batch (batches, 10): references from the weakest to the strongest, then the query.

    `order` has the strongest of this end first.
    """
    references, queries = order[: batches * REFERENCES], order[batches * REFERENCES : batches * (REFERENCES + 1)]
    bins = [*np.split(references[::-1], REFERENCES), queries]
    return np.stack([rng.permutation(part) for part in bins], axis=1)


class _Shown:
    """What the network sees of photographs, as PNG. The last MOST are kept: units share many."""

    MOST = 2000

    def __init__(self) -> None:
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._lock = Lock()

    def png(self, patch: Patch) -> bytes:
        """Raises PhotographError, which names the photograph."""
        with self._lock:
            found = self._kept.get(patch.image_id)
        if found is None:
            found = _png(patch)
            with self._lock:
                self._kept[patch.image_id] = found
                if len(self._kept) > self.MOST:
                    self._kept.popitem(last=False)
        return found


def _png(patch: Patch) -> bytes:
    """What the network sees of the photograph. Raises PhotographError, which names it."""
    assert patch.field is not None
    whole = Box(0, 0, patch.field.input[1], patch.field.input[0])
    try:
        picture = patch.tile(View(whole, whole), (SIDE, SIDE))
    except PhotographError as error:
        raise PhotographError(f"{patch.image!r}: {error}; its trial needs it") from None
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()
