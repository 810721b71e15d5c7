"""What the shell offers for a unit, a layer or a name: read from the index that the line means."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patchmine.index import Index


def layers(ctx: Any, incomplete: str) -> list[str]:
    opened = _index(ctx)
    return [layer for layer in opened.layers if layer.startswith(incomplete)] if opened else []


def units(ctx: Any, incomplete: str) -> list[str]:
    """Names, or `LAYER:CHANNEL` once the word has a colon. Control characters are nothing for a shell."""
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
    """None where there is no index, or it is refused: the shell is no place for an error."""
    from patchmine.errors import PatchmineError
    from patchmine.index import open_index

    try:
        return open_index(ctx.params.get("index"))
    except (PatchmineError, OSError):
        return None
