import numpy as np
import pytest

from patchmine.errors import StoreError
from patchmine.store.shardfile import ShardFile, write_shard


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "000001.shard"
    arrays = {
        "0/value": np.arange(12, dtype=np.float32).reshape(3, 4),
        "0/vectors": np.empty((0, 4), np.float16),
    }
    records = [{"reason": None}, {"reason": "not an image"}, {"reason": None}, {"reason": None}]
    write_shard(path, {"job": "abc", "shard": 1, "images": records}, arrays)
    return path


def test_what_is_written_is_read(shard):
    file = ShardFile.open(shard)
    assert file.about["job"] == "abc"
    assert np.array_equal(file.array("0/value"), np.arange(12, dtype=np.float32).reshape(3, 4))
    assert file.array("0/vectors").shape == (0, 4)
    assert file.source_ids(100).tolist() == [100, 102, 103]
    assert [path.name for path in shard.parent.iterdir()] == [shard.name]


def test_every_flipped_byte_is_found(shard):
    whole = shard.read_bytes()
    for place in range(0, len(whole), 5):
        broken = bytearray(whole)
        broken[place] ^= 1
        shard.write_bytes(broken)
        with pytest.raises(StoreError):
            ShardFile.open(shard)


@pytest.mark.parametrize("left", [0, 4, 40, 60, -1])
def test_a_file_cut_short_is_refused(shard, left):
    shard.write_bytes(shard.read_bytes()[:left])
    with pytest.raises(StoreError):
        ShardFile.open(shard)
