"""The tutorials: each runs as it is written, and ends in the picture that it has drawn."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from tests.support.documents import DOCS
from tests.support.tutorials import TUTORIALS, run

PAGES = sorted(TUTORIALS.glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_tutorial_runs_and_draws_its_picture(page, tmp_path):
    run(page, tmp_path)
    with Image.open(tmp_path / f"{page.stem}.png") as drawn:
        assert min(drawn.size) > 400


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_tutorial_ends_in_its_picture(page):
    pictures = re.findall(r"!\[.+?\]\(\.\./images/(\S+?)\)", page.read_text("utf-8"))
    assert pictures[-1] == f"tutorial-{page.stem}.jpg"


def test_every_committed_picture_is_small():
    assert all(file.stat().st_size < 400_000 for file in (DOCS / "images").iterdir())
