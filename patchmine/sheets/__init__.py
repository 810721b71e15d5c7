"""Contact sheets: a layout makes a page, a renderer draws it in the format that the file's name asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from patchmine import defaults
from patchmine.errors import RequestError
from patchmine.questions.compare import Comparison
from patchmine.questions.fires import Fires
from patchmine.questions.similar import Similar
from patchmine.reading.opened import Cropping, Index, IndexedUnit, Patches
from patchmine.sheets.layouts.bands import spectrum_page
from patchmine.sheets.layouts.compare import compare_page
from patchmine.sheets.layouts.fires import fires_page
from patchmine.sheets.layouts.grid import grid_page
from patchmine.sheets.layouts.pairs import pairs_page, zeiler_page
from patchmine.sheets.layouts.similar import similar_page
from patchmine.sheets.layouts.strips import strips_page
from patchmine.sheets.page import Page

if TYPE_CHECKING:
    from patchmine.questions.project import Projector

SUFFIXES = (".png", ".pdf", ".svg")


def check_target(target: Path) -> None:
    """Refuse before any work what could not be written. Raises RequestError."""
    if target.suffix.lower() not in SUFFIXES:
        raise RequestError(f"{str(target)!r} is no sheet: end its name in {', '.join(SUFFIXES)}")
    if not target.resolve().parent.is_dir():
        raise RequestError(f"there is no folder {str(target.parent)!r} to put {target.name} in")


def draw_sheet(
    unit: IndexedUnit,
    patches: Patches,
    target: Path,
    *,
    pick: str,
    cropping: Cropping,
    projector: Projector | None = None,
) -> list[str]:
    """Write the contact sheet of one unit's patches to a .png, .pdf or .svg: those of `spectrum` in strips, a strip for
    each band of its range, and others in a grid.

    With a projector each patch has its projection beside it. Raises RequestError for another suffix or a missing
    folder, and what the projector raises. A photograph that can no longer be read, or is another one now, gets a tile
    that says so and is in what is returned, with the reason.
    """
    check_target(target)
    if projector is not None:
        page = pairs_page(unit, patches, projector, pick=pick, cropping=cropping)
    elif pick == "spectrum":
        page = spectrum_page(unit, patches, cropping=cropping)
    else:
        page = grid_page(unit, patches, pick=pick, cropping=cropping)
    render(page, target)
    return page.missing


def draw_strips(
    units: Sequence[IndexedUnit], target: Path, *, k: int, crop: str, share: float = defaults.SHARE
) -> list[str]:
    """Write a sheet with a row of the top k patches for each unit; otherwise as `draw_sheet`."""
    check_target(target)
    page = strips_page(units, k, crop=crop, share=share)
    render(page, target)
    return page.missing


def draw_zeiler(
    units: Sequence[IndexedUnit], target: Path, projector: Projector, *, crop: str, share: float = defaults.SHARE
) -> list[str]:
    """Write a sheet with nine projections beside their nine patches for each unit; otherwise as `draw_sheet`."""
    check_target(target)
    page = zeiler_page(units, projector, crop=crop, share=share)
    render(page, target)
    return page.missing


def draw_similar(index: Index, found: Similar, target: Path, cropping: Cropping) -> list[str]:
    """Write a sheet of what is similar; otherwise as `draw_sheet`."""
    check_target(target)
    page = similar_page(index, found, cropping)
    render(page, target)
    return page.missing


def draw_fires(index: Index, found: Fires, target: Path, *, crop: str, share: float = defaults.SHARE) -> list[str]:
    """Write a sheet of the units that a photograph drives, beside their best patches; otherwise as `draw_sheet`."""
    check_target(target)
    page = fires_page(index, found, crop=crop, share=share)
    render(page, target)
    return page.missing


def draw_compare(found: Comparison, target: Path) -> list[str]:
    """Write a sheet of synthetic images beside the real patches; otherwise as `draw_sheet`."""
    check_target(target)
    page = compare_page(found)
    render(page, target)
    return page.missing


def render(page: Page, target: Path) -> None:
    if target.suffix.lower() == ".png":
        from patchmine.sheets.raster import write_png

        write_png(page, target)
    else:
        from patchmine.sheets.vector import write_vector

        write_vector(page, target)
