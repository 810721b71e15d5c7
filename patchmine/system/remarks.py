"""One line on stderr for what a user should know, from code that no progress display watches."""

from __future__ import annotations

import logging


def remark(text: str) -> None:
    """Print one line on stderr, unless the program has set up logging otherwise."""
    logging.getLogger("patchmine").warning("patchmine: %s", text)
