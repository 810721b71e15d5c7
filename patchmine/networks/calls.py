"""Names of layers: the dotted name of a module, or `NAME@N` for one call of a module that is called several times.

`relu` is the last call of a module, `relu@1` its first. A call counts when it ends. `LAYER@WORD` is a virtual layer:
other units that are read from the output of that layer.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any

from patchmine.errors import ModelError
from patchmine.system.printable import printable

if TYPE_CHECKING:
    from torch import nn

MARK = "@"


def module_and_call(layer: str, modules: Container[str]) -> tuple[str, int | None]:
    """The module and the call, from 1, that the name of a layer means; None is the last call.

    A module whose own name ends with `@N` comes first. The module of an unknown name is the name itself. A virtual
    layer `LAYER@WORD` is read from what LAYER means.
    """
    name, mark, word = layer.rpartition(MARK)
    if layer in modules or not mark:
        return layer, None
    if word.isdecimal():
        return (name, int(word)) if name in modules else (layer, None)
    found, call = module_and_call(name, modules)
    return (found, call) if found in modules else (layer, None)


def name_of(module: str, call: int, calls: int) -> str:
    """The name of one of the calls of a module."""
    return module if call == calls else f"{module}{MARK}{call}"


def storable(layer: str) -> bool:
    """Whether an index can hold a layer of that name: it becomes a path of groups in an HDF5 file, and is printed."""
    return printable(layer) == layer and not {"", ".", ".."} & set(layer.split("/"))


def as_dict(call: int, calls: int) -> dict[str, int]:
    """Which of the calls of a module a layer is, for JSON; empty for the only one."""
    return {"call": call, "calls": calls} if calls > 1 else {}


def of_dict(layer: Mapping[str, Any]) -> tuple[int, int]:
    """The call and the number of calls in a document that `as_dict` is part of."""
    return layer.get("call", 1), layer.get("calls", 1)


def described(call: int, calls: int) -> str:
    """Which of the calls of a module a layer is, in words; empty for the only one."""
    if calls == 1:
        return ""
    return f"last of {calls} calls" if call == calls else f"call {call} of {calls}"


def no_such_call(layer: str, module: str, calls: int) -> ModelError:
    """The error for a layer whose module is called less often, or never."""
    if not calls:
        return ModelError(f"layer {layer!r} is never called in a forward pass in eval mode: choose another layer")
    names = [name_of(module, call, calls) for call in range(1, calls + 1)]
    times = "once" if calls == 1 else f"{calls} times"
    shown = names if len(names) <= 4 else [names[0], "...", names[-2], names[-1]]
    return ModelError(f"layer {layer!r}: {module} is called {times}, so choose from {', '.join(shown)}")


def aliases(module: nn.Module) -> dict[str, str]:
    """The further names of modules that are registered under several names, with the name that patchmine uses."""
    used = {part: name for name, part in module.named_modules()}
    return {name: used[part] for name, part in module.named_modules(remove_duplicate=False) if used[part] != name}
