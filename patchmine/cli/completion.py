"""Shell completion of units, layers and names, read from the index of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patchmine.index import Index


def layers(ctx: Any, incomplete: str) -> list[str]:
    opened = _index(ctx)
    return [layer for layer in opened.layers if layer.startswith(incomplete)] if opened else []


def units(ctx: Any, incomplete: str) -> list[str]:
    """Names, or `LAYER:CHANNEL` once the word has a colon. Names with control characters are left out."""
    from patchmine.errors import PatchmineError
    from patchmine.system.printable import printable

    opened = _index(ctx)
    try:
        words = _words(opened, ctx.params.get("layer"), ":" in incomplete) if opened else iter(())
        return sorted({word for word in words if word.startswith(incomplete) and printable(word) == word})
    except PatchmineError:
        return []


def _words(index: Index, layer: str | None, canonical: bool) -> Iterator[str]:
    for unit in index.units(layer):
        yield str(unit.unit) if canonical else unit.name


def _index(ctx: Any) -> Index | None:
    """The index of the command line; None if it cannot be opened, because a completion cannot report an error."""
    from patchmine.errors import PatchmineError
    from patchmine.index import open_index

    try:
        return open_index(ctx.params.get("index"))
    except (PatchmineError, OSError):
        return None
