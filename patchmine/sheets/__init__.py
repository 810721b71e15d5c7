"""Contact sheets: a layout makes a page of an answer, `write` renders it in the format of the file name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from patchmine.errors import RequestError
from patchmine.sheets.page import Page
from patchmine.system import atomic

SUFFIXES = (".png", ".pdf", ".svg")


def check_target(target: Path) -> None:
    """Check, before any work, that a sheet can be written to this file. Raises RequestError."""
    if target.suffix.lower() not in SUFFIXES:
        suffixes = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise RequestError(f"{str(target)!r} is not a sheet: end its name in {suffixes}")
    atomic.check_target(target)


def write(page: Page, target: Path, dpi: int | None = None) -> list[str]:
    """Write a page to a .png, .pdf or .svg file, which appears whole; if it cannot, an older one stays as it was.

    `dpi` is the resolution of a PNG (200 unless given); in a PDF or SVG it is the most that photographs keep.

    Returns the photographs that could not be shown, each with the reason: their tiles show it too. Raises RequestError
    for another suffix, a missing folder, or a file that cannot be written.
    """
    check_target(target)
    kind = target.suffix.lower()
    if kind == ".pdf":
        write_document(lambda: [page], target, dpi)
    elif kind == ".png":
        from patchmine.sheets.raster import png

        atomic.deliver(target, png(page) if dpi is None else png(page, dpi))
    else:
        from patchmine.sheets.svg import svg

        atomic.deliver(target, svg(page, dpi))
    return page.missing


def write_document(
    pages: Callable[[], Iterable[Page]], target: Path, dpi: int | None = None, lossless: bool = True
) -> None:
    """Write pages to a .pdf file, each as it is drawn; otherwise like `write`. `pages` draws them, again if need be.

    Photographs are compressed without loss, or else as JPEG.
    """
    from patchmine.sheets.pdf import pdf

    def pieces() -> Iterator[bytes]:
        return pdf(pages(), dpi, lossless)

    atomic.deliver(target, pieces)
