"""JSON, configs and command lines that are hostile or odd: each is taken for what it says or refused in a sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile import cases, taken_or_refused
from hypothesis import given
from hypothesis import strategies as st
from tiny_world import rows_of, write_table

from dvp.checkpoints import TrainedOnly, read_progress
from dvp.commands import ex
from dvp.config import check
from dvp.config.rules import RULES
from dvp.config.saved import read_saved
from dvp.data.arrow import Table, read_answers
from dvp.data.pictures import picture_hashes
from dvp.data.token_cache import TokenCache
from dvp.errors import UserError
from dvp.files import read_description, read_json, write_checksums
from dvp.runs.told import settings_told
from dvp.search.record import read_search
from dvp.sweep.record import read_cells
from dvp.tasks import TASKS

scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
)
DEEP = [b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b"9" * 5000]


@st.composite
def hostile(draw: Callable[..., Any], good: bytes) -> bytes:
    """The bytes of a JSON file: other JSON, this one damaged, with other values, with a byte-order mark, or no JSON."""
    way = draw(st.sampled_from(["other", "deep", "cut", "flip", "value", "value", "value", "binary", "mark", "utf-16"]))
    if way == "other":
        return json.dumps(draw(json_values)).encode()
    if way == "deep":
        return draw(st.sampled_from(DEEP))
    if way == "cut":
        return good[: draw(st.integers(0, len(good)))]
    if way == "flip":
        data, at = bytearray(good), draw(st.integers(0, max(0, len(good) - 1)))
        data[at] ^= 1 << draw(st.integers(0, 7))
        return bytes(data)
    if way == "binary":
        return draw(st.binary(max_size=64))
    if way == "mark":
        return b"\xef\xbb\xbf" + good
    if way == "utf-16":
        return good.decode().encode("utf-16")
    content = json.loads(good)
    where = content
    for _ in range(draw(st.integers(0, 4))):
        inner = [key for key, value in _items(where) if isinstance(value, dict | list) and value]
        if not inner:
            break
        where = where[draw(st.sampled_from(inner))]
    key = draw(st.sampled_from([key for key, _ in _items(where)]))
    if draw(st.booleans()) and isinstance(where, dict):
        del where[key]
    else:
        where[key] = draw(json_values)
    return json.dumps(content).encode()


def _items(content: dict | list) -> list[tuple[Any, Any]]:
    return list(content.items() if isinstance(content, dict) else enumerate(content))


OLD = Path(__file__).parents[1] / "golden" / "formats" / "unversioned" / "bert"
SEARCH = {
    "version": 1, "finished": True, "insert_layer": 1, "found": True, "decided": False, "verdict": "K = 1",
    "kab": "mean",
    "tables": {"a.arrow": 3}, "config": {"tokenizer": "a"}, "updates": 3, "seconds": 1.5,
}  # fmt: skip
CELL = {"version": 1, "layer": 1, "seed": 0, "value": 0.5, "seconds": 3.0, "updates": 4}


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@cases(200)
@given(data=hostile(b'{"a": [1, 2.5, "x", null, true], "b": {"c": "d"}}'))
def test_json_is_what_python_reads_or_is_refused(data: bytes, place: Path) -> None:
    path = write(place / "any.json", data)
    found = taken_or_refused(lambda: [read_json(path, object)], str(path))
    if found:
        assert found == [json.loads(data.decode("utf-8-sig"))]


NO_OBJECTS = [b"null", b"[]", b'"x"', b'{"a": NaN}', b'{"a": -Infinity}', *DEEP[:2], b"\xff\xfe", b""]


@pytest.mark.parametrize("data", NO_OBJECTS, ids=range(len(NO_OBJECTS)))
def test_what_is_no_object_or_no_number_is_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="x.json"):
        read_json(write(tmp_path / "x.json", data))


@cases(150)
@given(data=hostile(json.dumps(SEARCH).encode()) | hostile((OLD / "search.json").read_bytes()))
def test_the_record_of_a_search(data: bytes, place: Path) -> None:
    path = write(place / "search" / "search.json", data)
    found = taken_or_refused(lambda: read_search(path), str(path))
    if found:
        kinds = {"insert_layer": int, "finished": bool, "verdict": str}
        assert {name: type(found[name]) for name in kinds} == kinds


@cases(100)
@given(data=hostile(json.dumps(CELL).encode()))
def test_a_cell_of_a_sweep(data: bytes, place: Path) -> None:
    path = write(place / "sweep" / "cells" / "K1_seed0.json", data)
    taken_or_refused(lambda: read_cells(place / "sweep"), str(path))


@cases(150)
@given(data=hostile((OLD / "adapters.ckpt" / "description.json").read_bytes()))
def test_the_description_of_a_checkpoint(data: bytes, place: Path) -> None:
    folder = write(place / "described.ckpt" / "description.json", data).parent
    if taken_or_refused(lambda: read_description(str(folder)), str(folder)):
        told = settings_told(str(folder), on_gpu=False)
        taken_or_refused(lambda: check(ex.settings | told))


@pytest.fixture(scope="module")
def search_folder(place: Path) -> Path:
    return Path(shutil.copytree(OLD / "search.ckpt", place / "search.ckpt"))


@cases(150)
@given(data=hostile((OLD / "search.ckpt" / "training.json").read_bytes()))
def test_the_state_of_a_training(data: bytes, search_folder: Path) -> None:
    write(search_folder / "training.json", data)
    taken_or_refused(lambda: read_progress(str(search_folder)), str(search_folder))
    taken_or_refused(lambda: TrainedOnly().load_checkpoint(str(search_folder)), "training")


@cases(100)
@given(data=hostile(b'["yes", "no", "red", "two"]'))
def test_a_vocabulary(data: bytes, place: Path) -> None:
    path = write(place / "words" / "vqav2_answers.json", data)
    found = taken_or_refused(lambda: read_answers(str(path.parent), TASKS["vqa"]), str(path))
    assert found is None or found and all(isinstance(answer, str) for answer in found)


@cases(80)
@given(data=hostile(b'{"format": 1, "images": ["00", "01"], "crc32": 3964322768}'))
def test_the_listing_of_a_cache_is_whole_or_its_pictures_are_encoded_again(data: bytes, place: Path) -> None:
    cache = TokenCache(place / "cache", {"encoder": "x"}, (2, 4), torch.float32)
    write(cache.folder / "a.tokens", bytes(64))
    write(cache.folder / "a.shard.json", data)
    damaged = cache.open()
    assert bool(damaged) != (cache.rows == {"00": 0, "01": 1})


@cases(60)
@given(data=hostile(b'["00", "01", "02", "03"]') | hostile(b'{"format": 1, "hashes": ["00", "01", "02", "03"]}'))
def test_the_note_of_a_tables_pictures(data: bytes, place: Path) -> None:
    path = place / "vqav2_train.arrow"
    if not path.is_file():
        write_table(path, rows_of("vqa", "train"))
    table, stat = Table(path), path.stat()
    note = write(place / "notes" / f"{path.stem}-{stat.st_size}-{stat.st_mtime_ns}.json", data)
    found = taken_or_refused(lambda: picture_hashes(table, note.parent), str(note))
    assert found is None or len(found) == len(table)


# Settings


@cases(300)
@given(key=st.sampled_from(sorted(RULES)), value=json_values)
def test_any_value_of_a_setting(key: str, value: Any) -> None:
    taken_or_refused(lambda: check(ex.settings | {key: value}))


WORDS = ["with", "predict", "dvp_search_bert_vqa", "shapes", "learning_rate=", "=", "--force", "-u", "seed=1", "x.json"]
VALUES = st.text(max_size=12) | st.sampled_from(["1e999", "[", "((" * 500, "nan", "{1: 2}", "'"])
SETTINGS = st.builds("{}={}".format, st.sampled_from(sorted(RULES)), VALUES)


@cases(200)
@given(words=st.lists(st.sampled_from(WORDS) | SETTINGS | st.text(max_size=12), min_size=1, max_size=4))
def test_any_words(words: list[str]) -> None:
    taken_or_refused(lambda: ex.check_command_line(*ex._in_place(words)))


@cases(150)
@given(ending=st.sampled_from(["json", "yaml"]), data=hostile(b'{"seed": 1, "end_lr": 0.1, "datasets": ["vqa"]}'))
def test_a_file_of_settings(ending: str, data: bytes, place: Path) -> None:
    path = write(place / f"saved.{ending}", data)
    taken_or_refused(lambda: read_saved(str(path)), str(path))


def test_checksums_name_the_file(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(OLD / "adapters.ckpt", tmp_path / "a.ckpt"))
    write_checksums(folder)
    read_description(str(folder))
    write(folder / "description.json", (folder / "description.json").read_bytes() + b" ")
    with pytest.raises(UserError, match="description.json is not as it was written"):
        read_description(str(folder))
