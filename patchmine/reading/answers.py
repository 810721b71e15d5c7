"""Answers: they print as a table, convert to pandas or Arrow, and show themselves in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, overload

from patchmine.fields.cropping import Cropping
from patchmine.labels.support import counted_hits
from patchmine.reading.patch import Patch
from patchmine.reading.tables import Columns, flat, html_table, text_table, to_arrow, to_pandas
from patchmine.units import Unit

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from patchmine.labels.of_index import UnitLabels

    class Described(Protocol):
        """A unit that describes itself, as `top --json` and `units --json` do."""

        def as_dict(self) -> dict[str, Any]: ...
        def summary(self) -> dict[str, Any]: ...

    class Describing(Protocol):
        """An index, as far as an answer needs it: it knows its units by name."""

        @property
        def name(self) -> str: ...
        @property
        def labels(self) -> UnitLabels: ...
        def unit(self, unit: Unit) -> Described: ...


SHOWN = 25
"""The most rows of an answer that are printed."""

PICTURED = 100
"""The most patches of an answer that a notebook shows."""

UNIT: Columns = {"layer": str, "channel": int, "name": str, "label": str}
"""The columns that say which unit a row is of."""

_BOX: Columns = {"left": int, "top": int, "right": int, "bottom": int}

PLACE: Columns = {
    "position_y": int,
    "position_x": int,
    "visible": float,
    **{f"input_box_{edge}": kind for edge, kind in _BOX.items()},
    **{f"box_{edge}": kind for edge, kind in _BOX.items()},
}
"""The columns that say where in a photograph a patch is."""

PROOF: Columns = {"retained": float, "without": float, "area": float}
"""The columns of patches that show tight crops."""

PATCH: Columns = {"rank": int, "value": float, "image": str, "image_id": int, "class": str, **PLACE}


class Answer:
    """An answer of `rows` with `columns`: those of the command's JSON, nested parts as `box_left`."""

    columns: ClassVar[Columns]
    header: ClassVar[Sequence[str]]
    """The column names of `shown`."""

    def as_dict(self) -> dict[str, Any]:
        """The document that the command prints with `--json`."""
        raise NotImplementedError

    def shown(self) -> list[tuple[object, ...]]:
        """The rows of a table for a person, under `header`."""
        raise NotImplementedError

    def rows(self) -> list[dict[str, Any]]:
        """A dictionary for each row: what `--csv` writes."""
        raise NotImplementedError

    def to_pandas(self) -> pandas.DataFrame:
        """A data frame of the rows, with the same columns where there are none. Raises RequestError without pandas."""
        return to_pandas(self.rows(), self.columns)

    def to_arrow(self) -> pyarrow.Table:
        """An Arrow table of the rows: int64, double, string. Raises RequestError without pyarrow."""
        return to_arrow(self.rows(), self.columns)


D = TypeVar("D", bound="Described", covariant=True)


class Patches(Answer, Sequence[Patch]):
    """Patches in rank order, with the pick that chose them, their cropping, and the index that names their units."""

    columns: ClassVar[Columns] = {**UNIT, **PATCH}
    header: ClassVar[Sequence[str]] = ("rank", "value", "class", "y,x", "visible", "box", "image")

    def __init__(
        self,
        patches: Iterable[Patch],
        index: Describing | None = None,
        *,
        unit: Unit | None = None,
        cropping: Cropping | None = None,
        pick: str = "top",
        by: str = "activation",
        score: str = "sum",
    ) -> None:
        """`unit` is the unit whose patches they are, None for patches of several units.

        `cropping`, which must be settled, is what the patches' boxes show: the receptive field unless given. `by` says
        what their values are: activations, or the `score` of relevance.
        """
        self._patches = list(patches)
        self._index = index
        self._of = unit
        self.cropping = cropping or Cropping()
        self.pick, self.by, self.score = pick, by, score

    @overload
    def __getitem__(self, rank: int) -> Patch: ...
    @overload
    def __getitem__(self, rank: slice) -> Patches: ...
    def __getitem__(self, rank: int | slice) -> Patch | Patches:
        if not isinstance(rank, slice):
            return self._patches[rank]
        return self.chosen(range(*rank.indices(len(self._patches))))

    def __len__(self) -> int:
        return len(self._patches)

    def chosen(self, places: Iterable[int]) -> Patches:
        """Those at these places, with the ranks that they have here."""
        part = [self._patches[place] for place in places]
        return type(self)(
            part, self._index, unit=self._of, cropping=self.cropping, pick=self.pick, by=self.by, score=self.score
        )

    def as_dict(self) -> dict[str, Any]:
        """The document of `top --json`; for the patches of one unit of an index."""
        assert self._index is not None and self._of is not None
        return {
            "index": self._index.name,
            "pick": self.pick,
            "by": self.by,
            **({"score": self.score} if self.by == "relevance" else {}),
            "crop": self.cropping.crop,
            "unit": self._index.unit(self._of).as_dict(),
            "patches": [patch.as_dict() for patch in self._patches],
            "labels": self._index.labels.about,
        }

    def rows(self) -> list[dict[str, Any]]:
        return [{**self.described(patch.unit), **flat(patch.as_dict())} for patch in self._patches]

    def shown(self) -> list[tuple[object, ...]]:
        return [
            (
                patch.rank,
                f"{patch.value:.4g}",
                patch.class_name,
                f"{patch.position.y},{patch.position.x}",
                f"{patch.visible:.0%}",
                ",".join(map(str, patch.box.as_tuple())),
                patch.image,
            )
            for patch in self._patches
        ]

    def described(self, unit: Unit) -> dict[str, Any]:
        """The unit of a patch, under UNIT."""
        if self._index is None:
            return {"layer": unit.layer, "channel": unit.channel, "name": None, "label": None}
        return self._index.unit(unit).as_dict()

    def __repr__(self) -> str:
        units = {str(patch.unit): None for patch in self._patches}
        of = f" of {next(iter(units))}" if len(units) == 1 else f" of {len(units)} units" if units else ""
        title = f"{counted(len(self), 'patch', 'patches')}{of}"
        return listed(title, self.shown()[:SHOWN], self.header, len(self))

    def _repr_html_(self) -> str:
        from concurrent.futures import ThreadPoolExecutor  # not for every cold query

        from patchmine.reading.notebook import thumbnail_html

        with ThreadPoolExecutor() as pool:
            figures = "".join(pool.map(thumbnail_html, self._patches[:PICTURED]))
        return f"<div>{figures}</div>" + more_html(len(self), PICTURED)


