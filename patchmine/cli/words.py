"""Fast conversion of the words of a command line.

Newer versions of Typer convert every word with pydantic, whose import alone takes half as long as that of Python, numpy
and h5py together. Most words are plain: text stays text, digits are a number. This module converts those and leaves
the others to Typer, which converts or refuses them as usual. It does nothing to a Typer without `get_runtime_param`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from typer.core import TyperCommand, TyperGroup

from patchmine.cli import errors
from patchmine.errors import nearest

# Checks beyond the type that an option can ask Typer for.
_CHECKS = ("parser", "click_type", "min", "max", "exists", "writable", "resolve_path", "path_type", "formats")

_NUMBERS = {int: "a whole number", float: "a number"}


class Command(TyperCommand):
    """A command that converts plain words without Typer and lists the installed kinds in its help."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _hastened(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except errors.UsageError as error:
            error.ctx = ctx  # click does not always say of which command
            raise

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from patchmine.cli.options import with_kinds

        for parameter in self.params:
            text = getattr(parameter, "help", None)
            if text:
                vars(parameter)["help"] = with_kinds(text)
        super().format_help(ctx, formatter)


class Group(TyperGroup):
    """All commands. Wrong usage of one is said in the line of every other error."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _hastened(super().get_params(ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"no command {args[0]!r}{nearest(args[0], self.commands)}")
        return super().resolve_command(ctx, args)

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with errors.usage_told():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with errors.usage_told():
            return super().invoke(ctx)


class _Plain(NamedTuple):
    """Replaces Typer's converter of one option, and calls it only for words that are not plain."""

    typer_own: Callable[[], Any]
    kind: Any
    empty: tuple[()] | None

    def coerce(self, value: Any, **context: Any) -> Any:
        if value is None:
            return self.empty
        found = _plain(value, self.kind)
        if found is not None:
            return found
        try:
            return self.typer_own().coerce(value, **context)
        except errors.UsageError as error:
            if self.kind in _NUMBERS:
                error.message = f"must be {_NUMBERS[self.kind]}, not {value!r}"
            raise


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
    """The value of a plain word; None if Typer has to convert it."""
    if type(value) is kind:
        return value
    if not isinstance(value, str):
        return None
    if kind is Path:
        return Path(value)  # Typer would refuse an unreadable file as wrong usage; whoever opens it knows the cause
    if kind is int and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    if kind is float and value.isascii() and value.replace(".", "", 1).isdigit():
        return float(value)
    return None
