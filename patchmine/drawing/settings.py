"""matplotlib with its own defaults, whatever the user's session, matplotlibrc or environment asks for."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

_PRINTED: dict[str, Any] = {"precision": 8, "threshold": 1000, "edgeitems": 3, "legacy": False, "formatter": None}
"""numpy's defaults: matplotlib derives the ids in an SVG from arrays in print."""


@contextmanager
def own_settings(changes: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Inside the block matplotlib has its defaults, with these changes; afterwards all is as it was."""
    _import_matplotlib()
    import matplotlib as mpl

    with _quiet(), mpl.rc_context(), _environment(SOURCE_DATE_EPOCH=None), np.printoptions(**_PRINTED):
        mpl.rcdefaults()
        settings: Any = mpl.rcParams
        settings.update(changes or {})
        yield


def system_fonts() -> list[Path]:
    """The files of all fonts of the system, as matplotlib finds them without fontconfig."""
    _import_matplotlib()
    with _quiet():
        from matplotlib.font_manager import findSystemFonts

        return [Path(file) for file in sorted(findSystemFonts())]


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside the block matplotlib does not tell what is wrong with the user's settings: our page needs none."""
    logger = logging.getLogger("matplotlib")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _import_matplotlib() -> None:
    """Import it, also where a notebook's MPLBACKEND is not installed or a matplotlibrc cannot be read."""
    if "matplotlib" in sys.modules:
        return
    backend = os.environ.get("MPLBACKEND")
    with _quiet(), _environment(MPLBACKEND=None):
        try:
            import matplotlib as mpl
        except (OSError, ValueError):
            for name in [name for name in sys.modules if name.startswith("matplotlib")]:
                del sys.modules[name]  # they are half made
            with _environment(MATPLOTLIBRC=os.devnull):
                import matplotlib as mpl
    if backend:
        with suppress(ValueError):
            mpl.rcParams["backend"] = backend  # what the user's own figures will need


@contextmanager
def _environment(**changes: str | None) -> Iterator[None]:
    """Inside the block these variables have these values; None for a variable that is not set."""
    before = {name: os.environ.pop(name, None) for name in changes}
    os.environ.update({name: value for name, value in changes.items() if value is not None})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
