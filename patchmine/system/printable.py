"""Text for people: text from untrusted files made safe to show, and remarks on stderr."""

from __future__ import annotations

import logging
import re

# Control characters drive a terminal, direction marks reverse a line, and surrogates cannot be encoded.
_UNFIT = "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"


def printable(text: str) -> str:
    """The text with control characters, direction marks and surrogates escaped: ESC becomes `\\x1b`."""
    return re.sub(_UNFIT, lambda found: found[0].encode("unicode_escape").decode(), text)


def remark(text: str) -> None:
    """Print one line on stderr, from code that no progress display watches, unless logging is set up otherwise."""
    logging.getLogger("patchmine").warning("patchmine: %s", text)
