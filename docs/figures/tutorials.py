"""Draw the pictures of the tutorials again, by running the tutorials.

    python -m docs.figures.tutorials [NAME ...]

A name is that of a page in docs/tutorials without its ending. Each page draws NAME.png, which is kept, smaller, as
docs/images/tutorial-NAME.jpg.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.support.documents import DOCS
from tests.support.tutorials import TUTORIALS, keep, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    wanted = parser.parse_args().names
    for page in sorted(TUTORIALS.glob("*.md")):
        if not wanted or page.stem in wanted:
            with tempfile.TemporaryDirectory() as folder:
                run(page, Path(folder))
                keep(Path(folder) / f"{page.stem}.png", DOCS / "images" / f"tutorial-{page.stem}.jpg")


if __name__ == "__main__":
    main()
