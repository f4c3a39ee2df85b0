"""What training and evaluation share is told or refused, and no test split steers anything."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_world import ANSWERS, PUBLISHED, fit, picture, rows_of, write_data, write_table

import dvp.build
from dvp.build import build_data
from dvp.data.arrow import Table, open_table
from dvp.data.leaks import refuse_shared_questions, shared_pictures
from dvp.data.pictures import picture_hashes
from dvp.errors import UserError
from dvp.prepare import convert
from dvp.tasks import TASKS

GQA = TASKS["gqa"]


@pytest.fixture
def own_data(data_root: str, tmp_path: Path) -> Path:
    """The tables of all tasks, to be spoilt; they have no manifest."""
    return Path(shutil.copytree(data_root, tmp_path / "data"))


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    """GQA converted: the pictures 1 and 2 are in train, 2 again in val under another id, 3 in test-dev."""
    raw, shows = tmp_path / "raw", {"train": (1, 2), "val": (2, 4), "testdev": (3,)}
    (raw / "images").mkdir(parents=True)
    for split, pictures in shows.items():
        rows = {}
        for number in pictures:
            (raw / "images" / f"{split}{number}.jpg").write_bytes(picture(number))
            rows[f"{split}{number}"] = {"imageId": f"{split}{number}", "question": "What?", "answer": "red"}
        (raw / f"{split}_balanced_questions.json").write_text(json.dumps(rows))
    convert("gqa", str(raw), str(tmp_path / "data"))
    return tmp_path / "data"


def opened(root: Path, *splits: str) -> dict[str, Table]:
    return {split: open_table(str(root), "gqa", split, GQA.columns) for split in splits}


def test_tables_of_their_own_pictures_and_questions_are_not_spoken_of(own_data: Path, configure: Any, capsys) -> None:
    for task in PUBLISHED:
        build_data(configure(f"dvp_adaption_bert_{task}", data_root=str(own_data)))
    assert "trained on" not in capsys.readouterr().out


@pytest.mark.parametrize("splits", [("train", "val"), ("test-dev",), ()])
def test_shared_pictures_of_converted_tables_are_told_by_their_bytes(splits: tuple[str, ...], converted: Path) -> None:
    """Also of tables that a run does not open: a test tells it, too."""
    line = shared_pictures(str(converted), GQA, opened(converted, *splits))
    assert line == ("Pictures that are trained on, too: 1 of the 2 of gqa_val; what is scored there is not all unseen.")


def test_only_the_rows_that_are_read_count(converted: Path) -> None:
    tables = opened(converted, "train", "val")
    tables["train"] = Table(tables["train"].path, GQA.columns, np.array([0]))
    assert shared_pictures(str(converted), GQA, tables) == ""


def test_a_run_tells_it_in_one_line(converted: Path, configure: Any, capsys) -> None:
    build_data(configure("dvp_adaption_bert_gqa", data_root=str(converted)))
    assert capsys.readouterr().out.count("Pictures that are trained on, too") == 1


def test_shared_pictures_of_published_tables_are_told_by_id_or_by_what_is_noted(own_data: Path) -> None:
    rows = rows_of("gqa", "val")
    rows[1]["image_id"], rows[2]["image"] = rows_of("gqa", "train")[0]["image_id"], rows_of("gqa", "train")[3]["image"]
    rows[3]["image"] = rows_of("gqa", "train")[1]["image"]
    write_table(own_data / "gqa_val.arrow", rows)
    tables = opened(own_data, "train", "val")
    assert "1 of the 4 of gqa_val;" in shared_pictures(str(own_data), GQA, tables)
    for table in tables.values():
        picture_hashes(table, own_data / "image_tokens" / "pictures")
    assert "2 of the 4 of gqa_val;" in shared_pictures(str(own_data), GQA, tables)


@pytest.mark.parametrize("task, split", [("vqa", "rest_val"), ("gqa", "val"), ("gqa", "test-dev")])
def test_shared_questions_are_refused_but_as_published(task: str, split: str, own_data: Path, configure: Any) -> None:
    rows = rows_of(task, split)
    rows[1]["question_id"] = [*rows_of(task, "train")[0]["question_id"][:1], *rows[1]["question_id"][1:]]
    path = own_data / f"{TASKS[task].files}_{split}.arrow"
    write_table(path, rows)
    experiment = f"dvp_adaption_bert_{task}"
    with pytest.raises(UserError, match=f"1 questions of {path} are in .*_train.arrow, too, such as 0: make"):
        build_data(configure(experiment, data_root=str(own_data)))
    build_data(configure(experiment, data_root=str(own_data), as_published=True))


def test_without_the_guard_shared_questions_pass(own_data: Path, configure: Any, monkeypatch: Any) -> None:
    shutil.copy(own_data / "gqa_train.arrow", own_data / "gqa_val.arrow")
    monkeypatch.setattr(dvp.build, "refuse_shared_questions", lambda *args: None)
    tables = build_data(configure("dvp_adaption_bert_gqa", data_root=str(own_data))).tables
    assert tables["val"]["question_id"].to_pylist() == tables["train"]["question_id"].to_pylist()


def test_ids_of_other_types_are_other_ids(own_data: Path) -> None:
    rows = [row | {"question_id": [int(one) for one in row["question_id"]]} for row in rows_of("gqa", "train")]
    write_table(own_data / "gqa_val.arrow", rows)
    refuse_shared_questions(GQA, opened(own_data, "train", "val"))


def searched(root: Path, configure: Callable[..., dict[str, Any]], answer: str, **options: Any) -> list[float]:
    """What a search on these tables prefers where every question of test-dev has this answer."""
    write_data(root, "gqa")
    label = ANSWERS.index(answer)
    rows = [row | {"answers": [[answer]] * 2, "answer_labels": [[label]] * 2} for row in rows_of("gqa", "test-dev")]
    write_table(root / "gqa_test-dev.arrow", rows)
    config = configure("dvp_search_bert_gqa", data_root=str(root), kab="published", max_steps=3, **options)
    trainer = fit(config)
    return [trainer.lightning_module.monitor, *trainer.lightning_module.bandit.summary()["preferences"]]


@pytest.mark.parametrize("as_published", [False, True])
def test_the_answers_of_a_test_split_change_nothing_but_as_published(
    as_published: bool, tmp_path: Path, configure: Callable[..., dict[str, Any]]
) -> None:
    found = []
    for answer in ANSWERS:
        (tmp_path / answer).mkdir()
        found.append(searched(tmp_path / answer, configure, answer, as_published=as_published, search_sample=8))
    assert (len({str(one) for one in found}) > 1) == as_published
