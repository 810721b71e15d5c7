"""What protects a server: the Host header, a token beyond loopback, the origin of writes, the headers of answers."""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")
COOKIE = "patchmine"

HEADERS = {
    "content-security-policy": "default-src 'none'; img-src 'self' blob:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}

_TOKEN_PAGE = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>patchmine</title><h1>A token is required</h1>'
    "<p>Open the address that patchmine printed when it started. It ends in <code>?token=…</code></p></html>"
)


def is_loopback(host: str) -> bool:
    return host in LOOPBACK or (_address(host) is not None and ipaddress.ip_address(host).is_loopback)


class Guard:
    """Lets through only what this server was started for, and sets the headers of every answer.

    A page of another site may not reach it: neither under a host name of its own that leads here (DNS rebinding), nor
    by a form or a script, since no answer allows another origin. With a `token`, each request must carry it, in a
    cookie that the address with `?token=` sets, or as `Authorization: Bearer`.
    """

    def __init__(self, app: ASGIApp, host: str, token: str | None) -> None:
        self._app, self._token = app, token
        self._names = {*LOOPBACK, host, socket.gethostname().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        refusal = self._refusal(scope, headers)
        await (refusal or self._app)(scope, receive, answer)

    def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> Response | None:
        if not self._knows(headers.get("host", "")):
            return PlainTextResponse("this host name is not the server's own", 421)
        if scope["method"] not in ("GET", "HEAD") and not _same_origin(headers):
            return PlainTextResponse("a request from another site", 403)
        return self._without_token(scope, headers) if self._token is not None else None

    def _knows(self, host: str) -> bool:
        """Whether the Host header is a name of this server: with a token also any address, which no site can own."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._names or (self._token is not None and _address(name) is not None)

    def _without_token(self, scope: Scope, headers: Mapping[str, str]) -> Response | None:
        assert self._token is not None
        words = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if self._is_token(words.pop("token", [""])[0]):
            path = scope.get("raw_path", scope["path"].encode()).decode("latin-1").split("?")[0]
            rest = urlencode(words, doseq=True)
            found = RedirectResponse("/" + path.lstrip("/") + (f"?{rest}" if rest else ""), 303)
            found.set_cookie(COOKIE, self._token, httponly=True, samesite="strict")
            return found
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        if self._is_token(bearer) or self._is_token(_cookie(headers.get("cookie", ""))):
            return None
        return HTMLResponse(_TOKEN_PAGE, 401, {"www-authenticate": "Bearer"})

    def _is_token(self, word: str) -> bool:
        assert self._token is not None
        return hmac.compare_digest(word.encode("utf-8", "replace"), self._token.encode())


def _same_origin(headers: Mapping[str, str]) -> bool:
    """Whether a request that changes something comes from a page of this server, or from no page at all."""
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2] == headers.get("host")


def _cookie(text: str) -> str:
    try:
        found = SimpleCookie(text).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
