"""`patchmine probe` on photographs: at least 28 of 30 planted units are judged right."""

from __future__ import annotations

from pathlib import Path

import pytest

import patchmine
from tests.support import planted_colors

pytestmark = pytest.mark.slow


def test_at_least_28_of_30_planted_units_are_judged_right(
    photographs: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = f"{planted_colors.__file__}:build"
    limit = request.config.getoption("--limit")
    directory = tmp_path / "planted.patchmine"
    patchmine.build_index(photographs, directory, model=model, layers=["units"], keep=25, limit=limit)
    index = patchmine.open_index(directory)
    index.use(model)
    wrong = []
    for channel, truth in enumerate(planted_colors.KINDS):
        verdict = index.unit(f"units:{channel}").probe().verdict
        if verdict.kind != truth:
            wrong.append(f"units:{channel} is planted as {truth}: {verdict}")
    assert len(wrong) <= 2, wrong
