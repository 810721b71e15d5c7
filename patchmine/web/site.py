"""The pages as plain files: any web server can serve them, and a browser opens them from the file system."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from patchmine.errors import RequestError, SourceError, UnitError, nearest
from patchmine.index import Index
from patchmine.photographs.crops import padding
from patchmine.system import digests
from patchmine.system.atomic import unwritable, write_atomically
from patchmine.system.progress import Progress, Silent
from patchmine.units import Unit
from patchmine.web import facts, pages, pictures
from patchmine.web.facts import Shown
from patchmine.web.pictures import Picture

K = 15
"""Patches on a unit's page."""

CROP_PX, PHOTOGRAPH_PX = 192, 640
INDEX, STAMP = "index.html", "site.json"
_SAMPLE = 4  # units that the estimate draws
_PAGE_BYTES = 22_000
_MOST_COMPARED = 20_000  # units: their correlations are a matrix in memory
_ROWS = 4096


@dataclass
class Report:
    """What was written. `missing` counts pictures whose photograph cannot be read."""

    folder: str
    units: int
    pages: int = 0
    pictures: int = 0
    bytes: int = 0
    resumed: int = 0
    missing: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return vars(self).copy()


def chosen(index: Index, layers: Sequence[str], units: Sequence[str]) -> list[Unit]:
    """The units of these layers (names or shell patterns) and these units, in the order of the network; all by default.

    Raises UnitError for a pattern that fits no layer, and an unknown unit.
    """
    for pattern in layers:
        if not any(fnmatchcase(layer, pattern) for layer in index.layers):
            raise UnitError(f"the index has no layer {pattern!r}{nearest(pattern, index.layers)}")
    named = {index.unit(unit).unit for unit in units}
    inside = [layer for layer in index.layers if any(fnmatchcase(layer, pattern) for pattern in layers)]
    everything = not layers and not units
    return [
        unit
        for layer, channels in index.layers.items()
        for unit in (Unit(layer, channel) for channel in range(channels))
        if everything or layer in inside or unit in named
    ]


def export(
    index: Index, folder: Path, units: Sequence[Unit], pointers_only: bool = False, progress: Progress | None = None
) -> Report:
    """Write the pages of these units, of their layers and of the network, and the pictures that they show.

    What an interrupted run has written stays and is not made again; index.html comes last. With `pointers_only` the
    pages name photographs and places and show no picture. Raises RequestError for a folder that holds something else,
    or cannot hold the site.
    """
    began = perf_counter()
    shown = progress or Silent()
    writing = _Writing(index, folder, frozenset(units), pointers_only)
    writing.begin(shown)
    shown.begin(len(units), 0, "units")
    near = {} if pointers_only and not index.store.has_table else _correlated(index, units)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for unit in units:
            writing.unit(unit, near.get(unit, []), pool)
            shown.advance(1)
        writing.rest(pool)
    if writing.report.missing:
        shown.note(f"{writing.report.missing} pictures could not be made: their photographs are missing or changed")
    writing.report.seconds = round(perf_counter() - began, 3)
    return writing.report


def slug(layer: str) -> str:
    """A layer's name as the name of a file on any system."""
    found = quote(layer, safe=" ()[]{},;=@+", errors="surrogatepass").replace("%", "~")
    return found if not found.startswith(".") and len(found) < 120 else f"~{digests.of_json(layer)}"


@dataclass
class Files:
    """Addresses of files, relative to a page `depth` folders below the site's; it notes the pictures they need."""

    index: Index
    depth: int
    pointers_only: bool
    needed: dict[str, Callable[[], Picture]] = field(default_factory=dict)

    def root(self) -> str:
        return "../" * self.depth

    def home(self) -> str:
        return self.root() + INDEX

    def layer(self, layer: str) -> str:
        return self.root() + quote(layer_file(layer))

    def unit(self, unit: Unit) -> str:
        return self.root() + quote(unit_file(unit))

    def static(self, name: str) -> str:
        return f"{self.root()}static/{name}"

    def search(self) -> str:
        return f"{self.root()}search.js"

    def strips(self, layer: str, block: int) -> str | None:
        return self._picture(f"strips/{slug(layer)}/{block}.jpg", partial(pictures.strips, self.index, layer, block))

    def crop(self, shown: Shown, crop: str, px: int) -> str | None:
        patch, at = shown.patch, shown.patch.position
        width = min(px, CROP_PX)
        name = f"{patch.unit.channel}-{crop}-{patch.image_id}-{at.y}-{at.x}-{width}"
        ending = "jpg" if crop == pictures.FACE else "webp"
        return self._picture(f"crops/{slug(patch.unit.layer)}/{name}.{ending}", partial(self._crop, shown, crop, width))

    def _crop(self, shown: Shown, crop: str, px: int) -> Picture:
        patch = shown.patch
        found, cropping = pictures.patch_at(self.index, patch.unit, patch.image_id, patch.position, crop)
        return (pictures.face if crop == pictures.FACE else pictures.crop)(self.index, found, cropping, px)

    def photograph(self, shown: Shown) -> str | None:
        image = shown.patch.image_id
        return self._picture(f"photographs/{image}.jpg", partial(pictures.photograph, self.index, image, PHOTOGRAPH_PX))

    def synthetic(self, unit: Unit) -> str:
        name = f"synthetic/{slug(unit.layer)}-{unit.channel}.png"
        self.needed[name] = partial(_synthetic, self.index, unit)
        return self.root() + quote(name)

    def _picture(self, name: str, make: Callable[[], Picture]) -> str | None:
        if self.pointers_only:
            return None
        self.needed[name] = make
        return self.root() + quote(name)


