"""Text from a file that anybody may have written, fit for a terminal, a log or a sheet."""

from __future__ import annotations

import re

# Control characters steer a terminal, those of writing direction turn a line around, surrogates cannot be written.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with what does more than to be seen escaped: `\\x1b` for the character that starts a command."""
    return _UNFIT.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
