"""The application: pages, pictures and the API over one index."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from patchmine.errors import PatchmineError, RequestError, SourceError, StoreError, UnitError
from patchmine.system import digests
from patchmine.system.printable import printable
from patchmine.units import Position
from patchmine.web import facts, pages, pictures
from patchmine.web.live.api import Api, ForbiddenError, document, image_of
from patchmine.web.live.asking import Asking, BusyError, TooLargeError
from patchmine.web.live.current import Current, VanishedError
from patchmine.web.live.guard import Guard
from patchmine.web.live.jobs import Jobs
from patchmine.web.live.openapi import description
from patchmine.web.live.turns import Check, EndingError, Turns

MEDIA = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}

STATUS: tuple[tuple[type[PatchmineError], int], ...] = (
    (VanishedError, 503),
    (EndingError, 503),
    (BusyError, 429),
    (TooLargeError, 413),
    (ForbiddenError, 403),
    (UnitError, 404),
    (RequestError, 400),
    (SourceError, 404),
    (StoreError, 409),
    (PatchmineError, 409),
)


class Application:
    """The application behind its guard. `compute` lets pages start work that writes into the index.

    Pages and pictures have threads of their own, so that a page never waits behind the pictures of another one.
    """

    def __init__(
        self, current: Current, host: str = "127.0.0.1", token: str | None = None, compute: bool = False
    ) -> None:
        self._current, self._compute = current, compute
        cores = os.cpu_count() or 1
        self._pages, self._pictures = Turns(cores + 2, "pages"), Turns(cores, "pictures")
        self._asks = Asking()
        self._turns = (self._pages, self._pictures, self._asks.turns)
        self._jobs = Jobs(self._asks.loading) if compute else None
        self._kept = pictures.Kept()
        handlers: Any = {PatchmineError: self._refused, HTTPException: self._refused_by_route}
        self._guarded = Guard(Starlette(routes=self._routes(), exception_handlers=handlers), host, token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._guarded(scope, receive, send)

    def close(self) -> None:
        """Begin nothing more. Answers that are under way are finished; jobs stop at their next step."""
        for turns in self._turns:
            turns.close()
        if self._jobs is not None:
            self._jobs.close()

    def give_up(self) -> None:
        """Tell all who still wait that the server ends."""
        for turns in self._turns:
            turns.give_up()

    def ended(self) -> bool:
        """Wait for what a stopped job keeps. Returns whether all other threads have ended too."""
        if self._jobs is not None:
            self._jobs.join()
        return not any(turns.busy for turns in self._turns)

    def _routes(self) -> list[Route]:
        api = Api(self._current, self._pages, self._asks, self._jobs)

        def page(path: str, handler: Callable[[Request], Response], methods: Sequence[str] = ("GET",)) -> Route:
            async def answer(request: Request) -> Response:
                return await self._pages.take(request, lambda _: handler(request))

            return Route(path, answer, methods=list(methods))

        def picture(path: str, handler: Callable[[Request, Check], Response]) -> Route:
            async def answer(request: Request) -> Response:
                return await self._pictures.take(request, lambda check: handler(request, check))

            return Route(path, answer)

        return [
            page("/", self._network),
            page("/layers/{layer:path}", self._layer),
            page("/units/{unit:path}", self._unit),
            page("/nearest/{unit:path}", self._nearest),
            page("/search.js", self._search),
            page("/static/{name}", self._static),
            picture("/strips/{layer:path}/{block:int}.jpg", self._strips),
            picture("/crops/{layer:path}/{channel:int}/{crop}/{image:int}/{y:int}/{x:int}/{px:int}", self._crop),
            picture("/photographs/{image:int}.jpg", self._photograph),
            page("/synthetic/{unit:path}.png", self._synthetic),
            page("/openapi.json", lambda _: document(description(self._compute))),
            page("/api/units", api.units),
            page("/api/units/{unit:path}/top", api.top),
            Route("/api/units/{unit:path}/map", api.map),
            Route("/api/similar", api.similar, methods=["GET", "POST"]),
            Route("/api/fires", api.fires, methods=["GET", "POST"]),
            page("/api/jobs", api.jobs, ["GET", "POST"]),
            page("/api/jobs/{number:int}", api.job, ["GET", "DELETE"]),
        ]

    def _network(self, request: Request) -> Response:
        return self._page(request, "network", facts.network(self._current.index()))

    def _layer(self, request: Request) -> Response:
        return self._page(request, "layer", facts.layer(self._current.index(), request.path_params["layer"]))

    def _unit(self, request: Request) -> Response:
        index = self._current.index()
        words = request.query_params
        pick, crop = words.get("pick", "top"), words.get("crop", "auto")
        unit = index.unit(request.path_params["unit"]).unit
        return self._page(request, "unit", facts.unit(index, unit, facts.SHOWN, pick, crop))

    def _nearest(self, request: Request) -> Response:
        index = self._current.index()
        found = facts.nearest(index, index.unit(request.path_params["unit"]).unit)
        return self._page(request, "nearest", {"nearest": found}, kept=True)

    def _page(self, request: Request, name: str, content: dict[str, Any], kept: bool = False) -> Response:
        links = pages.Served(self._current.version)
        html = pages.page(name, links, content, live=True, compute=self._compute).encode()
        return self._sent(request, digests.of_bytes(html), "text/html", lambda: html, kept)

    def _search(self, request: Request) -> Response:
        index = self._current.index()
        layers = list(index.layers)
        links = pages.Served(self._current.version)
        data = pages.search_script(links, layers, facts.search_list(index, layers))
        return self._sent(request, digests.of_bytes(data), MEDIA["js"], lambda: data)

    def _static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in pages.static():
            raise HTTPException(404, f"no file {name!r}")
        data = pages.static()[name]
        media = MEDIA[name.rpartition(".")[2]]
        return self._sent(request, digests.of_bytes(data), media, lambda: data, False)

    def _strips(self, request: Request, check: Check) -> Response:
        found = pictures.strips(self._current.index(), request.path_params["layer"], request.path_params["block"])
        return self._picture(request, found, check)

    def _crop(self, request: Request, check: Check) -> Response:
        index, at = self._current.index(), request.path_params
        if at["px"] not in pictures.SIZES:
            raise RequestError(f"a crop has a width of {', '.join(map(str, pictures.SIZES))} pixels, not {at['px']}")
        unit = index.unit(f"{at['layer']}:{at['channel']}").unit
        place = Position(at["y"], at["x"])
        patch, cropping = pictures.patch_at(index, unit, image_of(index, at["image"]), place, at["crop"])
        draw = pictures.face if at["crop"] == pictures.FACE else pictures.crop
        return self._picture(request, draw(index, patch, cropping, at["px"]), check)

    def _photograph(self, request: Request, check: Check) -> Response:
        index = self._current.index()
        found = pictures.photograph(index, image_of(index, request.path_params["image"]))
        return self._picture(request, found, check)

    def _synthetic(self, request: Request) -> Response:
        index = self._current.index()
        unit = index.unit(request.path_params["unit"]).unit
        found = facts.synthetic(index, unit)
        if found is None:
            raise UnitError(
                f"the index keeps no synthetic image of {unit}: make one with patchmine synth --unit {unit}"
            )
        picture = found.picture
        buffer = BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        return self._sent(request, digests.of_bytes(buffer.getvalue()), "image/png", buffer.getvalue)

    def _picture(self, request: Request, picture: pictures.Picture, check: Check) -> Response:
        try:
            return self._sent(request, picture.tag, picture.media, lambda: self._kept.get(picture, check))
        except SourceError as error:
            return Response(pictures.gone(str(error)), 404, {"cache-control": "no-store"}, "image/svg+xml")

    def _sent(
        self, request: Request, tag: str, media: str, data: Callable[[], bytes], kept: bool | None = None
    ) -> Response:
        """An answer with its tag: empty if the browser has it. An address with the index's version may be kept for
        good, unless `kept` says otherwise."""
        versioned = request.query_params.get("v") == self._current.version
        for_good = versioned and media != "text/html" if kept is None else versioned and kept
        headers = {
            "etag": f'"{tag}"',
            "cache-control": "private, max-age=31536000, immutable" if for_good else "no-cache",
        }
        known = [word.strip().removeprefix("W/") for word in request.headers.get("if-none-match", "").split(",")]
        if f'"{tag}"' in known or known == ["*"]:
            return Response(None, 304, headers)
        return Response(data(), 200, headers, media)

    async def _refused(self, request: Request, error: Exception) -> Response:
        status = next(status for kind, status in STATUS if isinstance(error, kind))
        if request.method == "POST" and isinstance(error, SourceError):
            status = 422  # what was sent is not a photograph
        return await self._refusal(request, status, str(error))

    async def _refused_by_route(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        said = error.detail if error.status_code != 404 else f"no page {request.url.path!r}"
        return await self._refusal(request, error.status_code, said, error.headers)

    async def _refusal(self, request: Request, status: int, message: str, more: Any = None) -> Response:
        headers = dict(more or {})
        if status in (429, 503):
            headers["retry-after"] = "2"
        if request.url.path.startswith("/api/"):
            found = document({"error": printable(message)}, status)
        else:
            words = {"title": "Not found" if status == 404 else "This page cannot be shown", "message": message}
            links = pages.Served(self._current.version)
            html = pages.page("error", links, {**words, "warning": None})
            found = HTMLResponse(html, status, {"cache-control": "no-store"})
        found.headers.update(headers)
        return found


__all__ = ["Application"]
