"""Questions that need the network, one at a time in a thread of its own: a photograph dropped on a page, a map.

torch is imported with the first question.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from patchmine.errors import RequestError
from patchmine.index import Index
from patchmine.photographs.upright import opened
from patchmine.units import Box, Unit
from patchmine.web.live.turns import GoneError, Turns

MOST_BYTES = 32 << 20
"""The largest photograph that is taken, in bytes."""

MOST_PIXELS = 64_000_000
"""The largest photograph that is taken, in pixels."""

WAITING = 8
"""Questions that may wait for their turn."""

DROPPED = "photograph"
"""What answers call a dropped photograph, whose name is not known."""

T = TypeVar("T")


class BusyError(RequestError):
    """Too many questions wait already."""


class TooLargeError(RequestError):
    """More bytes or pixels than are taken."""


class Asking:
    """One thread that asks the network, and the few questions that wait for it."""

    def __init__(self) -> None:
        self.turns = Turns(1, "asking")
        self._waiting = 0
        self._maps: OrderedDict[tuple[str, str, Unit], dict[str, Any]] = OrderedDict()
        self.loading = Lock()  # the network is loaded once, whoever needs it first

    async def photograph(self, request: Request) -> bytes:
        """The photograph that a request sends. Raises TooLargeError, PhotographError, GoneError, and BusyError before
        reading."""
        self._check()
        self._waiting += 1
        try:
            data = bytearray()
            async for chunk in request.stream():
                data += chunk
                if len(data) > MOST_BYTES:
                    raise TooLargeError(f"the photograph has more than {MOST_BYTES >> 20} MiB: send a smaller one")
        except ClientDisconnect:
            raise GoneError("the browser went away while it sent a photograph") from None
        finally:
            self._waiting -= 1
        header = opened(bytes(data))
        if header.width * header.height > MOST_PIXELS:
            raise TooLargeError(
                f"the photograph has {header.width}x{header.height} pixels: send one of at most {MOST_PIXELS:,}"
            )
        return bytes(data)

    async def ask(self, request: Request, index: Index, work: Callable[[], T]) -> T:
        """The result of work with the network, in its turn. A question whose browser goes away loses its turn.

        Raises BusyError, and as `Turns.take`.
        """
        self._check()

        def done() -> T:
            with self.loading:
                index.network()
            return work()

        self._waiting += 1
        try:
            return await self.turns.take(request, lambda _: done())
        finally:
            self._waiting -= 1

    def _check(self) -> None:
        if self._waiting >= WAITING:
            raise BusyError("too many photographs wait for the network: try again in a moment")

    def activation_map(self, index: Index, unit: Unit, image: int) -> dict[str, Any]:
        """A unit's activations on one photograph of the index: rows of its grid, and the part of the photograph, in
        source pixels, that the grid's cells share evenly."""
        from patchmine.questions.look import look

        key = (index.job.digest, index.digest(image), unit)
        if key not in self._maps:
            sight = look(index, index.path(image), [unit.layer], data=index.photograph(image))
            placement = sight.placement
            values = sight.maps[unit.layer][unit.channel]
            self._maps[key] = {
                "unit": index.unit(unit).as_dict(),
                "image_id": image,
                "grid": list(values.shape),
                "values": [[_finite(value) for value in row] for row in values.tolist()],
                "box": placement.to_source(Box(0, 0, *placement.input)).as_dict(),
            }
            while len(self._maps) > 256:
                self._maps.popitem(last=False)
        return self._maps[key]


def fires(index: Index, name: str, data: bytes, layer: str | None, k: int) -> dict[str, Any]:
    """The document of `fires --json`. Raises what `questions.fires.fires` raises."""
    from patchmine.questions.fires import fires

    return fires(index, name, layer=layer, k=k, data=data).as_dict()


def similar(index: Index, name: str, data: bytes, box: Box | None, layer: str | None, k: int) -> dict[str, Any]:
    """The document of `similar --json` for a photograph. Raises what `similar_to_photograph` raises."""
    from patchmine.questions.similar import Wish, similar_to_photograph

    return similar_to_photograph(index, name, Wish(k), lambda _: None, box, layer, data).as_dict()


def _finite(value: float) -> float | None:
    return value if value - value == 0 else None


__all__ = ["DROPPED", "Asking", "BusyError", "TooLargeError", "fires", "similar"]
