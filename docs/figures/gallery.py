"""Draw the figures of docs/gallery.md again, by running its commands.

    python -m docs.figures.gallery FOLDER

FOLDER, which must not exist, gets the photographs, their index, and each figure as PDF and PNG. The PNGs are kept,
smaller, as docs/images/gallery-NAME.jpg.
"""

from __future__ import annotations

import argparse
from contextlib import chdir
from pathlib import Path

from typer.testing import CliRunner

from docs.figures.readme import cut
from docs.figures.samples import free_photographs, index_of, save
from patchmine.cli import app
from tests.support.documents import DOCS, command_lines

DPI, WIDTH_PX = 300, 1200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder = parser.parse_args().folder
    folder.mkdir()
    cut(free_photographs(folder), folder / "photographs")
    index_of(folder / "photographs")
    with chdir(folder):
        for words in command_lines((DOCS / "gallery.md").read_text("utf-8")):
            _run(words)
            _run([*words[:-1], words[-1].replace(".pdf", ".png"), "--dpi", str(DPI)])
    for drawn in sorted(folder.glob("gallery-*.png")):
        save(drawn, f"{drawn.stem}.jpg", width=WIDTH_PX, quality=88)


def _run(words: list[str]) -> None:
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    print(done.stdout, done.stderr, sep="", end="", flush=True)
    assert done.exit_code == 0, words


if __name__ == "__main__":
    main()
