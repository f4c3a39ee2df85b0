"""Arrow tables of the published schema open; what is missing, truncated or another task's is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from tiny_world import ANSWERS, PUBLISHED, SPLITS, rows_of, write_table

from dvp.data.arrow import open_table, question_index, read_answers
from dvp.errors import UserError
from dvp.tasks import TASKS


@pytest.fixture
def own_data(data_root: str, tmp_path: Path) -> Path:
    """The tables of all tasks, to be spoilt."""
    return Path(shutil.copytree(data_root, tmp_path / "data"))


@pytest.mark.parametrize("task, split", [(task, split) for task in SPLITS for split in SPLITS[task]])
def test_every_published_table_opens(task: str, split: str, data_root: str) -> None:
    table = open_table(data_root, TASKS[task].files, split, TASKS[task].columns)
    expected = rows_of(task, split)
    assert table["questions"].to_pylist() == [row["questions"] for row in expected]
    assert question_index(table).tolist() == [[row, place] for row in range(4) for place in range(2)]


def test_the_published_scripts_own_files_open(real_data: Callable[[], Path]) -> None:
    folder = str(real_data() / "ref_arrow")
    for task in map(TASKS.get, PUBLISHED):
        for split in dict.fromkeys(task.train + task.validate + task.test):
            table = open_table(folder, task.files, split, task.columns)
            assert len(question_index(table)) == sum(map(len, filter(None, table["questions"].to_pylist())))
        assert len(set(read_answers(folder, task))) > 1


@pytest.mark.parametrize("spoil", ["missing", "truncated", "empty", "text"])
@pytest.mark.parametrize("task, split", [("vqa", "trainable_val"), ("gqa", "train"), ("snli_ve", "test")])
def test_missing_and_damaged_tables_are_refused_by_name(task: str, split: str, spoil: str, own_data: Path) -> None:
    path = own_data / f"{TASKS[task].files}_{split}.arrow"
    content = path.read_bytes()
    path.unlink()
    if spoil != "missing":
        path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"no table" * 99}[spoil])
    with pytest.raises(UserError, match=f"{path.name} is {'missing' if spoil == 'missing' else 'truncated'}"):
        open_table(str(own_data), TASKS[task].files, split, TASKS[task].columns)


@pytest.mark.parametrize("data_root", ["", "/nowhere", "empty"])
def test_a_data_root_without_tables_is_refused(data_root: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="data_root|no table of gqa"):
        open_table(str(tmp_path / "empty") if data_root == "empty" else data_root, "gqa", "train")


@pytest.mark.parametrize("task", ["vqa", "gqa"])
@pytest.mark.parametrize("lacking", ["answer_labels", "answer_scores", "question_id", "image"])
def test_a_table_without_a_column_is_refused(task: str, lacking: str, own_data: Path) -> None:
    rows = [{name: value for name, value in row.items() if name != lacking} for row in rows_of(task, "train")]
    write_table(own_data / f"{TASKS[task].files}_train.arrow", rows)
    with pytest.raises(UserError, match=f"no column {lacking}"):
        open_table(str(own_data), TASKS[task].files, "train", TASKS[task].columns)


@pytest.mark.parametrize("task", [task for task in SPLITS if not TASKS[task].answers])
def test_the_vocabulary_is_stored_or_read_from_the_labels(task: str, own_data: Path) -> None:
    assert read_answers(str(own_data), TASKS[task]) == ANSWERS
    stored = [*ANSWERS, "and one that no row carries"]
    (own_data / f"{TASKS[task].files}_answers.json").write_text(json.dumps(stored), encoding="utf-8")
    assert read_answers(str(own_data), TASKS[task]) == stored


def test_a_label_that_no_row_carries_keeps_its_place(own_data: Path) -> None:
    rows = rows_of("gqa", "train")
    rows[0] |= {"answers": [["brown"]] * 2, "answer_labels": [[5]] * 2}
    write_table(own_data / "gqa_train.arrow", rows)
    assert read_answers(str(own_data), TASKS["gqa"]) == [*ANSWERS, "", "brown"]


def test_the_fixed_vocabulary_is_in_the_published_order(data_root: str) -> None:
    assert read_answers(data_root, TASKS["snli_ve"]) == ["contradiction", "neutral", "entailment"]


def test_an_empty_table_of_null_types_has_no_questions(own_data: Path) -> None:
    columns = ["image", "questions", "answers", "answer_labels", "answer_scores", "question_id"]
    empty = pa.table({name: pa.nulls(0) for name in columns})
    write_table(own_data / "vqav2_trainable_val.arrow", empty)
    table = open_table(str(own_data), "vqav2", "trainable_val", TASKS["vqa"].columns)
    assert question_index(table).shape == (0, 2)
    assert read_answers(str(own_data), TASKS["vqa"]) == ANSWERS
