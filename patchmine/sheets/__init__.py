"""Contact sheets: a layout makes a page of an answer, `write` renders it in the format of the file name."""

from __future__ import annotations

import os
from pathlib import Path

from patchmine.errors import RequestError
from patchmine.sheets.page import Page

SUFFIXES = (".png", ".pdf", ".svg")


def check_target(target: Path) -> None:
    """Check, before any work, that a sheet can be written to this file. Raises RequestError."""
    if target.suffix.lower() not in SUFFIXES:
        suffixes = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise RequestError(f"{str(target)!r} is not a sheet: end its name in {suffixes}")
    if not Path(os.path.realpath(target)).parent.is_dir():
        raise RequestError(f"folder {str(target.parent)!r} not found: create it, or write {target.name} elsewhere")


def write(page: Page, target: Path) -> list[str]:
    """Write a page to a .png, .pdf or .svg file.

    Returns the photographs that could not be shown, each with the reason: their tiles show it too. Raises RequestError
    for another suffix or a missing folder.
    """
    check_target(target)
    if target.suffix.lower() == ".png":
        from patchmine.sheets.raster import write_png

        write_png(page, target)
    else:
        from patchmine.sheets.vector import write_vector

        write_vector(page, target)
    return page.missing
