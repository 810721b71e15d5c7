"""Ask indexes that a stranger has tampered with: each answers, or is refused in one line, within bounds.

    python -m pytest tests/slow/test_hostile.py -m slow -s [--flips 3000] [--every 1] [--index DIR]

Takes a small finished index (built here from drawn pictures, unless one is given) and makes one hostile index after the
other of it, by `tests.support.tampering`. Each is opened and asked for everything that a reading command asks for, in a
process that may not take more than a few GB or seconds. Changed bytes may crash libhdf5 or make it read on for ever; an
index that is well formed as HDF5 may not.
"""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from patchmine import build_index
from tests.support.hostile import Outcome, isolated
from tests.support.tampering import mutations

pytestmark = pytest.mark.slow

CHUNK = 200


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[Outcome]]:
    """Of `--flips` indexes with changed bytes ("bytes"), and of each of `--every` others ("structure")."""
    index: Path | None = request.config.getoption("--index")
    if index is None:
        index = tmp_path_factory.mktemp("hostile") / "shapes.patchmine"
        build_index("shapes:24", index, model="shapes", shard_size=12, keep=10)
    flips, every = request.config.getoption("--flips"), request.config.getoption("--every")
    structure = len(mutations(index, 0, seed))
    chosen = [*range(seed % every, structure, every), *range(structure, structure + flips)]
    chunks = [chosen[start : start + CHUNK] for start in range(0, len(chosen), CHUNK)]
    found: dict[str, list[Outcome]] = {"bytes": [], "structure": []}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for outcomes in pool.map(lambda numbers: list(isolated(index, flips, seed, numbers)), chunks):
            for one in outcomes:
                found["bytes" if one.name.startswith("flip") else "structure"].append(one)
    assert sum(map(len, found.values())) == len(chosen)
    for kind, outcomes in found.items():
        counts = Counter(one.kind for one in outcomes)
        print(f"\n{kind}: {', '.join(f'{count} {word}' for word, count in counts.most_common())}", end="")
    print(f"; largest process {max(one.peak_mib or 0 for outcomes in found.values() for one in outcomes)} MB")
    return found


def test_no_hostile_index_meets_an_error_that_is_not_of_patchmine(outcomes: dict[str, list[Outcome]]) -> None:
    assert [one for kind in outcomes.values() for one in kind if one.kind == "BUG"] == []


def test_no_index_of_another_structure_crashes_or_runs_on(outcomes: dict[str, list[Outcome]]) -> None:
    assert [one for one in outcomes["structure"] if one.kind not in ("answered", "refused")] == []
