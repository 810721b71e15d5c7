"""Kinds: the modules of a folder and those that other packages add to it. They are found by name and imported on use.

A folder of kinds (`sources`, `models`, `executors`, `engines`, `exports`) holds one module for each kind; a leading
underscore marks a helper, and others are hyphens in the name of the kind: `clip_dissect.py` is `clip-dissect`. Another
distribution adds a kind with an entry point in the group of that folder:

    [project.entry-points."patchmine.sources"]
    bucket = "their_package.bucket"

A plug-in is left out if it cannot be imported, lacks a part of the contract, or takes an existing name. One line on
stderr names its package, and everything else works.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from patchmine.errors import RequestError, nearest
from patchmine.system.printable import remark

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

K = TypeVar("K")


class Kinds(Generic[K]):
    """The kinds of one folder, by name. K is the protocol of a kind; `needs` are the names that it requires.

    Names are known without importing a kind; those of other packages come after the folder's own.
    """

    def __init__(self, group: str, needs: Sequence[str] = ()) -> None:
        self.group, self._needs = group, ("HELP", *needs)
        self._loaded: dict[str, K] = {}
        self._left_out: dict[str, str] = {}

    @cached_property
    def _path(self) -> list[str]:
        """The folder, found without importing its package."""
        spec = find_spec(self.group)
        assert spec is not None and spec.submodule_search_locations is not None
        return list(spec.submodule_search_locations)

    @cached_property
    def _own(self) -> tuple[str, ...]:
        files = (found.name for found in iter_modules(self._path))
        return tuple(sorted(name.replace("_", "-") for name in files if not name.startswith("_")))

    @cached_property
    def _foreign(self) -> Mapping[str, EntryPoint]:
        """The entry points of other packages; one whose name is taken is left out."""
        from importlib.metadata import entry_points  # not for every cold query

        found: dict[str, EntryPoint] = {}
        for point in sorted(entry_points(group=self.group), key=lambda point: (point.name, _package(point))):
            if point.name in self._own or point.name in found:
                owner = _package(found[point.name]) if point.name in found else "patchmine"
                remark(_left_out(point, f"{owner} already has a kind of that name"))
            else:
                found[point.name] = point
        return found

    @property
    def names(self) -> list[str]:
        """The names of all kinds, without importing any, except plug-ins that have failed to load."""
        return [name for name in (*self._own, *self._foreign) if name not in self._left_out]

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self.names

    def __iter__(self) -> Iterator[K]:
        """Every kind that loads, the folder's own first. Each is imported only when the loop reaches it."""
        for names in (lambda: self._own, lambda: tuple(self._foreign)):  # the second scans all packages
            for name in names():
                kind = self._load(name)
                if kind is not None:
                    yield kind

    def candidates(self, word: str) -> Iterator[K]:
        """The kinds that may claim a word, the folder's own first. One whose CLAIM does not match is not imported."""
        for names in (lambda: self._own, lambda: tuple(self._foreign)):
            for name in names():
                claim = self._literal(name, "CLAIM")
                kind = self._load(name) if claim is None or re.fullmatch(claim, word) else None
                if kind is not None:
                    yield kind

    def literals(self, constant: str) -> list[str]:
        """The values of a constant that the kinds assign in one plain line. Imports no kind."""
        found = [self._literal(name, constant) for name in self.names]
        return [value for value in found if value is not None]

    def check(self, name: str, option: str) -> None:
        """Refuse an unknown name without importing anything. Raises RequestError.

        `option` is the option that takes the name, such as `--engine`, or another word for the choice.
        """
        if name not in self._own and name not in self._foreign:
            raise RequestError(f"unknown {option} {name!r}{nearest(name, self.names)}")

    def get(self, name: str, option: str) -> K:
        """The kind of that name, imported. Raises RequestError if it is unknown or cannot be loaded; see `check`."""
        self.check(name, option)
        kind = self._load(name)
        if kind is None:
            raise RequestError(f"{option} {name} cannot be used: {self._left_out[name]}")
        return kind

    def find(self, name: str) -> K | None:
        """The kind of that name, imported; None if it is unknown or left out."""
        return self._load(name) if name in self else None

    def words(self) -> str:
        """The syntax of all kinds, for a help text: each HELP up to the first colon and space. Imports no kind."""
        return ", ".join(self.help(name).partition(": ")[0] for name in self.names)

    def help(self, name: str) -> str:
        """The HELP line of a kind. A plain string is read from the source, so that nothing is imported."""
        line = self._literal(name, "HELP")
        return getattr(self._load(name), "HELP", name) if line is None else line

    def _literal(self, name: str, constant: str) -> str | None:
        """The string that a kind assigns to a constant in one plain line, without importing it; else None."""
        if name in self._own:
            file: str | None = str(Path(self._path[0], f"{_module(name)}.py"))
        else:
            file = _file(self._foreign[name].module)
        return _literal(Path(file), constant) if file else None

    def _load(self, name: str) -> K | None:
        """The kind, imported once; None for a plug-in that is left out."""
        if name not in self._loaded and name not in self._left_out:
            if name in self._own:
                self._loaded[name] = cast(K, import_module(f"{self.group}.{_module(name)}"))
            else:
                self._load_foreign(self._foreign[name])
        return self._loaded.get(name)

    def _load_foreign(self, point: EntryPoint) -> None:
        try:
            kind = point.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - no error in a plug-in may stop patchmine
            reason = (str(error).splitlines() or [""])[0]
            self._leave_out(point, f"it fails to import ({type(error).__name__}{f': {reason}' if reason else ''})")
            return
        missing = [need for need in self._needs if not hasattr(kind, need)]
        if missing:
            self._leave_out(point, f"it has no {' and no '.join(missing)}")
        else:
            from patchmine.owncode import faults

            faults.plugins[getattr(kind, "__file__", "")] = f"the plug-in {point.name!r} of package {_package(point)}"
            self._loaded[point.name] = kind

    def _leave_out(self, point: EntryPoint, reason: str) -> None:
        self._left_out[point.name] = _left_out(point, reason)
        remark(self._left_out[point.name])


def _module(name: str) -> str:
    """The module of a kind of the folder's own."""
    return name.replace("-", "_")


def _left_out(point: EntryPoint, reason: str) -> str:
    return f"the plug-in {point.name!r} of package {_package(point)} is left out: {reason}"


def _file(module: str) -> str | None:
    """The file of a module, found without importing it; None if a package around it cannot be imported."""
    try:
        spec = find_spec(module)
    except (Exception, SystemExit):  # noqa: BLE001 - find_spec imports the packages around the module, whatever they raise
        return None
    return spec.origin if spec else None


def _package(point: EntryPoint) -> str:
    return repr(point.dist.name) if point.dist else repr(point.module)


def _literal(file: Path, name: str) -> str | None:
    """The string that a module assigns to a name in one plain line at its top level; None without such a line."""
    try:
        found = re.search(rf'^{name} = "([^"\\]*)"$', file.read_text("utf-8"), re.MULTILINE)
    except (OSError, ValueError):
        return None
    return found and found[1]
