"""Whether a host answers: found out in seconds, where the libraries that download from it try again for a minute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from threading import Thread
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

PROBE_S = 3.0
"""Seconds within which a host must answer."""


def unreachable(url: str) -> str | None:
    """Why the host of a URL does not answer in time; None if it does. The proxies of the environment are used."""
    found: list[str | None] = []

    def ask() -> None:
        try:
            urlopen(Request(url, method="HEAD"), timeout=PROBE_S).close()
        except HTTPError:
            found.append(None)  # an answer
        except (OSError, HTTPException, ValueError) as error:
            found.append(str(error.reason if isinstance(error, URLError) else error) or type(error).__name__)
        else:
            found.append(None)

    thread = Thread(target=ask, daemon=True)  # looking up a name takes no timeout
    thread.start()
    thread.join(PROBE_S)
    return found[0] if found else f"no answer within {PROBE_S:.0f} s"


@contextmanager
def hub() -> Iterator[str | None]:
    """Inside the block Hugging Face's hub reads only its cache if it cannot be reached; the value says why not."""
    from huggingface_hub import constants

    why = None if constants.HF_HUB_OFFLINE else unreachable(constants.ENDPOINT)
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or why is not None
    try:
        yield why
    finally:
        constants.HF_HUB_OFFLINE = before
