"""Bad raw input: one sentence that names the file, and nothing written."""

import io
import json
import sys
import zlib

import pytest
from PIL import Image

from dvp.errors import UserError
from dvp.prepare import PREPARERS, convert

TRAIN_QUESTIONS = "v2_OpenEnded_mscoco_train2014_questions.json"
TRAIN_ANNOTATIONS = "v2_mscoco_train2014_annotations.json"


def refused(task, raw, out, match, **options):
    with pytest.raises(UserError, match=match) as caught:
        convert(task, raw, out, **options)
    assert "\n" not in str(caught.value)
    assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize("task", PREPARERS)
@pytest.mark.parametrize("raw", ["", "nowhere"])
def test_raw_root_missing(tmp_path, task, raw):
    refused(task, raw and tmp_path / raw, tmp_path / "out", "raw_root=")


@pytest.mark.parametrize("task", PREPARERS)
def test_raw_root_empty(tmp_path, task):
    refused(task, tmp_path, tmp_path / "out", "is missing")


def test_unknown_task_and_impossible_options(tmp_path):
    refused("vqa2", tmp_path, tmp_path / "out", f"one of {', '.join(PREPARERS)}")
    refused("vqa", tmp_path, tmp_path / "out", "min_answer_count=0", min_answer_count=0)
    refused("vqa", tmp_path, tmp_path / "out", "rest_val_images=-1", rest_val_images=-1)


@pytest.mark.parametrize("length", [0, 1, 40, -1, -30])
@pytest.mark.parametrize(
    ("task", "name"), [("vqa", TRAIN_QUESTIONS), ("vqa", TRAIN_ANNOTATIONS), ("gqa", "val_balanced_questions.json")]
)
def test_truncated_json(make_raw, tmp_path, task, name, length):
    raw = make_raw(task)
    (raw / name).write_bytes((raw / name).read_bytes()[:length])
    refused(task, raw, tmp_path / "out", f"{name} is truncated")


@pytest.mark.parametrize(
    ("task", "name", "content", "match"),
    [
        ("vqa", TRAIN_QUESTIONS, {"1": {"imageId": "1", "question": "?", "answer": "yes"}}, "has no questions"),
        ("vqa", TRAIN_QUESTIONS, [1, 2], "truncated or not the JSON"),
        ("vqa", TRAIN_QUESTIONS, {"data_subtype": "val2014", "questions": []}, "holds val2014, not train2014"),
        ("gqa", "train_balanced_questions.json", {"info": {}, "questions": []}, "question 'info' has no answer"),
        ("gqa", "train_balanced_questions.json", {}, "has no questions"),
        ("gqa", "train_balanced_questions.json", {"": {}}, "question without an id"),
    ],
)
def test_json_of_another_data_set(make_raw, tmp_path, task, name, content, match):
    raw = make_raw(task)
    (raw / name).write_text(json.dumps(content))
    refused(task, raw, tmp_path / "out", match)


def _without(key):
    return lambda entry: {name: value for name, value in entry.items() if name != key}


@pytest.mark.parametrize(
    ("name", "key", "change", "match"),
    [
        (TRAIN_QUESTIONS, "questions", lambda q: [_without("question_id")(q[0]), *q[1:]], "number 0 .* no question_id"),
        (TRAIN_QUESTIONS, "questions", lambda q: [*q, q[0]], "question id 4000 twice"),
        (TRAIN_ANNOTATIONS, "annotations", lambda a: [*a, a[0]], "question id 4000 twice"),
        (TRAIN_QUESTIONS, "questions", lambda q: q[1:], "question 4000 of the annotations is not there"),
        (TRAIN_ANNOTATIONS, "annotations", lambda a: a[1:], "question 4000 has no annotation"),
        (TRAIN_ANNOTATIONS, "annotations", lambda a: [_without("answers")(a[0]), *a[1:]], "number 0 .* no answers"),
        (
            "v2_OpenEnded_mscoco_test-dev2015_questions.json",
            "questions",
            lambda q: [*q, {"question_id": 99, "image_id": 21, "question": "?"}],
            "question 99 is not in test2015",
        ),
    ],
)
def test_vqa_questions_and_annotations_that_do_not_fit(make_raw, edit_json, tmp_path, name, key, change, match):
    raw = make_raw("vqa")
    edit_json(raw / name, lambda content: content | {key: change(content[key])})
    refused("vqa", raw, tmp_path / "out", match)


def test_gqa_duplicate_question_id(make_raw, tmp_path):
    raw = make_raw("gqa")
    path = raw / "val_balanced_questions.json"
    path.write_text(path.read_text().replace('"18"', '"17"', 1))
    refused("gqa", raw, tmp_path / "out", "question id 17 twice")


def test_missing_images_stop_unless_allowed(make_raw, read_rows, tmp_path, capsys):
    raw = make_raw("vqa")
    (raw / "val2014" / "COCO_val2014_000000000012.jpg").unlink()
    refused("vqa", raw, tmp_path / "out", "1 of the 8 images of vqav2_val .*COCO_val2014_000000000012.jpg")
    convert("vqa", raw, tmp_path / "out", allow_missing_images=True)
    assert [row["image_id"] for row in read_rows(tmp_path / "out/vqav2_val.arrow")] == [11, *range(13, 19)]
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("vqav2_val "))
    assert line.split() == ["vqav2_val", "7", "16", "14", "0", "2", "1"]


