"""The distinct pictures of the tables: found by their bytes, read but once, each encoded once."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_world import PIXELS, picture, rows_of, write_table

from dvp.data.arrow import Table, open_table
from dvp.data.pictures import CachedPictures, encode_pictures, missing_pictures, noted_hashes, picture_hashes
from dvp.data.token_cache import TokenCache
from dvp.encoders import CLIP
from dvp.encoders.transform import prepare
from dvp.errors import UserError
from dvp.manifest import image_hash

OLD = Path(__file__).parents[1] / "golden" / "formats" / "unversioned" / "bert"


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """A table of four pictures, the last of them the first again."""
    rows = rows_of("vqa", "train")
    rows[3]["image"] = rows[0]["image"]
    write_table(tmp_path / "vqav2_train.arrow", rows)
    return open_table(str(tmp_path), "vqav2", "train")


@pytest.fixture
def cache(tmp_path: Path) -> TokenCache:
    return TokenCache(tmp_path / "image_tokens", {}, (1, 3), torch.float32)


def test_hashes_are_read_from_the_note_until_the_file_changes(table, tmp_path: Path, capsys) -> None:
    path, notes = table.path, tmp_path / "notes"
    hashes = picture_hashes(table, notes)
    assert hashes == [image_hash(picture(seed)) for seed in (0, 1, 2, 0)]
    table.rows = table.rows.take([1] * 4)
    assert picture_hashes(table, notes) == hashes  # without a look at the rows
    assert picture_hashes(Table(path, (), np.array([0, 2])), notes) == [hashes[0], hashes[2]]
    before = path.stat()
    path.write_bytes(path.read_bytes())  # as large as before
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert picture_hashes(table, notes) == hashes[1:2] * 4


@pytest.mark.parametrize("note", sorted((OLD / "image_tokens" / "pictures").iterdir()), ids=lambda note: note.stem)
def test_a_note_of_before_there_were_formats_is_read(note: Path, tmp_path: Path) -> None:
    name, _, changed = note.stem.rsplit("-", 2)
    path = Path(shutil.copy(OLD / "data" / f"{name}.arrow", tmp_path))
    os.utime(path, ns=(int(changed), int(changed)))
    table = Table(path)
    assert noted_hashes(table, note.parent) == [image_hash(one) for one in table["image"].to_pylist()]


def test_each_distinct_picture_is_encoded_once_and_found_from_every_row(table, cache: TokenCache) -> None:
    hashes = picture_hashes(table, table.path.parent / "notes")
    seen = []

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        seen.extend(pixels)
        return pixels.mean((2, 3))[:, None]  # (B, 1, 3)

    options = {"batch_size": 2, "num_workers": 0, "progress": False}
    for expected in (3, 0):
        missing = missing_pictures(cache, [(table, hashes), (table, hashes)])
        assert len(missing) == expected
        encode_pictures(cache, missing, lambda image: prepare(image, CLIP.at(PIXELS)), encode, **options)
        cache.open()
    assert len(seen) == 3
    pictures = CachedPictures(cache, {"train": hashes}, encode)
    numbers = torch.from_numpy(pictures.numbers["train"])
    assert numbers.tolist() == [0, 1, 2, 0]
    tokens = pictures.tokens(numbers, None, None)
    torch.testing.assert_close(tokens[:3, 0], torch.stack(seen).mean((2, 3)), rtol=0, atol=0)


def test_a_picture_that_another_node_encoded_elsewhere_is_asked_for(cache: TokenCache) -> None:
    with pytest.raises(UserError, match="run.py encode. on each of them"):
        CachedPictures(cache, {"train": ["unknown"]}, torch.sin).require_all()


def test_a_picture_is_encoded_when_it_is_first_met(cache: TokenCache) -> None:
    encoded = []

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        encoded.extend(pixels.flatten().tolist())
        return pixels.view(-1, 1, 1).expand(-1, 1, 3)

    pictures = CachedPictures(cache, {"train": ["a", "b"], "dev": ["b", "c"]}, encode)
    assert pictures.numbers["dev"].tolist() == [1, 2]
    for met, now in (([1, 1], [1]), ([0, 1, 2], [0, 2]), ([2], [])):  # the loader had read 1 and 2 too early
        pixels = torch.tensor(met, dtype=torch.float).view(-1, 1, 1, 1)
        tokens = pictures.tokens(torch.tensor([1, *met]), torch.tensor(met), pixels)
        assert tokens[:, 0, 0].tolist() == [1, *met]
        assert encoded == now
        encoded.clear()
    assert pictures.known.all()
