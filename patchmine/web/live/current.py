"""The index that is served: opened again when it has changed on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Lock

from patchmine.errors import PatchmineError, StoreError
from patchmine.index import Index, open_index
from patchmine.kept.tight_crops import FOLDER
from patchmine.store.reading import ACTIVATIONS, MANIFEST, NAMES, SYNTHETIC
from patchmine.system import digests


class VanishedError(StoreError):
    """The index is not there any more, or cannot be read now."""


class Current:
    """The index in a directory as it is now. `version` changes whenever anything of it that a page shows does."""

    def __init__(
        self, directory: Path, source: str | None = None, model: str | None = None, weights: Path | None = None
    ) -> None:
        self._directory, self._source, self._named = directory, source, (model, weights)
        self._lock = Lock()
        self._index, self._stamp = self._opened(), self._stamped()

    @property
    def version(self) -> str:
        return digests.of_json([str(part) for part in self._stamp])[:12]

    def index(self) -> Index:
        """The index. Raises VanishedError, with the reason, while it cannot be opened."""
        with self._lock:
            try:
                stamp = self._stamped()
                if stamp != self._stamp:
                    index = self._opened()
                    if index.job == self._index.job:
                        index.share_network(self._index)
                    self._index, self._stamp = index, stamp
            except (OSError, PatchmineError) as error:
                self._stamp = ()
                reason = str(error) if isinstance(error, PatchmineError) else f"{self._directory} cannot be read"
                raise VanishedError(reason) from None
            return self._index

    def _opened(self) -> Index:
        index = open_index(self._directory, self._source)
        index.use(*self._named)
        return index

    def _stamped(self) -> tuple[object, ...]:
        return tuple(self._stamps())

    def _stamps(self) -> Iterator[object]:
        for name in (MANIFEST, ACTIVATIONS):
            status = (self._directory / name).stat()
            yield status.st_ino, status.st_mtime_ns, status.st_size
        tight = self._directory / FOLDER
        layers = sorted(tight.iterdir())[:1000] if tight.is_dir() else []
        for path in (self._directory / NAMES, self._directory / SYNTHETIC, *layers):
            yield (path.stat().st_mtime_ns if path.exists() else None)


__all__ = ["Current", "VanishedError"]
