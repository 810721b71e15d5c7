"""Scores of units: the formulas written apart, the right order where the truth is known, kept once."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import patchmine
from patchmine.cli.commands.units import SCORES
from patchmine.kept import scores as keeping
from patchmine.scores import _whole, kinds, mis
from patchmine.scores._evidence import Embedding, Evidence, Lacking
from tests.support import colors
from tests.support.commands import failed

NAMES = [name.replace("-", "_") for name in kinds.names]


class Drawn:
    """Evidence of activations and an embedding that a test draws, float32 (photographs, units) and (photographs, d)."""

    k = 25
    layer = "drawn"

    def __init__(self, values, vectors):
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        self.values = values.astype(np.float32)
        self.embedding = Embedding("drawn", np.arange(len(values)), vectors.astype(np.float32))
        self.units = values.shape[1]


def score(name, evidence):
    return kinds.get(name, "the score").of_layer(evidence)


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    return Drawn(rng.normal(size=(90, 4)) ** 3, rng.normal(size=(90, 6)))


@pytest.fixture(scope="module")
def minds():
    """Photographs of four kinds in 400, and units: of one kind, of two, of three, of all alike."""
    rng = np.random.default_rng(1)
    kind = np.arange(400) % 4
    vectors = np.eye(8)[kind] + 0.25 * rng.normal(size=(400, 8))
    of = [{0}, {0, 1}, {0, 1, 2}, set()]
    values = np.stack([np.isin(kind, list(kinds)) * rng.uniform(2, 4, 400) for kinds in of], 1)
    values[:, 3] = rng.uniform(0, 4, 400)
    return Drawn(values + 0.05 * rng.uniform(size=values.shape), vectors - vectors.mean(0))


def test_mono_is_the_weighted_mean_over_all_pairs(drawn):
    drawn.values[3, 1], drawn.values[5, 2], drawn.values[:, 3] = np.nan, np.inf, 2
    found = score("mono", drawn)
    e = drawn.embedding.vectors.astype(np.float64)
    for unit in range(3):
        known = np.flatnonzero(np.isfinite(drawn.values[:, unit]))
        a = drawn.values[known, unit].astype(np.float64)
        w = (a - a.min()) / (a.max() - a.min())
        above = below = 0.0
        for i in range(len(known)):
            for j in range(i):
                above += w[i] * w[j] * (e[known[i]] @ e[known[j]])
                below += w[i] * w[j]
        assert found[unit] == pytest.approx(above / below, abs=1e-5)
    assert np.isnan(found[3])


def test_the_share_of_the_top_is_that_of_the_sorted_positive_part(drawn):
    found = score("share-of-top", drawn)
    for unit, column in enumerate(drawn.values.T):
        fired = sorted((max(0.0, float(value)) for value in column), reverse=True)
        assert found[unit] == pytest.approx(sum(fired[:25]) / sum(fired))
    drawn.values[:] = -1
    assert np.isnan(score("share-of-top", drawn)).all()


def test_mis_asks_a_judge_of_similarity():
    """Two sides that are two points: every task has the same margin, so the score is one sigmoid."""
    count = np.arange(mis.LEAST)
    strong = count >= len(count) // 2
    vectors = np.where(strong[:, None], [1.0, 0], [0.6, 0.8])
    values = np.stack([strong + count / 1000, ~strong + count / 1000, np.zeros(len(count))], 1)
    found = score("mis", Drawn(values, vectors))
    margin = np.sum((vectors[-1] - vectors[0]) ** 2)
    assert found[:2] == pytest.approx(1 / (1 + np.exp(-mis.ALPHA * margin)), abs=1e-6)
    assert np.isnan(found[2])
    with pytest.raises(Lacking, match="it needs 200 photographs, and 199 have a vector"):
        score("mis", Drawn(values[1:], vectors[1:]))


def test_each_photograph_of_an_end_is_a_query_once_beside_nine_of_its_group():
    """Against the tasks one by one, from groups that hold one of each tenth of the ranks."""
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((400, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    values = rng.standard_normal((400, 1))
    ranked = np.argsort(-values[:, 0])
    dealing = np.random.default_rng(0)  # of unit 0
    ends = []
    for end in (ranked[:40], ranked[::-1][:40]):
        dealt = [list(dealing.permutation(end[4 * tenth : 4 * tenth + 4])) for tenth in range(10)]
        ends.append([[tenth[group] for tenth in dealt] for group in range(4)])
    assert sorted(photograph for group in ends[0] for photograph in group) == sorted(ranked[:40])
    right = []
    for strong, weak in zip(*ends, strict=True):
        for query in range(10):
            others = [np.delete(group, query) for group in (strong, weak)]
            likeness = [
                [np.mean(vectors[other] @ vectors[group[query]]) for other in others] for group in (strong, weak)
            ]
            (strong_d, weak_d) = (to_strong - to_weak for to_strong, to_weak in likeness)
            right.append(1 / (1 + np.exp(-16 * (strong_d - weak_d))))
    assert score("mis", Drawn(values, vectors))[0] == pytest.approx(np.mean(right), abs=1e-6)


def test_one_minded_units_score_higher_than_those_of_several_minds(minds):
    mono = score("mono", minds)
    assert mono[0] > mono[1] > mono[2] > mono[3] + 0.02
    assert abs(mono[3]) < 0.02
    share = score("share-of-top", minds)
    assert share[0] > share[1] > share[2]
    told = score("mis", minds)
    assert min(told[:3]) > 0.95  # a judge that sees references of all kinds recognizes a query of each
    assert told[3] == pytest.approx(0.5, abs=0.05)


@pytest.fixture(scope="module")
def two_minds(tmp_path_factory):
    """Units of one color and a unit of two, over drawn photographs; their layer has the vectors of six colors."""
    directory = tmp_path_factory.mktemp("minds") / "minds.patchmine"
    model = f"{colors.__file__}:before"
    patchmine.build_index("shapes:120", directory, model=model, layers=["units"], keep=25)
    return directory


def test_c2_is_the_weighted_mean_of_cosines_without_the_own_channel(two_minds):
    index = patchmine.open_index(two_minds)
    found = index.scores().columns["units"]["c2"]
    vectors, image, position = index.store.vectors("units")
    vectors = vectors[:].astype(np.float64)
    row = {pair: number for number, pair in enumerate(zip(image.tolist(), position.tolist(), strict=True))}
    for unit in range(5):
        values, images, places = index.store.top("units", unit)
        values, pairs = values[values > 0][:25], list(zip(images.tolist(), places.tolist(), strict=True))
        f = np.stack([vectors[row[pair]] - vectors.mean(0) for pair in pairs[: len(values)]])
        f[:, unit] = 0
        above = below = 0.0
        for i in range(len(f)):
            for j in range(len(f)):
                if i != j:
                    weight = float(values[i]) * float(values[j])
                    above += weight * (f[i] @ f[j]) / (np.linalg.norm(f[i]) * np.linalg.norm(f[j]))
                    below += weight
        assert found[unit] == pytest.approx(above / below, abs=1e-3)
    assert np.isnan(found[5])  # it never fires


def test_a_unit_of_two_colors_is_less_one_minded_than_those_of_one(two_minds):
    index = patchmine.open_index(two_minds)
    scores = [index.scores().of(patchmine.Unit("units", unit)) for unit in range(4)]
    assert list(scores[0]) == NAMES
    for name in ("mono", "c2"):
        assert min(one[name] for one in scores[:3]) > scores[3][name], name
    assert scores[3]["facets"] >= max(one["facets"] for one in scores[:3])


def test_the_embedding_is_one_direction_for_each_photograph(shapes_index):
    embedding = Embedding.of(shapes_index)
    assert embedding.layer == "thing"
    assert np.linalg.norm(embedding.vectors, axis=1) == pytest.approx(1, abs=1e-5)
    kept, image, _ = shapes_index.store.vectors("thing")
    assert set(embedding.images.tolist()) <= set(image.tolist())
    centered = kept[:].astype(np.float64) - kept[:].astype(np.float64).mean(0)
    first = int(embedding.images[0])
    own = centered[image == first]
    expected = (own / np.linalg.norm(own, axis=1, keepdims=True)).sum(0)
    assert embedding.vectors[0] == pytest.approx(expected / np.linalg.norm(expected), abs=1e-3)
    assert Evidence(shapes_index, "thing", [embedding]).embedding is embedding


def test_the_command_adds_scores_sorts_by_them_and_keeps_them(cli, shapes_index_dir, tmp_path, monkeypatch):
    shutil.copytree(shapes_index_dir, tmp_path / "shapes.patchmine")
    plain = json.loads(cli("units", "--layer", "thing", "--json").stdout)
    document = json.loads(cli("units", "--layer", "thing", "--sort", "mono", "--json").stdout)
    lacking = {"mis": "it needs 200 photographs, and 48 have a vector in thing"}
    assert document["scores"] == {"embedding": "thing", "top": 25, "lacking": lacking}
    assert [list(unit["scores"]) for unit in document["units"]] == [NAMES] * 24
    monos = [unit["scores"]["mono"] for unit in document["units"] if unit["scores"]["mono"] is not None]
    assert monos == sorted(monos, reverse=True) and len(monos) > 20
    bare = [{key: value for key, value in unit.items() if key != "scores"} for unit in document["units"]]
    assert sorted(bare, key=lambda unit: unit["channel"]) == plain["units"]
    kept = json.loads((tmp_path / "shapes.patchmine/scores.json").read_bytes())
    assert list(kept["layers"]) == ["thing"] and set(kept["layers"]["thing"]) == set(NAMES) - {"label_fit", "mis"}
    monkeypatch.setattr(_whole.kinds, "get", refuse)
    again = cli("units", "--layer", "thing", "--scores", "--csv").stdout.splitlines()
    assert again[0].endswith(",".join(f"scores_{name}" for name in NAMES)) and len(again) == 25


def test_scores_need_no_torch(shapes_index_dir, tmp_path):
    shutil.copytree(shapes_index_dir, tmp_path / "shapes.patchmine")
    program = (
        "import sys, patchmine; patchmine.open_index('shapes.patchmine').scores();"
        "print([name for name in ('torch', 'faiss', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "[]\n", done.stderr


def refuse(name, _option):
    """Instead of `Kinds.get`: no kept score may be computed again."""
    from patchmine.scores import label_fit

    return {"label-fit": label_fit, "mis": mis}[name]


def test_scores_of_another_job_or_a_damaged_file_are_computed_anew(shapes_index_dir, tmp_path):
    shutil.copytree(shapes_index_dir, tmp_path / "shapes.patchmine")
    index = patchmine.open_index(tmp_path / "shapes.patchmine")
    file = tmp_path / "shapes.patchmine/scores.json"
    expected = index.scores("thing").of(patchmine.Unit("thing", 0))
    sound = json.loads(file.read_bytes())

    def changed(**parts):
        return json.dumps({**sound, **parts}).encode()

    columns = {"thing": {"mono": [0.5] * 24}}
    for data in (
        changed(job="of another"),
        changed(layers=columns),
        changed(rule=keeping.RULE + 1),
        signed({"thing": {"mono": [0.5] * 23}}, sound),
        signed({"thing": {"mono": ["0.5"] * 24}}, sound),
        signed({"thing": {"mono": [10**400] * 24}}, sound),
        signed({"other": {"mono": [0.5] * 24}}, sound),
        signed({"thing": 5}, sound),
        b"{",
        b"[]",
    ):
        file.write_bytes(data)
        assert index.scores("thing").of(patchmine.Unit("thing", 0)) == expected, data[:80]
    file.write_bytes(signed(columns, sound))
    assert index.scores("thing").of(patchmine.Unit("thing", 0))["mono"] == 0.5


def signed(columns, sound):
    from patchmine.system import digests

    return json.dumps({**sound, "layers": columns, "digest": digests.of_json([sound["job"], columns])}).encode()


def test_an_index_that_cannot_be_written_still_answers(shapes_index_dir, monkeypatch):
    def full(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(keeping, "write_atomically", full)
    assert patchmine.open_index(shapes_index_dir).scores("thing").of(patchmine.Unit("thing", 0))["c2"] is not None


def test_what_an_index_lacks_is_null_with_a_reason(cli, tmp_path):
    bare = Path(__file__).parent / "kept/format1-no-table.patchmine"
    shutil.copytree(bare, tmp_path / "bare.patchmine")
    document = json.loads(cli("units", "--scores", "--json").stdout)
    reason = "the index was built with --no-table and keeps only the top patches"
    assert document["scores"]["lacking"] == dict.fromkeys(["mis", "mono", "share_of_top"], reason)
    for unit in document["units"]:
        assert unit["scores"]["mono"] is unit["scores"]["mis"] is unit["scores"]["share_of_top"] is None
    assert any(unit["scores"]["c2"] is not None for unit in document["units"])
    assert f"no mono: {reason}" in cli("units", "--scores").stdout


def test_every_score_can_be_sorted_by(cli, shapes_index_dir):
    assert {*SCORES, "facets"} == set(NAMES)
    assert "unknown --sort 'mon'; did you mean mono" in failed(cli("units", "--sort", "mon", "-i", shapes_index_dir))
