"""Data of one's own: what of the schema becomes which table, and what is refused, with file, line and field."""

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dvp.errors import UserError
from dvp.prepare import convert
from dvp.prepare.custom_row import consensus


def picture(shade: int) -> bytes:
    Image.new("RGB", (8, 8), (shade, 90, 160)).save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


ROWS = [
    {"image": "a.png", "question": "What?", "answer": "cat", "split": "train", "question_id": 7},
    {"image": "sub/b.png", "question": "Which?", "answer": "The dog", "split": "train", "question_id": 3},
    {"image": "./a.png", "question": "How many?", "answer": 2, "split": "train", "question_id": 4},
    {"image": "c.png", "question": "What?", "answer": "cat", "split": "validation", "question_id": 5},
    {"image": "d.png", "question": "What?", "split": "test", "question_id": 6},
]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder with four pictures and no questions."""
    folder = tmp_path / "raw"
    (folder / "sub").mkdir(parents=True)
    for shade, name in enumerate(("a.png", "sub/b.png", "c.png", "d.png")):
        (folder / name).write_bytes(picture(shade))
    return folder


def write(raw: Path, rows: list[Any], name: str = "questions.jsonl") -> None:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (raw / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def changed(place: int, **fields: Any) -> list[dict[str, Any]]:
    rows = [dict(row) for row in ROWS]
    rows[place] |= fields
    return rows


def refusal(raw: Path, **options: Any) -> str:
    out = raw.parent / "out"
    with pytest.raises(UserError) as caught:
        convert("custom", str(raw), str(out), **options)
    assert not out.exists() or not list(out.iterdir())
    return str(caught.value)


def table(out: Path, split: str, read_rows: Callable[[Path], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return read_rows(out / f"custom_{split}.arrow")


def test_rows_become_tables_of_pictures_and_a_vocabulary_to_the_letter(raw, read_rows, tmp_path, capsys) -> None:
    write(raw, ROWS)
    convert("custom", str(raw), str(tmp_path))
    assert json.loads((tmp_path / "custom_answers.json").read_text()) == ["cat", "The dog", "2"]
    first, second = table(tmp_path, "train", read_rows)
    assert first == {
        "image": picture(0),
        "questions": ["What?", "How many?"],
        "answers": [["cat"], ["2"]],
        "answer_labels": [[0], [2]],
        "answer_scores": [[1.0], [1.0]],
        "image_id": "a.png",
        "question_id": [7, 4],
        "split": "train",
    }
    assert (second["image_id"], second["image"]) == ("sub/b.png", picture(1))
    (asked,) = table(tmp_path, "test", read_rows)
    assert (asked["answers"], asked["question_id"]) == ([], [6])
    assert len(table(tmp_path, "val", read_rows)) == 1
    out, err = capsys.readouterr()
    assert "custom_train" in out and err == ""  # where there is no terminal, there are no bars


@pytest.mark.parametrize(
    "given, scores",
    [
        ({"answer": "cat"}, {"cat": 1}),
        ({"answers": ["cat", "cat", "dog"]}, {"cat": 0.6667, "dog": 0.3333}),
        ({"answers": ["cat"] * 8 + ["dog"] * 2}, {"cat": 1, "dog": 0.6}),
        ({"answers": {"cat": 1, "dog": 0.25, "pig": 0}}, {"cat": 1, "dog": 0.25}),
        ({"label": 1, "choices": ["dog", "cat"]}, {"cat": 1}),
        ({"answer": "cat", "choices": ["dog", "cat"]}, {"cat": 1}),
        ({"label": 3}, {"3": 1}),
        ({"label": "cat", "answers": None}, {"cat": 1}),
    ],
)
def test_an_answer_may_be_given_in_each_of_these_ways(given: dict[str, Any], scores, raw, read_rows, tmp_path) -> None:
    rows = [dict(row) for row in ROWS]
    del rows[0]["answer"]
    write(raw, [rows[0] | given, *rows[1:]])
    convert("custom", str(raw), str(tmp_path))
    (first, _) = table(tmp_path, "train", read_rows)
    assert dict(zip(first["answers"][0], first["answer_scores"][0], strict=True)) == pytest.approx(scores)


@pytest.mark.parametrize("count, score", [(1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0)])
def test_ten_annotators_score_as_in_vqa(count: int, score: float) -> None:
    assert dict(consensus(["cat"] * count + ["dog"] * (10 - count)))["cat"] == pytest.approx(score)


@pytest.mark.parametrize("given", [1, 2, 3, 7, 10, 12])
def test_who_all_agree_are_right(given: int) -> None:
    assert consensus(["cat"] * given) == (("cat", 1.0),)


def as_parquet(raw: Path, rows: list[dict[str, Any]], path_too: bool) -> None:
    """The rows as Parquet files named after their split, pictures in them."""
    (raw / "data").mkdir()
    for split, name in (("train", "train"), ("validation", "validation"), ("test", "test")):
        part = [dict(row) for row in rows if row["split"] == split]
        for row in part:
            data = (raw / row["image"]).read_bytes()
            row["image"] = {"bytes": data, "path": row["image"]} if path_too else data
            row["answer"] = None if row.get("answer") is None else str(row["answer"])
            del row["split"]
        pq.write_table(pa.Table.from_pylist(part), raw / "data" / f"{name}-00000-of-00001.parquet")


@pytest.mark.parametrize("form", ["parquet", "parquet with paths", "base64"])
def test_bytes_give_the_tables_of_paths(form: str, raw, read_rows, tmp_path) -> None:
    write(raw, ROWS)
    convert("custom", str(raw), str(tmp_path / "plain"))
    (raw / "questions.jsonl").unlink()
    if form == "base64":
        encoded = [{"bytes": base64.b64encode((raw / row["image"]).read_bytes()).decode()} for row in ROWS]
        write(raw, [row | {"image": image} for row, image in zip(ROWS, encoded, strict=True)])
    else:
        as_parquet(raw, ROWS, path_too=form == "parquet with paths")
    convert("custom", str(raw), str(tmp_path / "bytes"))
    for split in ("train", "val", "test"):
        plain, found = (table(tmp_path / which, split, read_rows) for which in ("plain", "bytes"))
        assert [row | {"image_id": ""} for row in plain] == [row | {"image_id": ""} for row in found]


def test_ids_are_counted_where_there_are_none_and_may_be_texts(raw, read_rows, tmp_path) -> None:
    write(raw, [{key: value for key, value in row.items() if key != "question_id"} for row in ROWS])
    convert("custom", str(raw), str(tmp_path / "counted"))
    assert [row["question_id"] for row in table(tmp_path / "counted", "train", read_rows)] == [[0, 2], [1]]
    write(raw, [row | {"question_id": f"q{row['question_id']}"} for row in ROWS])
    convert("custom", str(raw), str(tmp_path / "texts"))
    assert [row["question_id"] for row in table(tmp_path / "texts", "train", read_rows)] == [["q7", "q4"], ["q3"]]


@pytest.mark.parametrize(
    "place, fields, field, what",
    [
        (1, {"image": None}, "image", "is missing"),
        (1, {"image": "nowhere.png"}, "image", "nowhere.png is missing in "),
        (1, {"image": "../a.png"}, "image", "'../a.png' leaves the folder"),
        (1, {"image": "sub/../../a.png"}, "image", "leaves the folder"),
        (1, {"image": "/etc/passwd"}, "image", "'/etc/passwd' leaves the folder"),
        (1, {"image": {"bytes": "%%%"}}, "image", "bytes that are not base64"),
        (1, {"image": {"bytes": "QUJD"}}, "image", "truncated or no picture"),
        (1, {"question": None}, "question", "is missing"),
        (1, {"question": " "}, "question", "is empty"),
        (1, {"question": ["a"]}, "question", "not a text"),
        (1, {"question": "\ud83d"}, "question", "half a character"),
        (1, {"answer": None}, "answer", "is missing: only test may have none"),
        (3, {"answer": None}, "answer", "is missing: only test may have none"),
        (1, {"answer": ""}, "answer", "is empty"),
        (1, {"answer": True}, "answer", "not a text"),
        (1, {"answers": ["cat"]}, "answer", "stands beside answers"),
        (1, {"choices": ["cat", "pig"]}, "answer", "none of its choices"),
        (1, {"answer": None, "answers": []}, "answers", "wants a list of answers"),
        (1, {"answer": None, "answers": {"cat": 2}}, "answers", "scores go from 0 to 1"),
        (1, {"answer": None, "answers": {"cat": 0}}, "answers", "no answer with a score above 0"),
        (1, {"answer": None, "label": 2, "choices": ["cat", "dog"]}, "label", "from 0 to 1"),
        (1, {"split": None}, "split", "is missing"),
        (1, {"split": "testing"}, "split", "is 'testing'"),
        (1, {"question_id": 7}, "question_id", "is 7 again, as in questions.jsonl line 1"),
        (1, {"question_id": "7"}, "question_id", "take one type"),
        (1, {"question_id": None}, "question_id", "is missing, unlike in the first row"),
        (1, {"question_id": 2**63}, "question_id", "64 bits"),
    ],
)
def test_a_bad_field_is_named_with_file_and_line(place: int, fields, field: str, what: str, raw) -> None:
    write(raw, changed(place, **fields))
    message = refusal(raw)
    assert message.startswith(f"{raw} has 1 fault; ")
    assert message.splitlines()[1].startswith(f"  questions.jsonl line {place + 1}, {field}: ")
    assert what in message


@pytest.mark.parametrize("line, what", [("{", "no JSON"), ("[1]", "no JSON object"), ('"\udcff"', "no JSON")])
def test_a_line_that_is_no_row_is_named(line: str, what: str, raw) -> None:
    rows = [*map(json.dumps, ROWS[:2]), "", line, *map(json.dumps, ROWS[2:])]
    (raw / "questions.jsonl").write_bytes("\n".join(rows).encode("utf-8", "surrogateescape"))
    assert f"  questions.jsonl line 4, the line: {what}" in refusal(raw)


def test_ten_faults_are_shown_and_the_rest_counted(raw) -> None:
    write(raw, [*ROWS, *({"image": "a.png", "split": "train", "question_id": 100 + n} for n in range(7))])
    message = refusal(raw)
    assert message.startswith(f"{raw} has 14 faults; ")
    assert len(message.splitlines()) == 12 and message.endswith("\n  ... and 4 more")


def test_a_picture_is_decoded_once_and_a_broken_one_is_refused(raw) -> None:
    (raw / "a.png").write_bytes(picture(0)[:40])
    write(raw, ROWS)
    assert "questions.jsonl line 1, image: The picture a.png is truncated" in refusal(raw)


@pytest.mark.parametrize(
    "rows, sentence",
    [
        (changed(1, answer="cat")[:2] + changed(3)[3:], "Every question of train in .* has the answer 'cat'"),
        ([row for row in ROWS if row["split"] != "train"], "has no question of the split train"),
        (ROWS + [ROWS[4] | {"question_id": 9, "answer": "cat"}], "line 5, answer: is missing, though other questions"),
        ([], "has no question of the split train"),
    ],
)
def test_a_set_that_cannot_be_trained_or_scored_is_refused(rows, sentence: str, raw) -> None:
    write(raw, rows)
    assert re.search(sentence, refusal(raw))


def test_missing_pictures_are_left_out_where_that_is_allowed(raw, read_rows, tmp_path, capsys) -> None:
    (raw / "a.png").unlink()
    write(raw, [*ROWS, {"image": "sub/b.png", "question": "?", "answer": "pig", "split": "train", "question_id": 8}])
    convert("custom", str(raw), str(tmp_path), allow_missing_images=True)
    assert [row["image_id"] for row in table(tmp_path, "train", read_rows)] == ["sub/b.png"]
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("custom_train "))
    assert line.split() == ["custom_train", "1", "4", "2", "0", "2", "1"]


def test_what_makes_a_score_misleading_is_said(raw, tmp_path, capsys) -> None:
    write(raw, [*changed(3, image="a.png", answer="unheard of")])
    convert("custom", str(raw), str(tmp_path))
    said = capsys.readouterr().out
    assert "1 of the 1 questions of val have answers that train lacks" in said
    assert "1 of the 1 pictures of val are in train, too" in said


def test_the_tables_of_another_set_are_not_left_beside_this_one(raw, tmp_path, capsys) -> None:
    write(raw, ROWS)
    convert("custom", str(raw), str(tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("custom_*")}
    write(raw, [row for row in ROWS if row["split"] != "validation"])
    with pytest.raises(UserError, match="custom_val.arrow is another set's, and this one has no val"):
        convert("custom", str(raw), str(tmp_path))
    assert {path.name: path.read_bytes() for path in tmp_path.glob("custom_*")} == before
    (tmp_path / "custom_val.arrow").unlink()
    convert("custom", str(raw), str(tmp_path))
    assert "5 % of train's pictures" in capsys.readouterr().out
