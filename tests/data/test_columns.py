"""Tables of any writer come in one set of types; rows that do not hold together are refused with their number."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tiny_world import ANSWERS, picture, rows_of, write_table

from dvp.data.arrow import check_answers, open_table, read_answers, read_picture
from dvp.data.questions import Questions
from dvp.errors import UserError
from dvp.tasks import TASKS

VQA = TASKS["vqa"]


def opened(folder: Path, rows: list[dict[str, Any]] | pa.Table | None = None, split: str = "train") -> pa.Table:
    if rows is not None:
        write_table(folder / f"vqav2_{split}.arrow", rows)
    return open_table(str(folder), "vqav2", split, VQA.columns)


def seen(tables: list[pa.Table]) -> list[dict[str, Any]]:
    dataset = Questions(tables, VQA, lambda image: image.size, labelled_only=False)
    return [dataset[item] for item in range(len(dataset))]


TYPES: dict[str, dict[str, pa.DataType]] = {
    "64-bit offsets": {
        "image": pa.large_binary(), "questions": pa.large_list(pa.large_string()),
        "answers": pa.large_list(pa.large_list(pa.large_string())), "question_id": pa.large_list(pa.int64()),
        "answer_labels": pa.large_list(pa.large_list(pa.int64())),
        "answer_scores": pa.large_list(pa.large_list(pa.float64())),
    },
    "small numbers": {
        "question_id": pa.list_(pa.int32()), "answer_labels": pa.list_(pa.list_(pa.int16())),
        "answer_scores": pa.list_(pa.list_(pa.float32())),
    },
    "views": {"questions": pa.list_(pa.string_view()), "image": pa.binary_view()},
    "fixed lists": {"question_id": pa.list_(pa.int64(), 2)},
    "dictionaries": {"questions": pa.list_(pa.dictionary(pa.int32(), pa.string()))},
}  # fmt: skip


@pytest.mark.parametrize("types", TYPES)
@pytest.mark.parametrize("others", [True, False])
def test_tables_of_other_types_give_the_same_rows_beside_any(types: str, others: bool, tmp_path: Path) -> None:
    splits = ("train", "trainable_val")
    expected = seen([opened(tmp_path, rows_of("vqa", split), split) for split in splits])
    for split in splits if others else splits[:1]:
        table = pa.Table.from_pylist(rows_of("vqa", split))
        fields = [pa.field(field.name, TYPES[types].get(field.name, field.type)) for field in table.schema]
        changed = pa.Table.from_pylist(table.to_pylist(), schema=pa.schema(fields))
        with (
            pa.OSFile(str(tmp_path / f"vqav2_{split}.arrow"), "wb") as sink,
            pa.ipc.new_file(sink, changed.schema) as w,
        ):
            w.write_table(changed, max_chunksize=2)
    tables = [opened(tmp_path, split=split) for split in splits]
    assert seen(tables) == expected
    check_answers(tables, ANSWERS)


def changed(**columns: Any) -> list[dict[str, Any]]:
    """Rows of which the second, of two questions, has other columns."""
    rows = rows_of("vqa", "train")
    return [rows[0], rows[1] | columns, *rows[2:]]


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({"questions": [None, "a"]}, "row 1, has a null among its questions"),
        ({"questions": None}, "row 1, has 0 questions and 2 entries of question_id"),
        ({"questions": ["a"]}, "row 1, has 1 questions and 2 entries of question_id"),
        ({"questions": ["a"], "question_id": [5]}, "row 1, has 1 questions and 2 entries of answers"),
        ({"question_id": [None, 3]}, "row 1, has a null among its question_id"),
        ({"answers": [], "answer_labels": [], "answer_scores": []}, "row 1, has 2 questions and 0 entries of answers"),
        ({"answer_labels": [[0]]}, "row 1, has 2 questions and 1 entries of answer_labels"),
        ({"answer_labels": [[0, 1], [0]]}, "row 1, has not as many answer_labels as answers"),
        ({"answers": [None, ["yes"]]}, "row 1, has not as many answer_labels as answers"),
        ({"answers": [[None], ["yes"]]}, "has a null among its answers"),
        ({"answer_labels": [[None], [0]]}, "has a null among its answer_labels"),
        ({"answer_scores": [[None], [1.0]]}, "has a null among its answer_scores"),
        ({"answer_scores": [[1.0], [float("nan")]]}, "row 1, has nan among its answer_scores, which go from 0 to 1"),
        ({"answer_scores": [[1e30], [1.0]]}, "row 1, has 1e\\+30 among its answer_scores"),
        ({"answer_scores": [[1.0], [-0.5]]}, "row 1, has -0.5 among its answer_scores"),
        ({"answer_labels": [[-1], [0]]}, "row 1, has -1 among its answer_labels"),
        ({"answer_labels": [[2**40], [0]]}, "row 1, has 1099511627776 among its answer_labels"),
    ],
)
def test_rows_that_do_not_hold_together_are_refused(columns: dict[str, Any], fault: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"vqav2_train.arrow,? {fault}"):
        opened(tmp_path, changed(**columns))


def test_without_their_ranges_such_scores_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dvp.data.columns.RANGES", {})
    table = opened(tmp_path, changed(answer_scores=[[1e30], [float("nan")]]))
    assert str(seen([table])[3]["scores"]) == "[nan]"


NOTHING = {"answers": None, "answer_labels": None, "answer_scores": None}


def test_null_lists_are_empty_ones(tmp_path: Path) -> None:
    assert len(seen([opened(tmp_path, changed(questions=None, question_id=None, **NOTHING))])) == 6
    unlabelled = [None, [rows_of("vqa", "train")[1]["answer_labels"][1][0]]]
    names = [None, [ANSWERS[unlabelled[1][0]]]]
    rows = seen([opened(tmp_path, changed(answers=names, answer_labels=unlabelled, answer_scores=[None, [1.0]]))])
    assert [len(row["labels"]) for row in rows] == [1, 1, 0, 1, 1, 1, 1, 1]
    secret = opened(tmp_path, [row | NOTHING for row in rows_of("vqa", "train")])
    assert not any(row["labels"] for row in seen([secret]))
    assert secret["answers"].to_pylist() == [[]] * 4


@pytest.mark.parametrize("damage", ["utf-8", "name", "lengths"])
def test_damage_inside_a_table_is_one_sentence(damage: str, tmp_path: Path) -> None:
    opened(tmp_path, rows_of("vqa", "train"))
    path = tmp_path / "vqav2_train.arrow"
    data = path.read_bytes()
    old, new = {
        "utf-8": (b"what color", b"what\xff\xfe\xff\xff\xff\xff"),
        "name": (b"question_id", b"question\xff\xff\xff"),
        "lengths": (data[-300:-250], b"\xff" * 50),
    }[damage]
    assert old in data
    path.unlink()  # the old file may still be mapped
    path.write_bytes(data.replace(old, new))
    with pytest.raises(UserError, match="vqav2_train.arrow (is truncated|has no column)") as caught:
        opened(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bytes_", [None, b"", picture(3)[:-40], b"<html>"])
def test_a_picture_that_does_not_decode_is_named_by_table_row_and_id(bytes_: bytes | None, tmp_path: Path) -> None:
    table = opened(tmp_path, changed(image=bytes_))
    with pytest.raises(UserError, match=r"vqav2_train.arrow \(row 1, image_id 1\) is (empty|truncated)"):
        read_picture(table, 1, lambda image: image)


@pytest.mark.parametrize("mode", ["live", "auto", "cache"])
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("bytes_", [None, picture(3)[:-40]])
def test_a_run_says_which_picture_does_not_decode(
    mode: str, workers: int, bytes_: bytes | None, refused, tiny, data_root: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(data_root, tmp_path / "data", ignore=shutil.ignore_patterns("image_tokens")))
    write_table(folder / "vqav2_train.arrow", changed(image=bytes_))
    settings = tiny("dvp_adaption_bert_vqa", data_root=str(folder), image_tokens=mode, num_workers=workers)
    assert "vqav2_train.arrow (row 1, image_id 1)" in refused("with", "dvp_adaption_bert_vqa", **settings)


# The list of answers


@pytest.mark.parametrize(
    ("stored", "fault"),
    [
        (json.dumps(ANSWERS[::-1]), "has the label 0 for 'yes', but the list of answers has 'two' there"),
        (json.dumps(ANSWERS[:2]), "has the label 2 for 'red', but the list of answers ends at 1"),
        (json.dumps(dict.fromkeys(ANSWERS, 0)), "vqav2_answers.json is not a list of answers"),
        ("[]", "vqav2_answers.json is not a list of answers"),
        ("[1, 2, 3, 4]", "vqav2_answers.json is not a list of answers"),
        ('["yes",', "vqav2_answers.json is no whole JSON"),
    ],
)
def test_a_list_of_answers_of_another_conversion_is_refused(
    stored: str, fault: str, refused, tiny, data_root: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(data_root, tmp_path / "data", ignore=shutil.ignore_patterns("image_tokens")))
    (folder / "vqav2_answers.json").write_text(stored)
    assert fault in refused("with", "dvp_adaption_bert_vqa", **tiny("dvp_adaption_bert_vqa", data_root=str(folder)))


def test_a_list_of_answers_may_spell_otherwise_and_begin_with_a_mark(tmp_path: Path) -> None:
    table = opened(tmp_path, rows_of("vqa", "train"))
    (tmp_path / "vqav2_answers.json").write_text('["Yes", "no", "red", "2"]', encoding="utf-8-sig")
    answers = read_answers(str(tmp_path), VQA)
    check_answers([table], answers)
    assert answers == ["Yes", "no", "red", "2"]


def test_tables_of_two_conversions_are_refused(data_root: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(data_root, tmp_path / "data", ignore=shutil.ignore_patterns("image_tokens")))
    rows = rows_of("gqa", "val")
    rows[0]["answers"][0] = ["purple"]
    write_table(folder / "gqa_val.arrow", rows)
    with pytest.raises(UserError, match="gqa_val.arrow has the label .* the tables are of different conversions"):
        read_answers(str(folder), TASKS["gqa"])


def test_published_tables_of_gqa_are_answered_in_its_spelling(data_root: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(data_root, tmp_path / "data", ignore=shutil.ignore_patterns("image_tokens")))
    rows = rows_of("gqa", "train")
    rows[0] |= {"answers": [["t shirt"]] * 2, "answer_labels": [[4]] * 2}
    write_table(folder / "gqa_train.arrow", rows)
    answers = read_answers(str(folder), TASKS["gqa"])
    assert answers == [*ANSWERS, "t-shirt"]
    check_answers([open_table(str(folder), "gqa", "train", TASKS["gqa"].columns)], answers)
