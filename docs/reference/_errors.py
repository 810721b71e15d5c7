"""Writes the messages in errors.md again, as the commands above them print them: python docs/reference/_errors.py

A test compares the page with what this would write.
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

from typer.testing import CliRunner

import patchmine
from patchmine.cli import app

PAGE = Path(__file__).with_name("errors.md")
COMMAND = "python docs/reference/_errors.py"

_BLOCK = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)


def page() -> str:
    """The page with today's messages. Runs in the working directory, which has to hold `shapes.patchmine`."""
    return _BLOCK.sub(lambda block: "".join(_answered(block[0])), PAGE.read_text("utf-8"))


def _answered(block: str) -> Iterator[str]:
    """The commands of a block, each followed by its message."""
    for line in block.splitlines():
        if line.startswith("$ "):
            program, *words = shlex.split(line.removeprefix("$ "))
            yield f"{line}\n"
            if program == "mkdir":
                Path(words[-1]).mkdir(parents=True)
            else:
                yield CliRunner().invoke(app, words).stderr.replace(str(Path.cwd()), "...")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        patchmine.build_index("shapes:48", "shapes.patchmine", model="shapes", shard_size=12, keep=10)
        PAGE.write_text(page(), "utf-8")
        os.chdir("/")