def test_one_missing_image_in_a_hundred_is_counted_and_goes_on(make_raw, make_image, edit_json, tmp_path, capsys):
    raw = make_raw("gqa")
    for i in range(100, 199):
        (raw / "images" / f"{i}.jpg").write_bytes(make_image(i))
    more = {str(i): {"imageId": str(i), "question": "?", "answer": "no"} for i in range(100, 199)}
    edit_json(raw / "val_balanced_questions.json", lambda content: content | more)
    (raw / "images" / "150.jpg").unlink()
    convert("gqa", raw, tmp_path / "out")
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("gqa_val "))
    assert line.split() == ["gqa_val", "99", "101", "100", "0", "1", "1"]


def png_that_claims(width, height):
    """A few bytes of PNG whose header promises width x height pixels."""
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


DAMAGE = {
    "empty": lambda data: b"",
    "text": lambda data: b"<html>not found</html>",
    "truncated": lambda data: data[:-20],
    "large": lambda data: png_that_claims(10_000, 10_000),
    "bomb": lambda data: png_that_claims(60_000, 60_000),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_undecodable_image(make_raw, tmp_path, damage):
    raw = make_raw("gqa")
    path = raw / "images" / "3.jpg"
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    what = "too large: it has over 89,478,485 pixels" if damage in ("large", "bomb") else "(empty|truncated)"
    refused("gqa", raw, tmp_path / "out", f"3.jpg is {what}")


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("only\ttwo", "line 5 has 2 columns, not 6"),
        (dict(image_id=9, hypothesis="x", label="maybe"), "line 5: the label 'maybe' is none of"),
        (dict(image_id=9, hypothesis="x", label="neutral", image="%%%"), "line 5: the image is not base64"),
        (dict(image_id=9, hypothesis="x", label="neutral", image="QUJD"), "line 5 is truncated or no picture"),
        (dict(image_id="nine", hypothesis="x", label="neutral", image=""), "the image id 'nine' is not a number"),
        (dict(image_id=2**63, hypothesis="x", label="neutral", image=""), "line 5: the image id .* 64 bits"),
        (dict(image_id="9" * 5000, hypothesis="x", label="neutral", image=""), "line 5: the image id .* not a number"),
    ],
)
def test_bad_tsv_line(make_raw, make_row, tmp_path, line, match):
    raw = make_raw("snli_ve")
    with open(raw / "snli_ve_dev.tsv", "a") as file:
        file.write(line if isinstance(line, str) else make_row(**line))
    refused("snli_ve", raw, tmp_path / "out", match)


HALF_EMOJI, LARGE = "\ud83d", 2**63


def _first(change):
    return lambda entries: [entries[0] | change, *entries[1:]]


@pytest.mark.parametrize(
    ("name", "key", "change", "match"),
    [
        (TRAIN_QUESTIONS, "questions", _first({"question": HALF_EMOJI}), "question 4000.*the question .* half a char"),
        (TRAIN_QUESTIONS, "questions", _first({"question": None}), "question 4000.* has no question"),
        (TRAIN_QUESTIONS, "questions", _first({"question_id": LARGE}), "number 0 .*the question_id .* 64 bits"),
        (TRAIN_QUESTIONS, "questions", _first({"question_id": True}), "number 0 .*no question_id"),
        (TRAIN_QUESTIONS, "questions", _first({"image_id": LARGE}), "question 4000.*the image_id .* 64 bits"),
        (TRAIN_QUESTIONS, "questions", _first({"image_id": 10**5000}), "truncated or not the JSON"),
        (TRAIN_ANNOTATIONS, "annotations", _first({"answers": None}), "question 4000.* has no answers"),
        (TRAIN_ANNOTATIONS, "annotations", _first({"answers": [None]}), "question 4000.* has no answer "),
        (
            TRAIN_ANNOTATIONS,
            "annotations",
            _first({"answers": [{"answer": HALF_EMOJI}]}),
            "question 4000.* half a char",
        ),
    ],
)
def test_what_no_table_can_hold_is_refused_with_its_question(make_raw, edit_json, tmp_path, name, key, change, match):
    raw = make_raw("vqa")
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)  # to write the longest of the numbers
    edit_json(raw / name, lambda content: content | {key: change(content[key])})
    sys.set_int_max_str_digits(limit)
    refused("vqa", raw, tmp_path / "out", match)


@pytest.mark.parametrize("change", [{"answer": HALF_EMOJI}, {"imageId": HALF_EMOJI}, {"question": HALF_EMOJI}])
def test_half_a_character_in_gqa(make_raw, edit_json, tmp_path, change):
    raw = make_raw("gqa")
    edit_json(raw / "val_balanced_questions.json", lambda content: content | {"17": content["17"] | change})
    refused("gqa", raw, tmp_path / "out", "val_balanced_questions.json: question '17': the .* half a character")


def test_data_root_that_is_a_file(make_raw, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        convert("gqa", make_raw("gqa"), tmp_path / "file")
