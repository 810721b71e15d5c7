"""Pointers to patches: paths, digests and boxes without a pixel, which may be published where photographs may not.

`located` finds the photographs again in another copy of the collection, by their digests.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from patchmine.errors import PhotographError, RequestError
from patchmine.exports import Asked, Export
from patchmine.exports._pictures import file_name, jpeg
from patchmine.exports._rows import counted
from patchmine.photographs.crops import cut
from patchmine.sources import Source, listed
from patchmine.system import digests
from patchmine.system.progress import Progress
from patchmine.system.regular_files import withheld
from patchmine.system.untrusted_json import Misfit, Part, parse, read_bounded
from patchmine.units import Box

HELP = "pointers: paths, digests and boxes without a pixel, for patchmine import pointers"
FOLDER = False
K = 25

LARGEST = 1 << 30
"""The most bytes of a file of pointers."""

_COLUMNS = ("unit", "pick", "rank", "image", "was", "digest", "box", "value")
_FAR = 1 << 31
_UNIT = re.compile(r"(.+):(\d{1,9})", re.DOTALL)


def check(asked: Asked) -> None: ...


def write(export: Export, out: Path) -> str:
    job, count = export.index.job, 0
    about = {"model": job.model, "weights": job.weights, "crop": export.asked.crop}
    with out.open("w", encoding="utf-8") as file:
        file.write(json.dumps(about)[:-1] + ', "patches": [')
        for unit, patches in export.every():
            for pick, patch in patches:
                pointer = {
                    "unit": str(unit.unit),
                    "pick": pick,
                    "rank": patch.rank,
                    "image": patch.image,
                    "digest": export.index.digest(patch.image_id),
                    "box": patch.box.as_dict(),
                    "value": patch.value,
                }
                file.write((",\n" if count else "\n") + json.dumps(pointer, allow_nan=False))
                count += 1
        file.write("\n]}\n")
    return counted(count, len(export.units))


@dataclass(frozen=True)
class Pointer:
    """A patch without its photograph; `box` is in source pixels."""

    unit: str
    pick: str
    rank: int
    image: str
    digest: str
    box: Box
    value: float


def read(file: Path) -> list[Pointer]:
    """The pointers in a file, which may come from a stranger. Raises RequestError if it is not such a file."""
    try:
        return [_pointer(part) for part in parse(read_bounded(file, LARGEST)).parts("patches")]
    except FileNotFoundError:
        raise RequestError(f"file {str(file)!r} not found: give one that patchmine export pointers wrote") from None
    except OSError as error:
        raise withheld(file, error) or RequestError(f"{str(file)!r} cannot be read: {error.strerror}") from None
    except Misfit as misfit:
        raise RequestError(
            f"{str(file)!r} holds no pointers ({misfit}): give one that patchmine export pointers wrote"
        ) from None


def _pointer(part: Part) -> Pointer:
    box = part.part("box")
    edges = [box.whole(edge, 0, _FAR) for edge in ("left", "top", "right", "bottom")]
    unit = part.text("unit")
    if not _UNIT.fullmatch(unit):
        raise Misfit(f"{part.place}.unit is {unit!r}, not LAYER:CHANNEL")
    return Pointer(
        unit=unit,
        pick=part.text("pick") if "pick" in part.data else "top",
        rank=part.whole("rank", 1, _FAR),
        image=part.text("image"),
        digest=part.text("digest"),
        box=Box(*edges),
        value=part.number("value", -1e38, 1e38),
    )


def located(pointers: Iterable[Pointer], source: Source, workers: int, progress: Progress) -> dict[str, str]:
    """The path in a source of each photograph that is pointed at, by digest; what is not there is left out.

    Reads every photograph of the source once, with `workers` threads. Of several copies the first by path counts.
    Raises SourceError if the source cannot be listed.
    """
    wanted = {pointer.digest for pointer in pointers}
    paths = [entry.path for entry in listed(source).entries]
    found: dict[str, str] = {}
    progress.begin(len(paths), 0, "photographs compared")

    def digest(path: str) -> str | None:
        with suppress(PhotographError):
            return digests.of_bytes(source.read(path))
        return None

    with ThreadPoolExecutor(workers) as pool:
        for path, of_path in zip(paths, pool.map(digest, paths), strict=True):
            progress.advance(1)
            if of_path in wanted:
                found.setdefault(of_path, path)
    return found


def cut_out(
    pointers: Iterable[Pointer], paths: Mapping[str, str], source: Source, out: Path
) -> Iterator[PhotographError | None]:
    """Cut the located patches into a folder, with a table of them: a file for each, by layer, channel and rank.

    Yields for each patch why it could not be cut, or None.
    """
    with (out / "crops.csv").open("w", encoding="utf-8", errors="backslashreplace", newline="") as table:
        writer = csv.DictWriter(table, ("file_name", *_COLUMNS), lineterminator="\n")
        writer.writeheader()
        for pointer in pointers:
            try:
                if pointer.digest not in paths:
                    raise PhotographError("not in the source")
                picture = cut(source.read(paths[pointer.digest]), pointer.box)
                if not pointer.box.area:
                    raise PhotographError("its box is empty")
            except PhotographError as error:
                yield error
                continue
            name = _file_name(pointer)
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(jpeg(picture))
            row = {**described(pointer, paths[pointer.digest]), "box": " ".join(map(str, pointer.box.as_tuple()))}
            writer.writerow({"file_name": name, **row})
            yield None


def _file_name(pointer: Pointer) -> str:
    found = _UNIT.fullmatch(pointer.unit)
    assert found
    pick = quote(pointer.pick.replace(":", "-"), safe="")
    return f"{file_name(found[1])}/{int(found[2]):04d}/{pick}-{pointer.rank:03d}.jpg"


def described(pointer: Pointer, path: str | None) -> dict[str, Any]:
    """A pointer as `import pointers --json` prints it: `image` is the path in the source, or None where it is not."""
    return {**vars(pointer), "box": pointer.box.as_dict(), "image": path, "was": pointer.image}
