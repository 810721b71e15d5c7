"""patchmine finds the patches of real photographs that drive a unit of a vision network hardest.

>>> import patchmine
>>> patchmine.build_index("photographs/")                       # doctest: +SKIP
>>> patches = patchmine.open_index("photographs.patchmine").unit("blocks.6:33").top(25)   # doctest: +SKIP
>>> patches[0].crop().save("best.png")                          # doctest: +SKIP

Importing this loads nothing heavy: each name is fetched from its module when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patchmine.errors import PatchmineError
    from patchmine.index import Index, open_index
    from patchmine.mining.build import build_index
    from patchmine.mining.merge import merge_indexes
    from patchmine.photographs.placement import Preprocessing
    from patchmine.reading.patch import Patch
    from patchmine.units import Box, Position, Unit

_HOMES = {
    "Box": "units",
    "Index": "index",
    "Patch": "reading.patch",
    "PatchmineError": "errors",
    "Position": "units",
    "Preprocessing": "photographs.placement",
    "Unit": "units",
    "build_index": "mining.build",
    "merge_indexes": "mining.merge",
    "open_index": "index",
}

__all__ = [
    "Box",
    "Index",
    "Patch",
    "PatchmineError",
    "Position",
    "Preprocessing",
    "Unit",
    "build_index",
    "merge_indexes",
    "open_index",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'patchmine' has no attribute {name!r}")
    return getattr(import_module(f"patchmine.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
