"""Names of layers: the dotted name of a module, with an `@` for a part of what it returns.

`relu` is the last call of a module, `relu@1` its first. A call counts when it ends. `blocks.3` are the tokens on the
grid of a transformer's block, `blocks.3@cls` its class token, and `blocks.3@reg` its registers. `resolved` reads them.
Any other `LAYER@WORD` is a virtual layer: other units that are read from the output of that layer.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from patchmine.errors import ModelError
from patchmine.system.printable import printable

if TYPE_CHECKING:
    from torch import nn

MARK = "@"

TOKENS = {"cls": "class token", "reg": "registers"}
"""The tokens beside the grid, by the words that name them after an `@`; both words are reserved. Whatever stands in
front of the grid and is not the class token counts as a register, such as the distillation token of DeiT."""


class Resolved(NamedTuple):
    """What the name of a layer means: a call of a module, from 1 (None is the last), and of its output the tokens
    `cls` or `reg`, or else all that is on the grid."""

    module: str
    call: int | None = None
    tokens: str = ""


def resolved(layer: str, modules: Container[str]) -> Resolved:
    """What the name of a layer means in a network with these modules.

    A module whose own name ends with `@N` or `@cls` comes first. The module of an unknown name is the name itself.
    """
    name, _, word = layer.rpartition(MARK)
    if layer in modules or not name:
        return Resolved(layer)
    if word in TOKENS:
        inner = resolved(name, modules)
        if inner.module in modules and not inner.tokens:
            return inner._replace(tokens=word)
    if word.isdecimal() and name in modules:
        return Resolved(name, int(word))
    return Resolved(layer)


def read_from(layer: str, modules: Container[str]) -> str:
    """The layer that a virtual one, `LAYER@WORD`, is read from; for any other name the name itself."""
    name, _, word = layer.rpartition(MARK)
    if resolved(layer, modules).module in modules or not name or word.isdecimal():
        return layer
    return name if resolved(name, modules).module in modules else layer


def module_and_call(layer: str, modules: Container[str]) -> tuple[str, int | None]:
    """The module and the call, as `resolved` has them, of a layer or of the one that a virtual layer is read from."""
    return resolved(read_from(layer, modules), modules)[:2]


def without_tokens(layer: str) -> str:
    """The name of a layer without the word for tokens beside the grid."""
    name, _, word = layer.rpartition(MARK)
    return name if name and word in TOKENS else layer


def name_of(module: str, call: int, calls: int, tokens: str = "") -> str:
    """The name of one of the calls of a module, or of tokens beside the grid in what it returns."""
    name = module if call == calls else f"{module}{MARK}{call}"
    return f"{name}{MARK}{tokens}" if tokens else name


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
