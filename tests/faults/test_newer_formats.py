"""What a newer version wrote is refused by its number, or made anew: its words may mean something else by then."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_world import rows_of, write_table

from dvp.data.arrow import Table
from dvp.data.pictures import noted_hashes, picture_hashes
from dvp.data.token_cache import TokenCache
from dvp.errors import UserError
from dvp.files import read_description
from dvp.manifest import read_manifest
from dvp.search.record import read_search, write_search
from dvp.sweep.record import read_cells, write_cell

OLD = Path(__file__).parents[1] / "golden" / "formats" / "unversioned" / "bert"
Made = tuple[Path, Callable[[], Any]]  # a file of today's format, and what reads it: nothing where it is not taken


def checkpoint(folder: Path) -> Made:
    path = Path(shutil.copytree(OLD / "adapters.ckpt", folder / "a.ckpt")) / "description.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 1}))
    return path, lambda: read_description(str(path.parent))


def search(folder: Path) -> Made:
    path, known = folder / "search.json", {"found": True, "decided": True, "verdict": "K = 1", "tables": {}}
    write_search(path, {"insert_layer": 1, "finished": True, "config": {}} | known)
    return path, lambda: read_search(path)


def cell(folder: Path) -> Made:
    write_cell(folder, {"layer": 1, "seed": 0, "value": 0.5, "seconds": 3.0, "updates": 4})
    return folder / "cells" / "K1_seed0.json", lambda: read_cells(folder)


def manifest(folder: Path) -> Made:
    path = folder / "gqa_manifest.json"
    path.write_text('{"version": 1, "files": {}, "options": {}}')
    return path, lambda: read_manifest(folder, "gqa")


def image_tokens(folder: Path) -> Made:
    written, cache = (TokenCache(folder, {}, (1, 2), torch.float32) for _ in range(2))
    written.claim()
    written.add(["00"], torch.ones(1, 1, 2))
    written.flush()
    return next(written.folder.glob("*.shard.json")), lambda: [cache.open(), cache.rows][1]


def note_of_pictures(folder: Path) -> Made:
    write_table(folder / "vqav2_train.arrow", rows_of("vqa", "train"))
    table = Table(folder / "vqav2_train.arrow")
    picture_hashes(table, folder / "notes")
    return next((folder / "notes").glob("*.json")), lambda: noted_hashes(table, folder / "notes")


# What makes one, and up to which format it is read
KINDS: dict[Callable[[Path], Made], str] = {
    checkpoint: "dvp.files.FORMAT",
    search: "dvp.search.record.VERSION",
    cell: "dvp.sweep.record.VERSION",
    manifest: "dvp.manifest.manifest.VERSION",
    image_tokens: "dvp.data.token_cache.FORMAT",
    note_of_pictures: "dvp.data.pictures.FORMAT",
}
MADE_ANEW = (image_tokens, note_of_pictures)


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_a_newer_file_is_not_taken_for_one_of_todays(
    make: Callable[[Path], Made], guarded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read = make(tmp_path)
    content = json.loads(path.read_text())
    (key,) = {"format", "version"} & content.keys()
    path.write_text(json.dumps(content | {key: 99}))
    if not guarded:
        monkeypatch.setattr(KINDS[make], 99)
    elif make not in MADE_ANEW:
        with pytest.raises(UserError, match=f"{path.parent.name}.* has format 99, this code reads up to 1"):
            read()
        return
    assert bool(read()) != guarded
