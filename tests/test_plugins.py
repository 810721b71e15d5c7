"""Kinds from other packages: one of each is used for real, and a bad one costs one line and nothing else."""

from functools import partial

import pytest

from tests.support.distribution import install, patchmine

FILES = {
    "their/__init__.py": "",
    "their/drawn.py": """
        from patchmine.sources.shapes import claim as shapes

        HELP = "drawn:N: N drawn photographs, from another package"

        def claim(spec):
            return shapes(spec.replace("drawn:", "shapes:")) if spec.startswith("drawn:") else None
        """,
    "their/hand.py": """
        from patchmine.models.shapes import load as shapes

        HELP = "hand: the hand-set network, from another package"

        def claim(spec):
            return spec == "hand"

        def load(spec, weights, pretrained=True):
            return shapes("shapes", weights, pretrained)
        """,
    "their/slow.py": """
        from patchmine.executors.torch import build, default_device, fits, missing

        HELP = "slow: torch under another name"
        RANK, READY = 99, False

        def version():
            return "slow 1.0"

        def settings(device, workers):
            return [(4, 1)]
        """,
    "their/pool.py": """
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context
        from patchmine.system.progress import Silent

        HELP = "pool: each shard in a process of a pool"

        def part(task, number):
            return list(task.work([number], Silent()))

        def mine(task, todo, progress):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                for numbers in pool.map(part, [task] * len(todo), todo):
                    yield from numbers
        """,
    "their/broken.py": "import a_package_that_nobody_has",
    "their/hollow.py": "HELP = 'hollow: nothing behind it'",
}

ENTRY_POINTS = """
[patchmine.sources]
drawn = their.drawn
folder = their.drawn
broken = their.broken
[patchmine.models]
hand = their.hand
hollow = their.hollow
[patchmine.executors]
slow = their.slow
broken = their.broken
[patchmine.engines]
pool = their.pool
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return install(tmp_path_factory.mktemp("site"), "their", FILES, ENTRY_POINTS)


@pytest.fixture
def run(site, tmp_path):
    """`patchmine ...` in a process that sees the package."""
    return partial(patchmine, site, tmp_path)


def test_a_kind_of_each_family_from_another_package_is_used(run):
    words = ["--model", "hand", "--executor", "slow", "--engine", "pool", "--shard-size", 4, "--keep", 3]
    done = run("index", "drawn:8", "-o", "x.patchmine", *words, "--no-calibrate")
    assert done.returncode == 0, done.stderr
    answer = run("top", "-i", "x.patchmine", "--unit", "thing:0", "-k", 2)
    assert answer.returncode == 0, answer.stderr
    assert "rank" in answer.stdout


def test_help_names_them_beside_our_own_and_imports_none(run):
    shown = " ".join(run("index", "--help").stdout.split())
    for word in ("drawn:N", "shapes:N", "hand", "torchvision:NAME[@WEIGHTS]", "slow", "openvino", "pool", "local"):
        assert word in shown, word


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (
            ["index", "nowhere:3"],
            [
                "the plug-in 'broken' of package 'their' is left out: it fails to import",
                "the plug-in 'folder' of package 'their' is left out: patchmine already has a kind",
            ],
        ),
        (["layers", "--model", "nothing"], ["the plug-in 'hollow' of package 'their' is left out: it has no claim"]),
        (["index", "shapes:3", "--model", "shapes", "--executor", "broken"], ["--executor broken cannot be used"]),
        (["index", "shapes:3", "--engine", "pol"], ["unknown --engine 'pol'; did you mean pool?"]),
    ],
)
def test_a_bad_plug_in_costs_one_line_that_names_its_package(run, words, lines):
    done = run(*words)
    assert done.returncode == 1
    for line in lines:
        assert [text for text in done.stderr.splitlines() if line in text], done.stderr
    assert "Traceback" not in done.stderr


def test_beside_bad_plug_ins_everything_else_works(run):
    done = run("index", "shapes:4", "--model", "shapes", "-o", "y.patchmine", "--keep", 2)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("left out") == 1  # the broken executor, which might have been the fastest
