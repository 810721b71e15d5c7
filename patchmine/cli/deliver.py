"""The output of a command: an answer as text, JSON or CSV on stdout, and as a sheet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchmine.cli.errors import say
from patchmine.cli.output import print_csv, print_json, print_line, print_table
from patchmine.errors import RequestError

if TYPE_CHECKING:
    from patchmine.labels.of_index import UnitLabels
    from patchmine.reading.answers import Answer
    from patchmine.reading.opened import OpenUnit
    from patchmine.sheets.page import Page


class Form:
    """The output that the user chose: JSON or CSV instead of text, and a sheet in the file `out`.

    Raises RequestError, before any work, if both formats are chosen or the sheet cannot be written.
    """

    def __init__(self, json: bool = False, csv: bool = False, out: Path | None = None) -> None:
        self.json, self.csv, self.out = json, csv, out
        if self.json and self.csv:
            raise RequestError("--json and --csv exclude each other: give only one of them")
        if self.out is not None:
            from patchmine.sheets import check_target

            check_target(self.out)

    @property
    def crop(self) -> str:
        """The default crop: rf without a sheet, auto with one."""
        return "rf" if self.out is None else "auto"

    def draw(self, page: Callable[[], Page], of: int | None = None, dpi: int | None = None) -> None:
        """Write the sheet, if there is one, and report the photographs, out of `of`, that it cannot show."""
        if self.out is None:
            return
        from patchmine.sheets import write

        drawn = page()
        write(drawn, self.out, dpi)
        _report(drawn.lacking, drawn.missing, of)

    def draw_pages(self, pages: Callable[[], Iterator[Page]]) -> None:
        """Write pages, each as it is drawn, as a PDF with photographs as JPEG, and report as `draw` does."""
        from patchmine.sheets import write_document

        assert self.out is not None
        lacking: list[str] = []
        missing: list[str] = []

        def watched() -> Iterator[Page]:
            lacking.clear()
            missing.clear()
            for page in pages():
                missing.extend(page.missing)
                lacking.extend([page.lacking] if page.lacking else [])
                yield page

        write_document(watched, self.out, lossless=False)
        _report(lacking[0] if lacking else None, missing)

    def answer(self, answer: Answer, title: str, also: Callable[[], None] = lambda: None) -> None:
        """Print an answer; as text under a title, followed by the output of `also`."""

        def text() -> None:
            print_line(title)
            print_table(answer.shown(), answer.header)
            also()

        self.print(answer.as_dict, answer.rows, list(answer.columns), text)

    def print(
        self,
        document: Callable[[], Mapping[str, Any]],
        rows: Callable[[], Iterable[Mapping[str, Any]]],
        columns: Sequence[str],
        text: Callable[[], None],
    ) -> None:
        """Print one of the three: the JSON document, the rows as CSV, or the text and the name of the sheet."""
        if self.json:
            print_json(document())
        elif self.csv:
            print_csv(rows(), columns)
        else:
            text()
            if self.out is not None:
                print_line(str(self.out))


def _report(lacking: str | None, missing: Sequence[str], of: int | None = None) -> None:
    if lacking:
        say(lacking)
    if missing:
        count = f"{len(missing)} of {of}" if of else f"{len(missing)}"
        say(f"{count} photograph{'' if (of or len(missing)) == 1 else 's'} could not be shown; {missing[0]}")


def print_labels(labels: UnitLabels, units: Iterable[OpenUnit]) -> None:
    """Print a note if the labels of these units come from the network's own predictions."""
    if labels.about["from"] == "predictions" and any(unit.label is not None for unit in units):
        from patchmine.labels.of_index import said

        print_line(f"labels: {said(labels.about)}")
