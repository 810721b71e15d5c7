"""Writes the patches of an index for other tools. Every module in this folder is a kind, with

- `HELP`: one line: the kind, a colon, and what is written;
- `FOLDER`: whether it makes a folder, or else a file;
- `FILES`, optional: endings of OUT with which a kind of folders makes a file;
- `K`: the number of patches of each unit if the user gives none; any number where it has no meaning;
- `check(asked)`: refuse, before the index is opened, what this kind cannot do. Raises RequestError;
- `write(export, out)`: write everything to `out`, a file or folder beside the target that takes its place at the end.
  Returns what is in it, as the end of a line such as `225 patches of 9 units`.

The same export of the same index has the same bytes: nothing written may depend on time, place or threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from patchmine.defaults import PICKS, Run
from patchmine.defaults import check as check_settings
from patchmine.errors import PhotographError, RequestError
from patchmine.plugins import Kinds
from patchmine.reading.answers import Patches
from patchmine.reading.opened import OpenIndex, OpenUnit
from patchmine.reading.patch import Patch
from patchmine.system.atomic import check_new, whole_file, whole_folder
from patchmine.system.progress import Progress, Silent


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What to export, apart from the units. None is the default of the kind.

    `picks` choose the patches of each unit, as for `top`; `crop` and `share` decide their boxes; `pool` is one of
    `defaults.POOLS`; `seed` is that of every random choice, `workers` the number of threads. With `strict` a photograph
    that cannot be read is an error. Raises RequestError for an unknown word and a number out of range.
    """

    k: int | None = None
    picks: tuple[str, ...] = (PICKS[0],)
    crop: str = "rf"
    share: float | None = None
    seed: int = 0
    pool: str | None = None
    strict: bool = False
    workers: int = field(default_factory=lambda: Run().workers)

    def __post_init__(self) -> None:
        for pick in self.picks:
            check_settings({"pick": pick})
        check_settings({"k": self.k, "seed": self.seed, "crop": self.crop, "share": self.share, "pool": self.pool})
        check_settings({"workers": self.workers})

    def only(self, kind: str, *, pick: bool = True) -> None:
        """Refuse what a kind that takes one pick, or just the top without `pick`, cannot do. Raises RequestError."""
        if len(self.picks) > 1:
            raise RequestError(f"export {kind} takes one --pick, not {len(self.picks)}: export each to its own place")
        if not pick and self.picks != (PICKS[0],):
            raise RequestError(f"export {kind} chooses its photographs by itself: leave --pick {self.picks[0]} out")


@dataclass(frozen=True)
class Export:
    """An export to carry out: an opened index, its units in the order of the network, and what is asked of them."""

    index: OpenIndex[Any]
    units: Sequence[OpenUnit]
    asked: Asked
    k: int
    progress: Progress
    gone: dict[str, str] = field(default_factory=dict)
    """The photographs that were left out, with the reasons."""

    @property
    def layers(self) -> dict[str, list[OpenUnit]]:
        """The units by layer."""
        found: dict[str, list[OpenUnit]] = {}
        for unit in self.units:
            found.setdefault(unit.unit.layer, []).append(unit)
        return found

    def patches(self, unit: OpenUnit, pick: str | None = None) -> Patches:
        """The patches of a unit that a pick chooses, by default the first."""
        asked = self.asked
        return unit.top(self.k, pick or asked.picks[0], asked.crop, asked.seed, asked.share)

    def every(self) -> Iterator[tuple[OpenUnit, list[tuple[str, Patch]]]]:
        """Each unit with its patches, each with the pick that chose it. Reports the progress."""
        self.progress.begin(len(self.units), 0, "units")
        for unit in self.units:
            yield unit, [(pick, patch) for pick in self.asked.picks for patch in self.patches(unit, pick)]
            self.progress.advance(1)

    def missing(self, path: str, error: PhotographError) -> None:
        """Report a photograph that cannot be read. Raises PhotographError with `strict`."""
        if self.asked.strict:
            raise PhotographError(f"{path!r}: {error}; bring it back, or leave --strict out") from None
        if path not in self.gone:
            self.gone[path] = str(error)
            self.progress.note(f"{path}: {error}")


class Kind(Protocol):
    """The contract of a module of this package; its docstring explains each part."""

    HELP: str
    FOLDER: bool
    K: int

    def check(self, asked: Asked) -> None: ...
    def write(self, export: Export, out: Path) -> str: ...


kinds: Kinds[Kind] = Kinds("patchmine.exports", needs=("FOLDER", "K", "check", "write"))


@dataclass(frozen=True)
class Order:
    """An export that has been checked as far as possible without its index: the kind, the target, and the wishes.

    Raises RequestError for an unknown kind, a wish that the kind cannot fulfill, a target that cannot be written, and
    one that exists, unless `force`.
    """

    kind: str
    out: Path
    asked: Asked
    force: bool = False

    def __post_init__(self) -> None:
        if self.kind not in kinds:
            raise RequestError(f"unknown export {self.kind!r}: choose from {', '.join(kinds.names)}")
        kind = kinds.get(self.kind, "export")
        check_new(self.out, self._folder(kind), self.force)
        kind.check(self.asked)

    def _folder(self, kind: Kind) -> bool:
        return kind.FOLDER and self.out.suffix.lower() not in getattr(kind, "FILES", ())

    def carry_out(
        self,
        index: OpenIndex[Any],
        units: Iterable[str] = (),
        layers: Iterable[str] = (),
        progress: Progress | None = None,
    ) -> str:
        """Write the export of these units, or of all of these layers, or of all; returns what is in it, in words.

        Raises UnitError for an unknown unit or layer, PhotographError and SourceError for photographs that the kind
        needs and that are gone, RequestError if the target cannot be written.
        """
        kind = kinds.get(self.kind, "export")
        meant = _meant(index, list(units), list(layers))
        export = Export(index, meant, self.asked, self.asked.k or kind.K, progress or Silent())
        make = whole_folder if self._folder(kind) else whole_file
        with make(self.out) as making:
            made = kind.write(export, making)
        return f"{made}; {len(export.gone)} photographs could not be read" if export.gone else made


def _meant(index: OpenIndex[Any], names: list[str], layers: list[str]) -> list[OpenUnit]:
    """The units, each once, in the order of the network."""
    for layer in layers:
        index.check_layer(layer)
    if not names:
        return [unit for layer in index.layers if layer in layers or not layers for unit in index.units(layer)]
    if len(layers) > 1:
        raise RequestError(f"--unit with {len(layers)} layers is ambiguous: give one --layer, or write LAYER:CHANNEL")
    order = {layer: number for number, layer in enumerate(index.layers)}
    found = {index.resolved(name, *layers) for name in names}
    return [index.unit(unit) for unit in sorted(found, key=lambda unit: (order[unit.layer], unit.channel))]


__all__ = ["Asked", "Export", "Order", "kinds"]
