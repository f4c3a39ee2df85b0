"""What each task's tables hold, on small raw folders."""

import base64
import io
import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dvp.prepare import convert


def questions(rows):
    return {i: place for row in rows for i, *place in zip(row["question_id"], *_lists(row), strict=True)}


def _lists(row):
    return row["answers"], row["answer_labels"], row["answer_scores"]


def test_vqa_vocabulary_scores_and_dropped_rows(make_raw, read_rows, tmp_path, capsys):
    convert("vqa", make_raw("vqa"), tmp_path / "out", rest_val_images=3)
    assert json.loads((tmp_path / "out/vqav2_answers.json").read_text()) == ["yes"]  # 12 times
    train = questions(read_rows(tmp_path / "out/vqav2_train.arrow"))
    val = questions(read_rows(tmp_path / "out/vqav2_val.arrow"))
    assert sorted(train) == [1000, 2000, 3000, 4000]  # odd ones have rare answers only
    assert train[1000] == [["yes"], [0], [1.0]]
    assert len(val) == 16 and val[11001] == [[], [], []]  # evaluation rows are never dropped
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("vqav2_train "))
    assert line.split() == ["vqav2_train", "4", "8", "4", "4", "0", "0"]


def test_vqa_lower_threshold_keeps_rare_answers_in_order_of_first_use(make_raw, read_rows, tmp_path):
    convert("vqa", make_raw("vqa"), tmp_path / "out", min_answer_count=1)
    answers = json.loads((tmp_path / "out/vqav2_answers.json").read_text())
    assert answers[:4] == ["yes", "rare 4001", "rare 3001", "rare 2001"]
    assert questions(read_rows(tmp_path / "out/vqav2_val.arrow"))[11001] == [["rare 11001"], [len(answers) - 1], [1.0]]


@pytest.mark.parametrize(("count", "score"), [(1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0)])
def test_vqa_soft_score_counts_normalised_spellings(make_raw, read_rows, edit_json, tmp_path, count, score):
    raw = make_raw("vqa")

    def spell(content):
        for i, answer in enumerate(content["annotations"][0]["answers"]):
            answer["answer"] = ("two", "The 2", "2.")[i % 3] if i < count else f"other {i}"
        return content

    edit_json(raw / "v2_mscoco_train2014_annotations.json", spell)
    for split in ("train2014", "val2014"):
        edit_json(raw / f"v2_mscoco_{split}_annotations.json", lambda content: _majority(content, "2"))
    convert("vqa", raw, tmp_path / "out")
    assert questions(read_rows(tmp_path / "out/vqav2_train.arrow"))[4000] == [["2"], [0], [score]]


def _majority(content, answer):
    return content | {"annotations": [a | {"multiple_choice_answer": answer} for a in content["annotations"]]}


@pytest.mark.parametrize("held_out", [0, 3, 8, 1000])
def test_vqa_rest_val_and_trainable_val_share_out_the_images_of_val(make_raw, read_rows, tmp_path, held_out):
    convert("vqa", make_raw("vqa"), tmp_path / "out", rest_val_images=held_out)
    rest, train, val = (
        [row["image_id"] for row in read_rows(tmp_path / f"out/vqav2_{split}.arrow")]
        for split in ("rest_val", "trainable_val", "val")
    )
    assert val == list(range(11, 19))
    assert sorted(rest + train) == val and len(rest) == min(held_out, 8)


def test_vqa_test_tables_hold_every_question_once_and_no_answers(make_raw, read_rows, tmp_path):
    convert("vqa", make_raw("vqa"), tmp_path / "out")
    test = read_rows(tmp_path / "out/vqav2_test.arrow")
    assert sorted(i for row in test for i in row["question_id"]) == [21000, 21001, 22000, 22001, 23000, 23001]
    assert all(_lists(row) == ([], [], []) and row["split"] == "test" for row in test)
    dev = read_rows(tmp_path / "out/vqav2_test-dev.arrow")
    assert [row["question_id"] for row in dev] == [[22000], [23000, 23001]]


def test_gqa_labels_by_first_use_and_unknown_answers_kept(make_raw, read_rows, tmp_path):
    convert("gqa", make_raw("gqa"), tmp_path / "out")
    assert json.loads((tmp_path / "out/gqa_answers.json").read_text()) == ["yes", "the T-shirt", "no", "blue"]
    rows = {split: read_rows(tmp_path / f"out/gqa_{split}.arrow") for split in ("train", "val", "test-dev")}
    assert questions(rows["train"]) == {
        "07": [["yes"], [0], [1.0]],
        "08": [["the T-shirt"], [1], [1.0]],
        "09": [["no"], [2], [1.0]],
    }
    # To the official program "Blue" is not "blue".
    assert questions(rows["test-dev"]) == {"27": [[], [], []], "28": [[], [], []]}
    assert [(row["image_id"], row["split"]) for row in rows["test-dev"]] == [("n4", "test-dev")]


