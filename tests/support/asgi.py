"""Ask an application without a server: one request in, one answer out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    app: Any, path: str, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes = b""
) -> Answer:
    """The answer to a request, whose path may have a query; the Host is 127.0.0.1 unless `headers` say otherwise."""
    received = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if not received:
            await asyncio.Event().wait()  # as a client that waits for its answer
        return received.pop()

    return asyncio.run(sent(app, path, method, headers, receive))


async def sent(
    app: Any, path: str, method: str = "GET", headers: Mapping[str, str] | None = None, receive: Any = None
) -> Answer:
    """The answer to a request from whom `receive` brings the body and the news that it has gone."""
    place, _, query = path.partition("?")
    given = {"host": "127.0.0.1:8000", **(headers or {})}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(place),
        "raw_path": place.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 5000),
    }
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    await app(scope, receive, send)
    start = messages[0]
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], found, b"".join(message.get("body", b"") for message in messages[1:]))
