"""The format promise: indexes of version 0.1.0 open, answer and verify; a new field of a job costs nobody an index."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import patchmine
from patchmine.mining.workspace import Workspace
from patchmine.store.job import Job

KEPT = Path(__file__).parent / "kept"
INDEXES = ("format1", "format1-no-table")


@dataclass(frozen=True)
class LaterJob(Job):
    """A job with a field that format 1 does not know."""

    score: str = "activation"


@pytest.fixture(params=INDEXES)
def kept(request, tmp_path):
    """A copy of an index that version 0.1.0 made of `shapes:24` with `--model shapes --keep 5 --shard-size 12`."""
    return Path(shutil.copytree(KEPT / f"{request.param}.patchmine", tmp_path / f"{request.param}.patchmine"))


def test_every_later_version_answers_an_index_of_format_1_as_0_1_0_did(kept, cli):
    expected = json.loads((KEPT / f"{kept.stem}.json").read_text("utf-8"))
    for words, before in expected.items():
        now = json.loads(cli(*words.split(), "-i", kept, "--json").stdout)
        assert _within(now, before | {"index": str(kept)}) == before | {"index": str(kept)}, words


def test_every_later_version_verifies_an_index_of_format_1(kept, cli):
    done = cli("verify", "-i", kept, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"]


def test_a_field_added_to_the_job_leaves_old_digests_as_they_were(kept):
    written = json.loads((kept / "manifest.json").read_bytes())
    job = LaterJob.from_dict(written["job"])
    assert job.score == "activation"
    assert job.digest == Job.from_dict(written["job"]).digest == written["job_digest"]
    assert job.as_dict() == written["job"]
    assert job.first_difference(LaterJob.from_dict(written["job"])) is None


def test_a_field_added_to_the_job_counts_where_it_is_not_at_its_default(kept):
    job = LaterJob.from_dict(patchmine.open_index(kept).job.as_dict())
    other = replace(job, score="relevance")
    assert other.digest != job.digest
    assert job.first_difference(other) == ("score", "activation", "relevance")
    assert other.first_difference(job) == ("score", "relevance", "activation")
    assert LaterJob.from_dict(other.as_dict()) == other


def test_an_unfinished_index_of_an_older_job_is_resumed_by_a_job_with_a_new_field(kept, tmp_path, monkeypatch):
    monkeypatch.setattr("patchmine.mining.workspace.Job", LaterJob)
    old = patchmine.open_index(kept).job
    space = Workspace(tmp_path / "new.patchmine")
    with space.taken():
        space.begin(old, fresh=False)
    assert space.finished(LaterJob.from_dict(old.as_dict())) is None  # no refusal, nothing finished: resume
    with pytest.raises(patchmine.PatchmineError, match="score"):
        space.finished(replace(LaterJob.from_dict(old.as_dict()), score="relevance"))


@pytest.mark.parametrize("field", ["layers", "keep", "preprocessing"])
def test_a_required_field_that_is_missing_is_refused(kept, field):
    written = json.loads((kept / "manifest.json").read_bytes())["job"]
    del written[field]
    with pytest.raises(KeyError, match=field):
        Job.from_dict(written)


def _within(now, before):
    """The part of a document that an older one has: fields may be added, not changed or removed."""
    if isinstance(before, dict):
        return {key: _within(now[key], value) for key, value in before.items()}
    if isinstance(before, list) and len(before) == len(now):
        return [_within(one, other) for one, other in zip(now, before, strict=True)]
    return now