def test_gqa_answers_are_spelt_as_they_mostly_are_and_scored_to_the_letter(make_raw, read_rows, edit_json, tmp_path):
    raw = make_raw("gqa")
    spelt = {"train": ["T-shirt", "yes", "t-shirt"], "val": ["t-shirt", "t shirt"], "testdev": ["t-shirt", "T-shirt"]}
    for split, answers in spelt.items():

        def answered(content, answers=answers):
            return {i: row | {"answer": new} for (i, row), new in zip(content.items(), answers, strict=True)}

        edit_json(raw / f"{split}_balanced_questions.json", answered)
    convert("gqa", raw, tmp_path / "out")
    assert json.loads((tmp_path / "out/gqa_answers.json").read_text()) == ["t-shirt", "yes"]
    found = {split: questions(read_rows(tmp_path / f"out/gqa_{split}.arrow")) for split in ("train", "val", "test-dev")}
    known = [["t-shirt"], [0], [1.0]]
    assert found["train"] == {"07": known, "08": [["yes"], [1], [1.0]], "09": known}  # learnt in any spelling
    assert found["val"] == {"17": known, "18": [[], [], []]}
    assert found["test-dev"] == {"27": known, "28": [[], [], []]}


def _marked(path):
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


@pytest.mark.parametrize("task", ["vqa", "gqa", "snli_ve"])
def test_files_that_begin_with_a_byte_order_mark(make_raw, tmp_path, task):
    raw = make_raw(task)
    convert(task, raw, tmp_path / "plain")
    for path in [*raw.glob("*.json"), *raw.glob("*.tsv")]:
        _marked(path)
    convert(task, raw, tmp_path / "marked")
    for path in (tmp_path / "plain").iterdir():
        assert path.read_bytes() == (tmp_path / "marked" / path.name).read_bytes()


@pytest.mark.parametrize("ending", ["", "\n", "\r\n\n"])
@pytest.mark.parametrize("padding", ["=", ""])
def test_snli_ve_in_the_alphabet_for_urls_and_with_blank_lines(
    make_raw, make_row, read_rows, tmp_path, ending, padding
):
    noise = np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer := io.BytesIO(), "PNG")
    encoded = base64.urlsafe_b64encode(buffer.getvalue()).decode()
    assert "-" in encoded and "_" in encoded
    raw = make_raw("snli_ve")
    with open(raw / "snli_ve_dev.tsv", "a") as file:
        file.write("\n" + make_row(9, "x", "neutral", encoded.rstrip("=") + padding * (-len(buffer.getvalue()) % 3)))
        file.write(ending)
    convert("snli_ve", raw, tmp_path / "out")
    assert read_rows(tmp_path / "out/snli_ve_dev.arrow")[-1]["image"] == buffer.getvalue()


def test_what_is_odd_in_pictures_is_counted_and_said(make_raw, tmp_path, capsys):
    raw = make_raw("gqa")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGBA", (9, 9)).save(raw / "images/n1.jpg", "PNG", exif=exif)
    Image.new("I;16", (9, 9)).save(raw / "images/3.jpg", "PNG")
    convert("gqa", raw, tmp_path / "out")
    said = [line for line in capsys.readouterr().out.splitlines() if " pictures " in line]
    assert [line.split(" pictures ")[0] for line in said] == ["gqa_train: 1", "gqa_train: 1", "gqa_val: 1"]
    assert "white is put behind them" in said[0] and "turn_pictures=True" in said[1] and "8 bits" in said[2]


def test_snli_ve_text_is_text_and_rows_that_lie_apart_share_an_image(make_raw, make_image, read_rows, tmp_path):
    convert("snli_ve", make_raw("snli_ve"), tmp_path / "out")
    assert read_rows(tmp_path / "out/snli_ve_dev.arrow") == [
        {"image": make_image(5), "questions": ["None", "n/a"], "answers": ["neutral", "neutral"], "identifier": 5},
        {
            "image": make_image(7),
            "questions": ['a sign reads "closed', ""],
            "answers": ["contradiction", "entailment"],
            "identifier": 7,
        },
    ]


@pytest.mark.parametrize("task", ["vqa", "gqa"])
def test_empty_and_answerless_tables_have_the_full_schema(make_raw, tmp_path, task):
    convert(task, make_raw(task), tmp_path / "out")
    schemas = [pa.ipc.open_file(path).schema for path in sorted((tmp_path / "out").glob("*.arrow"))]
    assert len(schemas) > 2 and all(schema.equals(schemas[0]) for schema in schemas)
