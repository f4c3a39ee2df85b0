"""The token cache: what it returns, what it survives."""

import shutil
import subprocess
import sys
from collections import namedtuple

import pytest
import torch

from dvp.errors import UserError
from dvp.token_cache import TokenCache, image_hash

ABOUT = {"encoder": "some weights", "transform": "some transform"}


def a_cache(folder, about=ABOUT, dtype=torch.float32, shape=(5, 8)):
    return TokenCache(folder, about, shape, dtype)


def some_tokens(count, start=0, shape=(5, 8)):
    hashes = [image_hash(bytes([start + i])) for i in range(count)]
    return hashes, torch.randn(count, *shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_read_equals_written_bit_for_bit_in_the_stored_dtype(tmp_path, dtype):
    cache = a_cache(tmp_path, dtype=dtype)
    hashes, tokens = some_tokens(7)
    cache.add([(hashes[:4], tokens[:4]), (hashes[4:], tokens[4:])])
    cache.open()
    order = [6, 0, 3, 3]
    rows = torch.tensor([cache.rows[hashes[i]] for i in order])
    assert torch.equal(cache.gather(rows), tokens.to(dtype)[order])


def test_it_grows_over_shards_and_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("dvp.token_cache.SHARD_BYTES", 3 * 5 * 8 * 4)  # three images each
    first, second = some_tokens(7), some_tokens(4, start=100)
    a_cache(tmp_path).add([(first[0][i : i + 2], first[1][i : i + 2]) for i in range(0, 7, 2)])
    a_cache(tmp_path).add([second])
    cache = a_cache(tmp_path)
    assert len(cache.shards) > 2
    hashes, tokens = first[0] + second[0], torch.cat([first[1], second[1]])
    assert set(cache.rows) == set(hashes)
    assert torch.equal(cache.gather(torch.tensor([cache.rows[hash_] for hash_ in hashes])), tokens)


@pytest.mark.parametrize(
    "change",
    [
        {"about": ABOUT | {"encoder": "other weights"}},
        {"about": ABOUT | {"transform": "other transform"}},
        {"dtype": torch.bfloat16},
        {"shape": (10, 4)},
    ],
)
def test_a_stale_key_never_matches(tmp_path, change):
    a_cache(tmp_path).add([some_tokens(3)])
    assert a_cache(tmp_path).rows
    assert not a_cache(tmp_path, **change).rows


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_a_damaged_shard_is_named_and_its_images_are_missing_again(tmp_path, capsys, damage):
    cache = a_cache(tmp_path)
    kept, lost = some_tokens(2), some_tokens(3, start=50)
    cache.add([kept])
    before = set(cache.folder.glob("*.tokens"))
    cache.add([lost])
    (shard,) = set(cache.folder.glob("*.tokens")) - before
    data = bytearray(shard.read_bytes())
    data[17] ^= 1
    shard.write_bytes(data if damage == "flip" else data[:-1])
    cache.open()
    assert str(shard) in capsys.readouterr().out
    assert set(cache.rows) == set(kept[0])
    cache.add([lost])
    cache.open()
    assert torch.equal(cache.gather(torch.tensor([cache.rows[hash_] for hash_ in lost[0]])), lost[1])


def test_tokens_without_a_listing_do_not_exist(tmp_path):
    cache = a_cache(tmp_path)
    cache.add([some_tokens(2)])
    next(cache.folder.glob("*.shard.json")).unlink()
    cache.open()
    assert not cache.rows


def test_a_full_disk_stops_before_anything_is_written(tmp_path, monkeypatch, capsys):
    cache = a_cache(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(5 * 8 * 4 * 10))
    cache.check_room(10)
    assert "10 images" in capsys.readouterr().out
    with pytest.raises(UserError, match="free"):
        cache.check_room(11)


def test_a_second_builder_waits_and_finds_it_built(tmp_path):
    script = (
        "import sys; from tests.test_token_cache import a_cache\n"
        "cache = a_cache(sys.argv[1])\n"
        "with cache.building(): print('found', len(cache.rows), flush=True)"
    )
    cache = a_cache(tmp_path)
    with cache.building():
        other = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert "waiting" in other.stdout.readline()
        cache.add([some_tokens(3)])
    assert other.communicate(timeout=60)[0].strip() == "found 3"
