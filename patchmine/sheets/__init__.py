"""Contact sheets: a layout makes a page of an answer, `write` renders it in the format of the file name."""

from __future__ import annotations

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


def write(page: Page, target: Path) -> list[str]:
    """Write a page to a .png, .pdf or .svg file, which appears whole; if it cannot, an older one stays as it was.

    Returns the photographs that could not be shown, each with the reason: their tiles show it too. Raises RequestError
    for another suffix, a missing folder, or a file that cannot be written.
    """
    check_target(target)
    kind = target.suffix.lower().removeprefix(".")
    if kind == "png":
        from patchmine.sheets.raster import png

        data = png(page)
    else:
        from patchmine.sheets.vector import vector

        data = vector(page, kind)
    atomic.deliver(target, data)
    return page.missing