def layer_file(layer: str) -> str:
    return f"layers/{slug(layer)}.html"


def unit_file(unit: Unit) -> str:
    return f"units/{slug(unit.layer)}/{unit.channel}.html"


def _synthetic(index: Index, unit: Unit) -> Picture:
    found = facts.synthetic(index, unit)
    assert found is not None
    return Picture("", lambda _: Image.fromarray(found.picture), "PNG")


class _Writing:
    def __init__(self, index: Index, folder: Path, units: Collection[Unit], pointers_only: bool) -> None:
        self._index, self._folder, self._units, self._pointers_only = index, folder, units, pointers_only
        self._layers = [layer for layer in index.layers if any(unit.layer == layer for unit in units)]
        self._written: set[str] = set()
        self._again = False
        self.report = Report(str(folder), len(units))

    def begin(self, progress: Progress) -> None:
        """Check the folder, say how large the site will be, and mark the folder as this site's."""
        if why := unwritable(self._folder):
            raise RequestError(f"{str(self._folder)!r} cannot be written ({why}): give another folder with -o DIR")
        stamp = self._folder / STAMP
        if self._folder.is_dir() and any(self._folder.iterdir()) and not stamp.is_file():
            raise RequestError(f"{str(self._folder)!r} holds something else: give a new folder with -o DIR")
        bytes_, number = self._estimate()
        progress.note(f"{len(self._units):,} units: {number:,} pictures, about {_size(bytes_)} in {self._folder}")
        self._folder.mkdir(parents=True, exist_ok=True)
        if bytes_ > shutil.disk_usage(self._folder).free:
            raise RequestError(
                f"{str(self._folder)!r} has no room for about {_size(bytes_)}: choose --layers or --units, "
                "or write --pointers-only"
            )
        mark = json.dumps({"patchmine": "site", "of": self._key()}, indent=1).encode()
        self._again = not stamp.is_file() or stamp.read_bytes() != mark
        if self._again:
            (self._folder / INDEX).unlink(missing_ok=True)
            write_atomically(stamp, [mark])

    def _key(self) -> str:
        """Changes with everything that the pages show."""
        store = self._index.store
        folders = sorted((self._index.directory / "tight").glob("*/"))
        times = [path.stat().st_mtime_ns for path in (*folders, store.directory / "names.json") if path.exists()]
        units = [str(unit) for unit in sorted(self._units)]
        return digests.of_json([pictures.VERSION, store.manifest["job_digest"], times, units, self._pointers_only])

    def _estimate(self) -> tuple[int, int]:
        """Bytes and number of the site's pictures and pages, by those of a few units."""
        units = sorted(self._units)
        sample = units[:: max(1, len(units) // _SAMPLE)][:_SAMPLE]
        crops, photographs, shown = 0, 0, 0
        for unit in sample:
            files, _ = self._rendered(unit, [])
            for name, make in files.needed.items():
                size = len(_encoded(make)[0])
                photographs += size if name.startswith("photographs/") else 0
                crops += 0 if name.startswith("photographs/") else size
                shown += name.startswith("photographs/")
        if not shown:
            return len(units) * _PAGE_BYTES, 0
        distinct = min(len(self._index), shown * len(units) // len(sample))
        blocks = -(-len(units) // pictures.BLOCK)
        bytes_ = len(units) * (_PAGE_BYTES + crops // len(sample)) + distinct * photographs // shown + blocks * 500_000
        return bytes_, len(units) * (K + 8) + distinct + blocks

    def _rendered(self, unit: Unit, near: list[tuple[Any, float]]) -> tuple[Files, str]:
        files = Files(self._index, 2, self._pointers_only)
        content = facts.unit(self._index, unit, K, only=self._units)
        return files, pages.page("unit", files, {**content, "nearest": near})

    def unit(self, unit: Unit, near: list[tuple[Unit, float]], pool: ThreadPoolExecutor) -> None:
        name = unit_file(unit)
        beside = [(self._index.unit(other), similarity) for other, similarity in near]
        files, html = self._rendered(unit, beside)
        self._pictures(files, pool)
        self._page(name, html.encode())

    def rest(self, pool: ThreadPoolExecutor) -> None:
        """The pages of layers, what all pages share, and the first page last."""
        for name in pages.static():
            self._page(f"static/{name}", pages.static()[name])
        for layer in self._layers:
            files = Files(self._index, 1, self._pointers_only)
            html = pages.page("layer", files, facts.layer(self._index, layer, only=self._units))
            self._pictures(files, pool)
            self._page(layer_file(layer), html.encode())
        files = Files(self._index, 0, self._pointers_only)
        listed = facts.search_list(self._index, self._layers, only=self._units)
        self._page("search.js", pages.search_script(files, self._layers, listed))
        html = pages.page("network", files, facts.network(self._index, only=self._units))
        self._pictures(files, pool)
        self._page(INDEX, html.encode())

    def _page(self, name: str, data: bytes) -> None:
        self.report.pages += name.endswith(".html")
        self.report.bytes += len(data)
        self._write(name, data)

    def _pictures(self, files: Files, pool: ThreadPoolExecutor) -> None:
        wanted = [(name, make) for name, make in files.needed.items() if name not in self._written]
        self._written |= {name for name, _ in wanted}
        self.report.pictures += len(wanted)
        lacking = [(name, make) for name, make in wanted if self._again or not _whole(self._folder / name)]
        self.report.resumed += len(wanted) - len(lacking)
        for size, whole in pool.map(self._picture, *zip(*lacking, strict=True)) if lacking else ():
            self.report.bytes += size
            self.report.missing += not whole

    def _picture(self, name: str, make: Callable[[], Picture]) -> tuple[int, bool]:
        data, whole = _encoded(make)
        self._write(name, data)
        return len(data), whole

    def _write(self, name: str, data: bytes) -> None:
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, [data], synced=False)


def _whole(file: Path) -> bool:
    """Whether an earlier run has written this file; one that is empty was lost when the machine failed."""
    return file.is_file() and file.stat().st_size > 0


def _encoded(make: Callable[[], Picture]) -> tuple[bytes, bool]:
    """The picture's bytes, and whether its photograph could be read: if not, they are those of an empty tile."""
    picture = make()
    try:
        return picture.encoded(), True
    except SourceError:
        empty = padding((CROP_PX, CROP_PX))
        return Picture("", lambda _: empty, picture.format).encoded(), False


def _correlated(index: Index, units: Sequence[Unit]) -> Mapping[Unit, list[tuple[Unit, float]]]:
    """For each unit those that correlate most with it over all photographs, as `facts.nearest` for all at once."""
    if not index.store.has_table or not 1 < len(units) <= _MOST_COMPARED:
        return {}
    product = np.zeros((len(units), len(units)), np.float32)
    for block in _standardized(index, units):
        product += block.T @ block
    np.fill_diagonal(product, -np.inf)
    count = min(facts.NEAREST, len(units) - 1)
    best = np.argpartition(-product, count - 1, axis=1)[:, :count]
    found = {}
    for unit, row, columns in zip(units, product, best, strict=True):
        ranked = sorted(columns.tolist(), key=lambda column: (-row[column], column))
        found[unit] = [(units[column], min(float(row[column]) / len(index), 1.0)) for column in ranked]
    return found


def _standardized(index: Index, units: Sequence[Unit]) -> Iterator[Any]:
    """The table in rows, float32 (rows, units), each unit with mean 0 and variance 1; 0 where it is not finite."""
    channels = {layer: [unit.channel for unit in units if unit.layer == layer] for layer in index.layers}
    tables = [(index.store.table_on_disk(layer)[0], layer, those) for layer, those in channels.items() if those]
    for start in range(0, len(index), _ROWS):
        parts = []
        for table, layer, those in tables:
            stats = index.stats(layer)
            spread = np.where(stats["std"][those] > 0, stats["std"][those], np.inf)
            parts.append(
                np.nan_to_num(
                    (table[start : start + _ROWS][:, those] - stats["mean"][those]) / spread, posinf=0, neginf=0
                )
            )
        yield np.concatenate(parts, axis=1, dtype=np.float32)


def _size(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{max(number / 1e6, 0.1):.1f} MB"


__all__ = ["Report", "chosen", "export"]
