"""The JSON API: the documents of `--json`, by unit and photograph number. `openapi` describes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from patchmine import defaults
from patchmine.errors import RequestError, UnitError, nearest
from patchmine.index import Index
from patchmine.reading.tables import in_order
from patchmine.units import Box, Unit
from patchmine.web.live import asking
from patchmine.web.live.asking import DROPPED, Asking
from patchmine.web.live.current import Current
from patchmine.web.live.jobs import Jobs
from patchmine.web.live.turns import Turns

MOST_K = 1000


class ForbiddenError(RequestError):
    """The server was not started for this."""


def document(content: Mapping[str, Any], status: int = 200) -> Response:
    """JSON as the command line writes it: bytes of a path that are not UTF-8 become \\udcXX escapes."""
    data = json.dumps(content, allow_nan=False).encode("ascii")
    return Response(data, status, {"cache-control": "no-cache"}, "application/json")


class Words:
    """The parameters of a request. Each method raises RequestError for a word that does not fit."""

    def __init__(self, request: Request) -> None:
        self._words = request.query_params

    def text(self, name: str) -> str | None:
        return self._words.get(name)

    def whole(self, name: str, default: int, most: int, least: int = 0) -> int:
        word = self._words.get(name)
        if word is None:
            return default
        if not (word.isascii() and word.isdigit() and len(word) < 10 and least <= int(word) <= most):
            raise RequestError(f"{name} must be a whole number from {least} to {most}, not {word!r}")
        return int(word)

    def number(self, name: str) -> float | None:
        word = self._words.get(name)
        try:
            return None if word is None else float(word)
        except ValueError:
            raise RequestError(f"{name} must be a number, not {word!r}") from None

    def truth(self, name: str) -> bool:
        word = self._words.get(name, "false")
        if word not in ("true", "false"):
            raise RequestError(f"{name} must be true or false, not {word!r}")
        return word == "true"

    def box(self) -> Box | None:
        text = self._words.get("box")
        if text is None:
            return None
        words = text.split(",")
        if len(words) != 4 or not all(word.isascii() and word.isdigit() and len(word) < 10 for word in words):
            raise RequestError(f"box must be left,top,right,bottom in pixels, such as 40,30,200,180, not {text!r}")
        return Box(*map(int, words))

    @property
    def k(self) -> int:
        return self.whole("k", defaults.K, MOST_K, 1)


def image_of(index: Index, number: int) -> int:
    """Raises UnitError for a photograph that the index does not have."""
    if not 0 <= number < len(index):
        raise UnitError(f"the index has no photograph {number}: its photographs are 0 to {len(index) - 1}")
    return number


class Api:
    """The answers to /api."""

    def __init__(self, current: Current, pages: Turns, asks: Asking, jobs: Jobs | None) -> None:
        self._current, self._pages, self._asks, self._jobs = current, pages, asks, jobs

    def units(self, request: Request) -> Response:
        """The document of `units --json`."""
        words, index = Words(request), self._current.index()
        layer = words.text("layer")
        if layer is not None:
            index.check_layer(layer)
        sort = words.text("sort")
        if sort is not None and sort not in defaults.SORTS:
            raise RequestError(f"unknown sort {sort!r}{nearest(sort, defaults.SORTS)}")
        found = index.units(layer, words.text("match"), words.text("label")).as_dict()
        return document(found if sort is None else {**found, "units": in_order(found["units"], sort)})

    def top(self, request: Request) -> Response:
        """The document of `top --json`."""
        words, index = Words(request), self._current.index()
        unit = index.unit(request.path_params["unit"], words.text("layer"))
        crop = words.text("crop") or "rf"
        defaults.check({"crop": crop})
        wish: dict[str, Any] = {
            "k": words.k,
            "pick": words.text("pick") or defaults.PICKS[0],
            "seed": words.whole("seed", 0, 10**9),
            "share": words.number("share"),
            "of_class": words.text("class"),
            "not_class": words.text("not_class"),
            "diverse": words.truth("diverse"),
        }
        # A tight crop that is not kept would be sought, with the network; `auto` shows only those that are.
        patches = unit.top(crop="auto" if crop == "tight" else crop, **wish)
        if crop == "tight" and not all(patch.cropped for patch in patches):
            raise RequestError(
                f"not all of these tight crops are kept: find them with patchmine tighten --unit {unit.unit}"
            )
        return document(patches.as_dict())

    async def similar(self, request: Request) -> Response:
        """The document of `similar --json`: of a unit, of a photograph of the index, or of the body of a POST."""
        words = Words(request)
        unit, box, layer, k = words.text("unit"), words.box(), words.text("layer"), words.k
        sent = await self._sent(request)
        index = await self._index(request)
        if request.method == "GET" and unit is not None:
            found = await self._pages.take(request, lambda _: index.similar(unit, box=box, layer=layer, k=k).as_dict())
            return document(found)
        return await self._asked(
            request,
            index,
            sent,
            lambda name, data: asking.similar(index, name, data, box, layer, k),
            "unit=U or image_id=N",
        )

    async def fires(self, request: Request) -> Response:
        """The document of `fires --json`: of a photograph of the index, or of the body of a POST."""
        words = Words(request)
        layer, k = words.text("layer"), words.k
        sent = await self._sent(request)
        index = await self._index(request)
        return await self._asked(
            request, index, sent, lambda name, data: asking.fires(index, name, data, layer, k), "image_id=N"
        )

    async def _sent(self, request: Request) -> bytes | None:
        """The photograph that a request brings, read before its first turn, which drops what comes of it."""
        return await self._asks.photograph(request) if request.method == "POST" else None

    async def _asked(
        self,
        request: Request,
        index: Index,
        sent: bytes | None,
        work: Callable[[str, bytes], dict[str, Any]],
        wanted: str,
    ) -> Response:
        words = Words(request)
        layer = words.text("layer")
        if layer is not None:
            index.check_layer(layer)
        if sent is not None:
            name, data = DROPPED, sent
        elif words.text("image_id") is None:
            raise RequestError(f"give {wanted}, or send a photograph by POST")
        else:
            image = image_of(index, words.whole("image_id", 0, 10**9 - 1))
            name, data = index.path(image), await self._pages.take(request, lambda _: index.photograph(image))
        return document(await self._asks.ask(request, index, lambda: work(name, data)))

    async def map(self, request: Request) -> Response:
        """A unit's activations on one photograph of the index."""
        words = Words(request)
        index = await self._index(request)
        unit = index.unit(request.path_params["unit"]).unit
        if words.text("image_id") is None:
            raise RequestError("give image_id=N")
        image = image_of(index, words.whole("image_id", 0, 10**9 - 1))
        return document(await self._asks.ask(request, index, lambda: self._asks.activation_map(index, unit, image)))

    def jobs(self, request: Request) -> Response:
        """GET: all work. POST: start some, of a kind on a unit."""
        jobs = self._allowed()
        if request.method == "GET":
            return document({"jobs": [job.as_dict() for job in jobs.all()]})
        words, index = Words(request), self._current.index()
        unit = words.text("unit")
        if unit is None:
            raise RequestError("give unit=U")
        return document(jobs.start(index, words.text("kind") or "", index.unit(unit).unit).as_dict(), 202)

    def job(self, request: Request) -> Response:
        """GET: how far one piece of work is. DELETE: stop it at its next step."""
        job = self._allowed().get(request.path_params["number"])
        if request.method == "DELETE":
            job.stop.set()
        return document(job.as_dict())

    async def _index(self, request: Request) -> Index:
        return await self._pages.take(request, lambda _: self._current.index())

    def _allowed(self) -> Jobs:
        if self._jobs is None:
            raise ForbiddenError("this server only reads: start it with patchmine serve --compute")
        return self._jobs


__all__ = ["Api", "ForbiddenError", "Unit", "Words", "document", "image_of"]