class TightPatches(Patches):
    """Patches of which some or all show their tight crops."""

    columns: ClassVar[Columns] = {**Patches.columns, **PROOF}
    header: ClassVar[Sequence[str]] = ("rank", "value", "retained", "area", *Patches.header[2:])

    def rows(self) -> list[dict[str, Any]]:
        return [{**dict.fromkeys(PROOF), **row} for row in super().rows()]

    def shown(self) -> list[tuple[object, ...]]:
        return [
            (*row[:2], *((f"{proved['retained']:.0%}", f"{proved['area']:.1%}") if proved else (None, None)), *row[2:])
            for row, proved in zip(super().shown(), map(_proof, self._patches), strict=True)
        ]


def _proof(patch: Patch) -> dict[str, Any] | None:
    """The patch's numbers under PROOF; None if it shows no tight crop."""
    facts = patch.as_dict()
    return facts if facts.get("retained") is not None else None


class Units(Answer, Sequence[D]):
    """Units of an index, in the order of the network."""

    columns: ClassVar[Columns] = {
        **UNIT,
        "hits": float,
        "of": float,
        "lift": float,
        "r": float,
        "auroc": float,
        "max": float,
        "mean": float,
        "positive": float,
        "tied": int,
        "marks": str,
        "outlier_tokens": float,
        "positional": float,
        "tight": float,
        "diffuse": float,
    }
    header: ClassVar[Sequence[str]] = (
        "unit",
        "name",
        "label",
        "evidence",
        "auroc",
        "max",
        "mean",
        "positive",
        "tied",
        "",
    )

    def __init__(self, units: Iterable[D], index: Describing | None = None) -> None:
        self._units = list(units)
        self._index = index

    @overload
    def __getitem__(self, number: int) -> D: ...
    @overload
    def __getitem__(self, number: slice) -> Units[D]: ...
    def __getitem__(self, number: int | slice) -> D | Units[D]:
        return Units(self._units[number], self._index) if isinstance(number, slice) else self._units[number]

    def __len__(self) -> int:
        return len(self._units)

    def as_dict(self) -> dict[str, Any]:
        """The document of `units --json`; for the units of an index."""
        assert self._index is not None
        units = [unit.summary() for unit in self._units]
        return {"index": self._index.name, "labels": self._index.labels.about, "units": units}

    def rows(self) -> list[dict[str, Any]]:
        return [worded(unit.summary()) for unit in self._units]

    def shown(self) -> list[tuple[object, ...]]:
        return [tuple(unit_row(unit.summary()).values()) for unit in self._units]

    def __repr__(self) -> str:
        return listed(counted(len(self), "unit", "units"), self[:SHOWN].shown(), self.header, len(self))

    def _repr_html_(self) -> str:
        table = html_table(self[:SHOWN].shown(), self.header) if self._units else ""
        return f"<p>{counted(len(self), 'unit', 'units')}</p>{table}" + more_html(len(self), SHOWN)


def worded(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The summary of a unit as a row of words and numbers, with its marks in one cell."""
    return {**summary, "marks": " ".join(summary["marks"])}


def unit_row(summary: Mapping[str, Any], shares: Sequence[str] = ()) -> dict[str, object]:
    """The summary of a unit as a row of a table for a person; `shares` are further columns, in percent."""
    return {
        "unit": f"{summary['layer']}:{summary['channel']}",
        "name": summary["name"],
        "label": summary["label"],
        "evidence": counted_hits(summary["hits"], summary["of"], summary["lift"]),
        "auroc": None if summary["auroc"] is None else f"{summary['auroc']:.3f}",
        "max": _short(summary["max"]),
        "mean": _short(summary["mean"]),
        "positive": None if summary["positive"] is None else f"{summary['positive']:.0%}",
        "tied": summary["tied"],
        **({"facets": summary["facets"]} if "facets" in summary else {}),
        **{key: _percent(summary[key]) for key in shares},
        "": " ".join(summary["marks"]),
    }


def listed(title: str, rows: Sequence[Sequence[object]], header: Sequence[str], of: int) -> str:
    """A title and some of `of` rows, as text."""
    lines = [title, *(text_table(rows, header) if rows else ())]
    if of > len(rows):
        lines.append(f"... and {of - len(rows)} more")
    return "\n".join(lines)


def more_html(of: int, shown: int) -> str:
    return f"<p>... and {of - shown} more</p>" if of > shown else ""


def counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.1%}"


def _short(number: float | None) -> str | None:
    return None if number is None else f"{number:.4g}"


__all__ = ["Answer", "Patches", "Units"]
