"""The token cache: what it returns, what it survives."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from two_processes import beside

from dvp.data.token_cache import NotNow, TokenCache
from dvp.manifest import image_hash

OLD = Path(__file__).parents[1] / "golden" / "formats" / "unversioned" / "bert" / "image_tokens"
ABOUT = {"encoder": "some weights", "transform": "some transform"}


def a_cache(
    folder: Path, about: dict = ABOUT, dtype: torch.dtype = torch.float32, shape: tuple[int, int] = (5, 8)
) -> TokenCache:
    cache = TokenCache(folder, about, shape, dtype)
    assert (cache.claim(), cache.open()) == ("", [])
    return cache


def some_tokens(count: int, start: int = 0) -> tuple[list[str], Tensor]:
    return [image_hash(bytes([start + i])) for i in range(count)], torch.randn(count, 5, 8)


def fill(cache: TokenCache, encoded: tuple[list[str], Tensor]) -> None:
    cache.add(*encoded)
    cache.flush()


def read(cache: TokenCache, hashes: list[str]) -> Tensor:
    return cache.gather(torch.tensor([cache.rows[hash_] for hash_ in hashes]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_read_equals_written_bit_for_bit_in_the_stored_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    hashes, tokens = some_tokens(7)
    cache = a_cache(tmp_path, dtype=dtype)
    for part in (slice(4), slice(4, None)):
        cache.add(hashes[part], tokens[part])
        assert torch.equal(read(cache, hashes[part]), tokens[part].to(dtype))  # at once, from memory
    cache.flush()
    order = [6, 0, 3, 3]
    found = read(a_cache(tmp_path, dtype=dtype), [hashes[i] for i in order])
    assert torch.equal(found, tokens.to(dtype)[order])


def test_it_grows_over_shards_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dvp.data.token_cache.SHARD_BYTES", 3 * 5 * 8 * 4)  # three images each
    first, second = some_tokens(7), some_tokens(4, start=100)
    grown = a_cache(tmp_path)
    for i in range(0, 7, 2):
        grown.add(first[0][i : i + 2], first[1][i : i + 2])
    grown.open()
    fill(a_cache(tmp_path), second)
    grown.open()
    hashes, tokens = first[0] + second[0], torch.cat([first[1], second[1]])
    for cache in (grown, a_cache(tmp_path)):
        assert len(cache.shards) > 2
        assert set(cache.rows) == set(hashes)
        assert torch.equal(read(cache, hashes), tokens)


def test_what_is_lacking_after_a_kill_begins_with_a_whole_batch(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("dvp.data.token_cache.SHARD_BYTES", 3 * 5 * 8 * 4)
    (hashes, tokens), killed = some_tokens(12), a_cache(tmp_path)
    for size in (2, 2, 8):  # of which the last is more than a shard should hold
        start = len(killed.rows)
        killed.add(hashes[start : start + size], tokens[start : start + size])
        assert len(a_cache(tmp_path).rows) in (0, 2, 4, 12)
    assert torch.equal(read(a_cache(tmp_path), hashes), tokens)


@pytest.mark.parametrize(
    "change",
    [
        {"about": ABOUT | {"encoder": "other weights"}},
        {"about": ABOUT | {"transform": "other transform"}},
        {"dtype": torch.bfloat16},
        {"shape": (10, 4)},
    ],
)
def test_a_stale_key_never_matches(tmp_path: Path, change: dict) -> None:
    fill(a_cache(tmp_path), some_tokens(3))
    assert a_cache(tmp_path).rows
    assert not a_cache(tmp_path, **change).rows


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[17] ^= 0x80
    path.write_bytes(data)


DAMAGE = {
    "truncated": lambda tokens, listing: tokens.write_bytes(tokens.read_bytes()[:-1]),
    "bit flipped": lambda tokens, listing: flip(tokens),
    "missing": lambda tokens, listing: tokens.unlink(),
    "truncated listing": lambda tokens, listing: listing.write_text(listing.read_text()[:-9]),
    "bit flipped listing": lambda tokens, listing: flip(listing),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_shard_is_named_and_its_images_are_missing_again(tmp_path: Path, capsys, damage: str) -> None:
    kept, lost = some_tokens(2), some_tokens(3, start=50)
    fill(a_cache(tmp_path), kept)
    before = set(tmp_path.rglob("*.tokens"))
    fill(a_cache(tmp_path), lost)
    (shard,) = set(tmp_path.rglob("*.tokens")) - before
    DAMAGE[damage](shard, shard.with_suffix(".shard.json"))
    cache = TokenCache(tmp_path, ABOUT, (5, 8), torch.float32)
    with cache.building():
        assert str(shard) in capsys.readouterr().out
        assert set(cache.rows) == set(kept[0])
        fill(cache, lost)
    assert torch.equal(read(a_cache(tmp_path), kept[0] + lost[0]), torch.cat([kept[1], lost[1]]))


def test_a_cache_of_before_there_were_formats_opens(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(OLD, tmp_path / "cache"))
    (kept,) = folder.glob("*/about.json")
    about = json.loads(kept.read_text())
    shape, dtype = about.pop("shape"), about.pop("dtype")
    cache = TokenCache(folder, about, tuple(shape), getattr(torch, dtype.removeprefix("torch.")))
    assert cache.open() == [] and cache.folder == kept.parent
    (listing,) = cache.folder.glob("*.shard.json")
    images = json.loads(listing.read_text())["images"]
    tokens = np.fromfile(listing.with_name(listing.name.replace(".shard.json", ".tokens")), np.float32)
    assert len(images) == 16 and np.array_equal(read(cache, images).numpy().ravel(), tokens)


@pytest.mark.parametrize("format_", [2, "1"])
def test_a_shard_of_a_newer_format_does_not_open(format_: int | str, tmp_path: Path) -> None:
    cache = a_cache(tmp_path)
    fill(cache, some_tokens(2))
    (listing,) = cache.folder.glob("*.shard.json")
    listing.write_text(json.dumps(json.loads(listing.read_text()) | {"format": format_}))
    again = TokenCache(tmp_path, ABOUT, (5, 8), torch.float32)
    assert again.open() and not again.rows


def test_what_a_broken_run_left_is_removed_by_the_next_that_builds(tmp_path: Path) -> None:
    cache = a_cache(tmp_path)
    fill(cache, some_tokens(2))
    (whole,) = cache.folder.glob("*.tokens")
    for leftover in ("5-a.tokens", ".5-b.tokens.77.tmp"):
        (cache.folder / leftover).write_bytes(b"half")
    cache = a_cache(tmp_path)
    assert len(cache.rows) == 2
    with cache.building():
        assert {path.name for path in cache.folder.iterdir()} == {
            whole.name, whole.with_suffix(".shard.json").name, "about.json", "lock"
        }  # fmt: skip


def test_the_key_stands_in_the_folder(tmp_path: Path) -> None:
    about = json.loads((a_cache(tmp_path).folder / "about.json").read_text(encoding="utf-8"))
    assert about == {"format": 1} | ABOUT | {"shape": [5, 8], "dtype": "torch.float32"}


def test_the_size_is_printed_and_compared_with_the_disk(tmp_path: Path, monkeypatch, capsys) -> None:
    cache = a_cache(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(5 * 8 * 4 * 10))
    assert cache.shortage(10) == ""
    assert "10 images" in capsys.readouterr().out
    assert "make room, or use image_tokens=live" in cache.shortage(11)
    cache.shortage(1)
    assert "Encoding 1 image into" in capsys.readouterr().out
    assert (cache.shortage(0), capsys.readouterr().out.count("0 images")) == ("", 0)


def test_a_second_builder_waits_and_finds_it_built(tmp_path: Path) -> None:
    def build() -> None:
        cache = a_cache(tmp_path)
        with cache.building():
            print("found", len(cache.rows))

    cache = a_cache(tmp_path)
    with beside(build) as other:
        with cache.building():
            other.begin()
            assert "waiting" in other.said.readline()
            fill(cache, some_tokens(3))
        assert other.said.readline() == "found 3\n"


def test_who_does_not_wait_is_told_that_another_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = a_cache(tmp_path), a_cache(tmp_path)
    with first.building(), pytest.raises(NotNow, match="another run is building"), second.building(wait=False):
        pass
    with second.building(wait=False):
        pass
    monkeypatch.setattr("dvp.data.token_cache.fcntl.flock", lambda *lock: None)
    with first.building(), second.building(wait=False):  # without the lock both build
        pass


def test_what_is_not_flushed_is_not_there_for_others(tmp_path: Path) -> None:
    cache, tokens = a_cache(tmp_path), some_tokens(3)
    cache.add(*tokens)
    assert not a_cache(tmp_path).rows
    cache.flush()
    cache.flush()
    assert torch.equal(read(a_cache(tmp_path), tokens[0]), tokens[1])
    assert len(list(tmp_path.rglob("*.tokens"))) == 1
