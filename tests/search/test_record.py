"""search.json: where an adaption finds its K, and which searches it may not take it from."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dvp.errors import UserError
from dvp.prepare.tables import writing
from dvp.search import agreeing_search, latest_search, result_lines, tables_of

CONFIG = {
    "exp_name": "dvp_adaption_bert_vqa", "language_model": "BERT", "tokenizer": "bert", "datasets": "vqa",
    "clip_model": "ViT-B/16", "use_adapter": False, "data_root": "data", "image_tokens": "auto",
}  # fmt: skip
TABLES = {"vqav2_train.arrow": 700}
SEARCH = "dvp_search_bert_vqa"


def note_search(folder: Path, insert_layer: int, age: int, search: dict[str, Any] | None = None, **config: Any) -> Path:
    """Write a search that found K, with `search` for its results and `config` for its settings."""
    folder.mkdir(parents=True)
    known = {
        "version": 1,
        "finished": True,
        "found": True,
        "decided": True,
        "verdict": f"K = {insert_layer}; 0 is worse",
    }
    content = known | {"insert_layer": insert_layer, "tables": TABLES} | (search or {}) | {"config": CONFIG | config}
    path = folder / "search.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    os.utime(path, (10**9 - age, 10**9 - age))
    return path


def test_the_newest_search_that_agrees_is_taken_and_named_with_what_it_knows(tmp_path: Path, capsys) -> None:
    note_search(tmp_path / "old" / "version_0", 1, age=9)
    note_search(tmp_path / "new" / "version_0", 2, age=5)
    assert latest_search(tmp_path, CONFIG, TABLES | {"vqav2_test.arrow": 9}, SEARCH).insert_layer == 2
    out = capsys.readouterr().out
    assert out == f"insert_layer=auto: K = 2, from {tmp_path / 'new/version_0/search.json'}: K = 2; 0 is worse\n"


OTHER = {
    "task": ({}, {"datasets": "gqa"}, "datasets=gqa, not vqa"),
    "language model": ({}, {"language_model": "T5"}, "language_model=T5, not BERT"),
    "its folder": ({}, {"tokenizer": "other"}, "tokenizer=other, not bert"),
    "image encoder": ({}, {"clip_model": "ViT-L/14"}, "clip_model=ViT-L/14, not ViT-B/16"),
    "data": ({"tables": {"vqav2_train.arrow": 701}}, {}, "other tables than those in data"),
    "unfinished": ({"finished": False}, {}, "was not finished"),
    "blind": ({}, {"image_tokens": "zero"}, "was blind (image_tokens=zero)"),
    "undecided": ({"found": False, "verdict": "undecided: search longer"}, {}, "is undecided: search longer"),
}


@pytest.mark.parametrize("case", OTHER)
def test_a_search_of_something_else_or_of_no_use_is_passed_over_or_refused(case: str, tmp_path: Path, capsys) -> None:
    search, config, reason = OTHER[case]
    path = note_search(tmp_path / "other", 3, age=1, search=search, **config)
    with pytest.raises(UserError) as error:
        latest_search(tmp_path, CONFIG, TABLES, SEARCH)
    assert reason in str(error.value) and str(path) in str(error.value)
    assert f"run `python run.py with {SEARCH}" in str(error.value)
    note_search(tmp_path / "right", 2, age=5)
    assert latest_search(tmp_path, CONFIG, TABLES, SEARCH).insert_layer == 2
    assert f"passes over {path}: it" in capsys.readouterr().out


def test_searches_that_are_passed_over_have_one_line(tmp_path: Path, capsys) -> None:
    newest = note_search(tmp_path / "newest", 3, age=1, search={"finished": False})
    for number in range(3):
        note_search(tmp_path / str(number), 3, age=2 + number, datasets="gqa")
    note_search(tmp_path / "right", 2, age=9)
    latest_search(tmp_path, CONFIG, TABLES, SEARCH)
    passed, _ = capsys.readouterr().out.splitlines()
    assert passed == f"insert_layer=auto passes over 4 searches, such as {newest}: it was not finished"


@pytest.mark.parametrize("starts", [True, False])
def test_a_search_that_was_interrupted_is_named_with_what_goes_on(starts: bool, tmp_path: Path) -> None:
    others = {"a training": {"search_stage": False}, "another": {"datasets": "gqa"}}
    for name, config in ({"ours": {}} | others).items():
        (tmp_path / name / "checkpoints" / "last.ckpt").mkdir(parents=True)
        claim = {"format": 1, "config": CONFIG | {"search_stage": True} | config}
        (tmp_path / name / "claim.json").write_text(json.dumps(claim), encoding="utf-8")
    with pytest.raises(UserError) as error:
        latest_search(tmp_path, CONFIG, TABLES, SEARCH, starts)
    ours = tmp_path / "ours"
    goes_on = f"resume_from={ours / 'checkpoints' / 'last.ckpt'} goes on with it"
    assert f"({ours}: it was interrupted, or still runs; {goes_on})" in str(error.value)
    assert not any(str(tmp_path / other) in str(error.value) for other in others)


def test_a_search_that_trained_the_same_parts_goes_first(tmp_path: Path, capsys) -> None:
    note_search(tmp_path / "adapters", 3, age=1, use_adapter=True)
    assert latest_search(tmp_path, CONFIG, TABLES, SEARCH).insert_layer == 3  # the only one
    assert "searched with adapters" in capsys.readouterr().out
    note_search(tmp_path / "whole", 2, age=5)
    assert latest_search(tmp_path, CONFIG, TABLES, SEARCH).insert_layer == 2
    assert "searched" not in capsys.readouterr().out


def test_weights_for_adapters_come_from_a_search_with_adapters(tmp_path: Path, capsys) -> None:
    adapters, whole = CONFIG | {"use_adapter": True}, note_search(tmp_path / "whole", 2, age=1)
    assert latest_search(tmp_path, adapters, TABLES, SEARCH).insert_layer == 2  # K alone
    with pytest.raises(UserError, match="start_from=search found no search.*search with use_adapter=True"):
        latest_search(tmp_path, adapters, TABLES, SEARCH, starts=True)
    assert latest_search(tmp_path, CONFIG, TABLES, SEARCH, starts=True).path == whole
    note_search(tmp_path / "adapters", 3, age=5, use_adapter=True)
    assert latest_search(tmp_path, adapters, TABLES, SEARCH, starts=True).insert_layer == 3
    assert "start_from=search: K = 3, from" in capsys.readouterr().out


def test_weights_for_adapters_of_a_kind_come_from_a_search_with_that_kind(tmp_path: Path, capsys) -> None:
    lora, whole = CONFIG | {"use_adapter": "lora"}, note_search(tmp_path / "whole", 2, age=3)
    note_search(tmp_path / "ours", 1, age=1, use_adapter=True)
    with pytest.raises(UserError, match="trained adapters, and this run lora adapters: search with use_adapter=lora"):
        latest_search(tmp_path, lora, TABLES, SEARCH, starts=True)
    assert latest_search(tmp_path, lora, TABLES, SEARCH).insert_layer == 1  # K alone, of the newest
    assert "(searched with adapters)" in capsys.readouterr().out
    note_search(tmp_path / "lora", 3, age=5, use_adapter="lora")
    assert latest_search(tmp_path, lora, TABLES, SEARCH, starts=True).insert_layer == 3
    assert latest_search(tmp_path, CONFIG, TABLES, SEARCH, starts=True).path == whole


def test_the_same_folder_by_another_path_agrees(tmp_path: Path) -> None:
    note_search(tmp_path / "one", 1, age=1, tokenizer=str(Path("bert").resolve()))
    assert latest_search(tmp_path, CONFIG, TABLES, SEARCH).insert_layer == 1


@pytest.mark.parametrize("best, layer", [(0.97, 1), (0.26, None)])
def test_a_search_of_before_there_were_versions_is_read(best: float, layer: int | None, tmp_path: Path) -> None:
    rest = (1 - best) / 3
    old = {"finished": True, "insert_layer": 1, "probabilities": [rest, best, rest, rest], "config": CONFIG}
    (tmp_path / "search.json").write_text(json.dumps(old), encoding="utf-8")
    if layer is not None:
        assert latest_search(tmp_path, CONFIG, TABLES, SEARCH).insert_layer == layer
        return
    with pytest.raises(UserError, match=r"is undecided: the best arm's probability is 0\.26"):
        latest_search(tmp_path, CONFIG, TABLES, SEARCH)


@pytest.mark.parametrize("text, message", [('{"version": 99}', "format 99"), ('{"vers', "damaged")])
def test_a_newer_or_damaged_record_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "search.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        latest_search(tmp_path, CONFIG, TABLES, SEARCH)


def test_tables_are_those_of_the_task(tmp_path: Path) -> None:
    for name, size in (("vqav2_train.arrow", 3), ("gqa_train.arrow", 4), ("vqav2_answers.json", 5)):
        (tmp_path / name).write_bytes(bytes(size))
    assert tables_of(tmp_path, "vqav2") == {"vqav2_train.arrow": 3}


def test_converted_tables_are_told_apart_by_their_hash(tmp_path: Path, capsys) -> None:
    """Records of before there were hashes tell their bytes alone, and go on being read."""
    with writing(str(tmp_path / "data"), "vqav2", {"options": {}}) as tables:
        tables.write("vqav2_train", pa.schema({"image": pa.binary()}), [{"image": b"picture"}])
    tables = tables_of(tmp_path / "data", "vqav2")
    size, hash_ = tables["vqav2_train.arrow"]
    for number, (then, agrees) in enumerate(
        [([size, hash_], True), ([size, "other"], False), (size, True), (1, False)]
    ):
        log_dir = tmp_path / str(number)
        note_search(log_dir, 2, age=1, search={"tables": {"vqav2_train.arrow": then}})
        assert (agreeing_search(log_dir, CONFIG, tables)[0] is not None) == agrees
    note_search(tmp_path / "now", 2, age=1, search={"tables": tables})
    assert agreeing_search(tmp_path / "now", CONFIG, {"vqav2_train.arrow": size})[0]


RESULT = {"kab": "mean", "mean_scores": [40.0, None], "z": [0.0, None], "updates": 4, "seconds": 2.4, "insert_layer": 0}


@pytest.mark.parametrize("found, finished", [(True, True), (False, True), (True, False)])
def test_no_k_is_offered_that_was_not_found(found: bool, finished: bool) -> None:
    words = result_lines(RESULT | {"found": found, "finished": finished, "verdict": "what it knows"}, Path("x.html"))
    assert "what it knows" in words and "4 updates, 2 s" in words
    assert ("insert_layer=0" in words) == (found and finished)
    assert ("not finished" in words) == (not finished)
