"""One call of an aten operator, as the rules see it, and the registry of the rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from patchmine.fields.reach import Reach, nothing


@dataclass(frozen=True, slots=True)
class Unknown:
    """Stands in for a reach that cannot be determined. Its reason is passed on to everything that uses it."""

    reason: str


Seen = Reach | Unknown | None
"""The state of a tensor: its reach, None for a constant, or Unknown with a reason."""


class NoRuleError(Exception):
    """A rule does not cover this call; the message says which part of it."""


class Call:
    """One call of an operator: its arguments by schema name, its outputs, and the reach of its inputs.

    No tensor argument is Unknown and at least one has a reach: other calls need no rule.
    """

    def __init__(
        self,
        func: torch._ops.OpOverload,
        arguments: dict[str, Any],
        outputs: Sequence[Tensor],
        reach_of: Callable[[Tensor], Reach | None],
    ) -> None:
        self.func = func
        self.name = plain_name(func)
        self.arguments = arguments
        self.outputs = outputs
        self.reach_of = reach_of

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        """An argument, or the default if it is None or this overload has no argument of that name."""
        value = self.arguments.get(name)
        return default if value is None else value

    @property
    def output(self) -> Tensor:
        return self.outputs[0]

    def reach(self, name: str) -> Reach | None:
        """The reach of an argument; None if it is a constant or absent."""
        tensor = self.arguments.get(name)
        return self.reach_of(tensor) if isinstance(tensor, Tensor) else None

    def some(self, name: str) -> Reach:
        """The reach of a tensor argument, or the reach of a constant if the argument is one."""
        return self.reach(name) or constant(self[name].ndim)

    def only(self, *names: str) -> None:
        """Raise NoRuleError if any argument other than these depends on the input."""
        for name, value in self.arguments.items():
            if name not in names and any(self.reach_of(tensor) is not None for tensor in tensors_in(value)):
                raise NoRuleError(f"its {name} depends on the input")

    def first(self, seen: Seen) -> list[Seen]:
        """This state for the first output; the other outputs become Unknown."""
        return [seen, *[Unknown(f"it comes from an additional output of {self.name}")] * (len(self.outputs) - 1)]


Rule = Callable[[Call], Seen | list[Seen]]
RULES: dict[str, Rule] = {}


AnyRule = TypeVar("AnyRule", bound=Rule)


def rule(names: str) -> Callable[[AnyRule], AnyRule]:
    """Register a rule for operators, named as in aten and separated by spaces; NAME.OVERLOAD registers one overload.

    A rule returns the reach of every tensor that the operator returns, in order, or of the only one.
    """

    def add(function: AnyRule) -> AnyRule:
        RULES.update(dict.fromkeys(names.split(), function))
        return function

    return add


def plain_name(func: torch._ops.OpOverload) -> str:
    """An operator's name; an in-place form has the name of the plain one. Namespaces other than aten are kept."""
    name = func._schema.name.removeprefix("aten::")
    return name if name.startswith("__") else name.removesuffix("_")


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in one argument of an operator."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [item for item in value if isinstance(item, Tensor)]
    return []


def constant(ndim: int) -> Reach:
    """The reach of a constant with `ndim` dims."""
    return Reach(nothing(ndim), nothing(ndim))


def dim_in(dim: int, ndim: int) -> int:
    return dim + ndim if dim < 0 else dim


def dims_in(dims: int | Sequence[int] | None, ndim: int) -> list[int]:
    """An operator's dims, made non-negative; None and the empty list mean all."""
    if isinstance(dims, int):
        dims = [dims]
    return sorted({dim_in(dim, ndim) for dim in dims}) if dims else list(range(ndim))


def listed(value: int | Sequence[int], count: int) -> list[int]:
    """An operator's int or list of ints, as a list with one entry per dim."""
    values = [value] if isinstance(value, int) else list(value)
    return values * count if len(values) == 1 else values
