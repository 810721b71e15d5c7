"""The network of an index, loaded when a question first needs it and remembered."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from patchmine.store.job import Job
from patchmine.system.progress import Progress, Silent

if TYPE_CHECKING:
    from patchmine.networks.network import Network

Loading = Callable[[], AbstractContextManager[None]]
Watching = Callable[[], AbstractContextManager[Progress]]


class AskedNetwork:
    """The network that a job was done with, by the name that the user gave it, for the index in a directory."""

    def __init__(self, job: Job, directory: Path) -> None:
        self._job, self._directory = job, directory
        self._network: Network | None = None
        self._named: tuple[str | None, Path | None] = (None, None)  # model and weights that loaded
        self._asked: tuple[str | None, Path | None] = self._named
        self._loading: Loading = nullcontext
        self.watching: Watching = lambda: nullcontext(Silent())

    def use(
        self,
        model: str | None = None,
        weights: str | Path | None = None,
        loading: Loading | None = None,
        watching: Watching | None = None,
    ) -> None:
        """Take over what is not None; nothing is loaded yet. See `OpenIndex.use`."""
        self._asked = (model or self._asked[0], self._asked[1] if weights is None else Path(weights))
        self._loading = loading or self._loading
        self.watching = watching or self.watching

    def load(self) -> Network:
        """The network, prepared as it was when the index was built.

        Raises ModelError and StoreError as `models.load_for_index` does; what the user named then is forgotten.
        """
        if self._network is None or self._asked != self._named:
            asked, self._asked = self._asked, self._named
            with self._loading():
                from patchmine.models import load_for_index
                from patchmine.networks.directions import of_index

                self._network = of_index(load_for_index(self._job, *asked), self._job.directions, self._directory)
            self._asked = self._named = asked
        return self._network
