"""Loads a Python file of the user's own as `python FILE.py` and `import FILE` do, and leaves nothing in the way.

While the file runs, its folder stands first on sys.path, sys.argv holds the file alone, and `__main__` is the file, so
that classes pickled by a script are found. A file with relative imports is a module of the package around it.

A neighbor may have a name that the standard library or an installed package has. The user's files then import the
neighbor, as in Python; all other code imports the library.

Afterwards sys.path, sys.argv, the working directory and every name that a library has are as before. Modules with other
names stay in sys.modules, because pickle, dataclasses and imports inside a forward look there.
"""

from __future__ import annotations

import ast
import builtins
import io
import os
import sys
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module, invalidate_caches
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import decode_source, module_from_spec, spec_from_loader
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from patchmine.system import digests

scripts: list[Script] = []
"""Those of this process, the latest first; one that failed has no module."""


class Script:
    """One file of the user's own with the modules beside it."""

    def __init__(self, file: Path) -> None:
        self.file = str(file.absolute())
        self.module: ModuleType | None = None
        self.modules: dict[str, ModuleType] = {}
        """All modules of the user's that it has imported, by name."""
        real = file.resolve()
        upwards = _levels(real)
        packages = next(i for i, folder in enumerate(real.parents) if not (folder / "__init__.py").is_file())
        self.package = ".".join(folder.name for folder in reversed(real.parents[: max(upwards, packages)]))
        folders = [str(real.parent), str(real.parents[max(upwards, packages)])]
        if upwards:
            folders.reverse()
        else:
            self.package = ""
        self.folders = list(dict.fromkeys(folders))
        """The folder that stands first on sys.path while the file runs, then those at its end."""
        self._libraries: list[str] = []
        self._clashing: set[str] = set()
        self._taken: set[str] = set()
        self._aside: dict[str, ModuleType] = {}
        self._in_view = False

    def run(self) -> ModuleType:
        """Run the file, or return its module if it has run already. Within `seen` only; raises whatever it raises."""
        if self.module is not None:
            return self.module
        stem = Path(self.file).stem
        if self.package:
            self.module = import_module(f"{self.package}.{stem}")
        else:
            name = stem if stem.isidentifier() and stem not in self._taken else f"patchmine_model_{stem}"
            loader = SourceFileLoader(name, self.file)
            spec = spec_from_loader(name, loader)
            assert spec is not None
            self.module = sys.modules[name] = sys.modules["__main__"] = module_from_spec(spec)
            loader.exec_module(self.module)
        sys.modules["__main__"] = self.module
        return self.module

    @contextmanager
    def seen(self) -> Iterator[None]:
        """Inside the block imports find the files beside the script. If the block fails, its modules are forgotten."""
        for script in scripts:
            script._leave()
        scripts[:] = [self, *(script for script in scripts if script is not self)]
        invalidate_caches()
        path, argv, folder = list(sys.path), list(sys.argv), Path.cwd()
        main, importing = sys.modules["__main__"], builtins.__import__
        self._look_around()
        before = {_top(name) for name in sys.modules} - self._clashing
        self._aside = {name: module for name, module in self.modules.items() if _top(name) in self._clashing}
        sys.modules.update({name: module for name, module in self.modules.items() if name not in self._aside})
        sys.path[:] = [self.folders[0], *sys.path, *self.folders[1:]]
        sys.argv[:] = [self.file]
        sys.modules["__main__"] = self.module or main
        self._turn()
        builtins.__import__ = self._importing(importing)
        try:
            yield
        except BaseException:
            self.module = None
            raise
        finally:
            builtins.__import__ = importing
            added = [_absolute(entry) for entry in sys.path if entry not in path]
            self.folders += [entry for entry in added if entry not in self.folders]
            self.modules = {n: m for n, m in sys.modules.items() if _top(n) not in before and self._holds(m)}
            self._turn()
            sys.modules["__main__"], sys.path[:], sys.argv[:] = main, path, argv
            os.chdir(folder)
            if self.module is None:
                self._leave()
                self.modules = {}
            if _BESIDE not in sys.meta_path:
                sys.meta_path.append(_BESIDE)

    def owns(self, file: str | None) -> bool:
        """Whether a file belongs to the script: it lies beside it, but not in a folder of libraries such as a .venv."""
        return file == self.file or (
            file is not None and _depth(file, self.folders) > _depth(file, map(_absolute, self._libraries))
        )

    def digest(self) -> str:
        """A digest of the code of the modules, without comments and blank lines, wherever they lie."""
        files = {}
        for name, module in self.modules.items():
            if module.__file__ is not None:
                inside = name.removeprefix(self.package) if self.package else name
                files["" if module is self.module else inside] = _code_digest(Path(module.__file__))
        return digests.of_json(files)

    def _holds(self, module: ModuleType) -> bool:
        file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
        return self.owns(file)

    def _leave(self) -> None:
        """Take the modules out of sys.modules."""
        for name, module in self.modules.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]

    def _look_around(self) -> None:
        """Find the modules beside the script that have the name of a library, and the names that mean the library."""
        self._libraries = [entry for entry in sys.path if _absolute(entry) not in self.folders]
        clashing = {
            found.name
            for found in iter_modules(self.folders[:1])
            if found.name in sys.stdlib_module_names
            or found.name in sys.modules
            or PathFinder.find_spec(found.name, self._libraries) is not None
        }
        # torch cannot be loaded a second time. And a file called timm.py that imports timm means the library, although
        # Python would give it itself.
        own = set() if self.package else {Path(self.file).stem}
        self._taken = clashing & ({name for name in clashing if _is_installed(sys.modules.get(name))} | own)
        self._clashing = clashing - self._taken

    def _turn(self) -> None:
        """Exchange the modules that have the name of a library for that library, or the other way round."""
        now = {name: module for name, module in sys.modules.items() if _top(name) in self._clashing}
        for name in now:
            del sys.modules[name]
        sys.modules.update(self._aside)
        self._aside, self._in_view = now, not self._in_view

    @contextmanager
    def _view(self, wanted: bool) -> Iterator[None]:
        """Inside the block the neighbors come before the libraries, or after them."""
        if wanted == self._in_view:
            yield
            return
        path = list(sys.path)
        sys.path.sort(key=lambda entry: (entry in self._libraries) == wanted)
        self._turn()
        try:
            yield
        finally:
            self._turn()
            sys.path[:] = path

    def _importing(self, real: Any) -> Any:
        """The `__import__` that shows the neighbors to the user's files, and the libraries to all other code."""

        def importing(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
            own = globals is not None and self.owns(globals.get("__file__")) and _top(name) not in self._taken
            with self._view(own):
                return real(name, globals, locals, fromlist, level)

        return importing


class _Beside(MetaPathFinder):
    """Finds the files beside scripts after all other finders, for imports inside a forward."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or any(script._in_view for script in scripts):
            return None
        return PathFinder.find_spec(name, [folder for script in scripts if script.module for folder in script.folders])


_BESIDE = _Beside()


def _absolute(entry: str) -> str:
    """An entry of sys.path as the files of its modules begin."""
    return str(Path(entry).absolute())


def _is_installed(module: ModuleType | None) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


def _top(name: str) -> str:
    return name.partition(".")[0]


def _depth(file: str, folders: Iterable[str]) -> int:
    """The length of the longest of the folders around the file; 0 if there is none."""
    return max((len(folder) for folder in folders if file.startswith(folder.rstrip(os.sep) + os.sep)), default=0)


def _levels(file: Path) -> int:
    """How many folders above it the relative imports of a file reach; 0 without any."""
    try:
        nodes = ast.walk(ast.parse(file.read_bytes()))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):  # running the file reports it
        return 0
    return max((node.level for node in nodes if isinstance(node, ast.ImportFrom)), default=0)


def _code_digest(file: Path) -> str:
    """The digest of a module's source without comments and blank lines, or of its bytes if it is not sound source."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:  # since it was imported
        return ""
    try:
        code = _without_comments(decode_source(data))
    except (SyntaxError, ValueError, tokenize.TokenError):
        return digests.of_bytes(data)
    return digests.of_bytes(code.encode("utf-8", "surrogatepass"))


def _without_comments(source: str) -> str:
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    return "\n".join(line.rstrip() for line in lines if line.strip())
