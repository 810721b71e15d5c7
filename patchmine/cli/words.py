"""Words of the command line that become values at once.

Newer versions of Typer convert every word by pydantic, whose import alone takes half as long as Python, numpy and h5py
together. Most words are plain: text is text, digits are a number. Those are converted here; whatever is not plain is
left to Typer, which then converts or refuses it as ever. A Typer that does not know `get_runtime_param` is left alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.core import TyperCommand, TyperGroup

# What Typer would check beyond the type, where an option asks for it.
_CHECKS = ("parser", "click_type", "min", "max", "exists", "writable", "resolve_path", "path_type", "formats")


class Command(TyperCommand):
    """A command whose plain words become values at once, and whose help names the kinds that there are."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _hastened(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from patchmine.cli.options import with_kinds

        for parameter in self.params:
            text = getattr(parameter, "help", None)
            if text:
                vars(parameter)["help"] = with_kinds(text)
        super().format_help(ctx, formatter)


class Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return _hastened(super().get_params(ctx))


@dataclass(frozen=True)
class _Plain:
    """Stands in for what Typer converts the words of one option with, and asks for it only where it is needed."""

    typer_own: Callable[[], Any]
    kind: Any
    empty: tuple[()] | None

    def coerce(self, value: Any, **context: Any) -> Any:
        if value is None:
            return self.empty
        found = _plain(value, self.kind)
        return self.typer_own().coerce(value, **context) if found is None else found


def _hastened(parameters: Sequence[Any]) -> list[Any]:
    for parameter in parameters:
        own = getattr(parameter, "get_runtime_param", None)
        descriptor = getattr(parameter, "type_descriptor", None)
        done = "get_runtime_param" in vars(parameter)
        if done or own is None or descriptor is None or _checked(descriptor.parameter_info):
            continue
        several = parameter.multiple or parameter.nargs != 1
        plain = _Plain(own, None if several else descriptor.annotation, () if several else None)
        # In place, since Typer compares parameters by identity.
        parameter.get_runtime_param = lambda plain=plain: plain
    return list(parameters)


def _checked(wanted: Any) -> bool:
    asked = (getattr(wanted, name, None) for name in _CHECKS)
    # An upper bound of 0 is a check too.
    return any(check is not None and check is not False for check in asked) or not (
        getattr(wanted, "file_okay", True) and getattr(wanted, "dir_okay", True)
    )


def _plain(value: Any, kind: Any) -> Any:
    """The value that a plain word means, None where Typer had better look at it."""
    if type(value) is kind:
        return value
    if not isinstance(value, str):
        return None
    if kind is Path:
        return Path(value) if os.access(value, os.R_OK) or not os.path.exists(value) else None  # noqa: PTH110
    if kind is int and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    if kind is float and value.isascii() and value.replace(".", "", 1).isdigit():
        return float(value)
    return None
