"""Where shards are computed. A module in this folder is a kind: it has `HELP` and `mine(task, todo)`.

`mine` computes the shards in `todo`, in any order and anywhere, and leaves each as a file in `task.shards`.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType


def kinds() -> dict[str, ModuleType]:
    """Every kind in this folder, by the name of its file."""
    names = [found.name for found in iter_modules(__path__) if found.name[0] != "_"]
    return {name: import_module(f"{__name__}.{name}") for name in names}
