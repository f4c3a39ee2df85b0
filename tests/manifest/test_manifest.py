"""What does not belong together is refused: tables, vocabulary and pictures against the manifest beside them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_world import picture, rows_of, write_data, write_table

from dvp.data.arrow import Table, check_answers, open_table, read_answers
from dvp.data.pictures import picture_hashes
from dvp.errors import UserError
from dvp.manifest import hash_of, image_hash, read_manifest
from dvp.prepare import convert
from dvp.prepare.questions import question_schema
from dvp.prepare.tables import writing
from dvp.tasks import TASKS

GQA = TASKS["gqa"]
FILES = ("train", "val", "test-dev")


def write_converted(root: Path, answers: tuple[str, ...], first: int = 0) -> None:
    """GQA's tables as a conversion writes them: a question with every answer, about pictures counted from `first`."""
    import pyarrow as pa

    with writing(str(root), "gqa", {"task": "gqa", "options": {}}) as tables:
        for split in FILES:
            first += 10
            rows = [
                {
                    "image": picture(first + label),
                    "questions": ["what is it"],
                    "answers": [[answer]],
                    "answer_labels": [[label]],
                    "answer_scores": [[1.0]],
                    "image_id": f"n{first + label}",
                    "question_id": [f"{first + label}"],
                    "split": split,
                }
                for label, answer in enumerate(answers)
            ]
            tables.write(f"gqa_{split}", question_schema(pa.large_string(), pa.string()), rows)
        tables.write_answers("gqa", list(answers))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A conversion's folder."""
    write_converted(tmp_path / "data", ("red", "blue", "green"))
    return tmp_path / "data"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Another conversion's folder, whose files have the same sizes."""
    write_converted(tmp_path / "foreign", ("sad", "pink", "white"))
    return tmp_path / "foreign"


def read_all(root: Path) -> None:
    opened = [open_table(str(root), "gqa", split, GQA.columns) for split in FILES]
    check_answers(opened, read_answers(str(root), GQA))


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.unlink()  # it may still be mapped
    path.write_bytes(bytes(data))


def unlisted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard off: no manifest is found."""
    for place in ("arrow.read_manifest", "pictures.manifest_beside"):
        monkeypatch.setattr(f"dvp.data.{place}", lambda *args: None)


@pytest.mark.parametrize("name", ["gqa_train.arrow", "gqa_answers.json"])
def test_a_foreign_file_is_refused_by_name(name: str, data: Path, foreign: Path) -> None:
    read_all(data)
    assert (foreign / name).stat().st_size == (data / name).stat().st_size or name.endswith("json")
    shutil.copy(foreign / name, data / name)
    with pytest.raises(UserError, match=f"{name} is damaged or of another conversion than gqa_manifest.json"):
        read_all(data)


def test_a_foreign_vocabulary_is_refused_without_a_manifest_by_the_labels(data: Path, foreign: Path) -> None:
    (data / "gqa_manifest.json").unlink()
    read_all(data)
    shutil.copy(foreign / "gqa_answers.json", data)
    with pytest.raises(UserError, match="gqa_train.arrow, row 0, has the label 0 for 'red', but .* has 'sad' there"):
        read_all(data)


def test_without_the_manifest_a_foreign_table_of_the_same_words_is_not_seen(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_converted(tmp_path / "other", ("red", "blue", "green"), first=500)
    shutil.copy(tmp_path / "other" / "gqa_val.arrow", data)
    with pytest.raises(UserError, match="gqa_val.arrow is damaged or of another conversion"):
        read_all(data)
    unlisted(monkeypatch)
    read_all(data)


@pytest.mark.parametrize("labels", [True, False], ids=["by labels", "by nothing"])
@pytest.mark.parametrize("manifest", [True, False], ids=["by the manifest", "by no manifest"])
def test_without_both_guards_the_answers_mean_other_words(
    manifest: bool, labels: bool, data: Path, foreign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(foreign / "gqa_answers.json", data)
    if not manifest:
        unlisted(monkeypatch)
    if not labels:
        monkeypatch.setattr("dvp.data.arrow.normalise_answer", lambda answer: "")
    if manifest or labels:
        with pytest.raises(UserError, match="of another conversion"):
            read_all(data)
        return
    read_all(data)
    stored = open_table(str(data), "gqa", "train", GQA.columns)["answers"].to_pylist()[0]
    assert (stored, read_answers(str(data), GQA)[0]) == ([["red"]], "sad")


def test_a_table_that_the_manifest_does_not_tell_of_is_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(data / "gqa_val.arrow", data / "gqa_more.arrow")
    with pytest.raises(UserError, match="gqa_more.arrow is not of the conversion that gqa_manifest.json"):
        open_table(str(data), "gqa", "more")
    unlisted(monkeypatch)
    assert len(open_table(str(data), "gqa", "more")) == 3


def test_every_flipped_bit_is_seen(data: Path, tmp_path: Path) -> None:
    """Outside of pictures when the table is opened, inside when its pictures are first read, with the row."""
    source = data / "gqa_val.arrow"
    size = source.stat().st_size
    places = read_manifest(data, "gqa").files[source.name]["pictures"]
    seen = {"opened": 0, "read": 0}
    for at in range(5, size, size // 97):
        copy = tmp_path / f"copy{at}"
        shutil.copytree(data, copy)
        flip(copy / source.name, at)
        if not any(start <= at < start + length for start, length in places):
            with pytest.raises(UserError, match="gqa_val.arrow is damaged"):
                open_table(str(copy), "gqa", "val")
            seen["opened"] += 1
            continue
        table = open_table(str(copy), "gqa", "val")
        with pytest.raises(UserError, match=r"gqa_val.arrow \(row \d, image_id n\d+\) is not the one that was convert"):
            picture_hashes(table, tmp_path / "notes")
        seen["read"] += 1
    assert min(seen.values()) > 10


def test_without_the_manifest_flipped_bits_pass(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = read_manifest(data, "gqa")
    start, length = manifest.files["gqa_val.arrow"]["pictures"][0]
    flip(data / "gqa_val.arrow", start + length // 2)
    unlisted(monkeypatch)
    found = picture_hashes(open_table(str(data), "gqa", "val"), tmp_path / "notes")
    assert found != manifest.pictures()["gqa_val.arrow"]


def test_a_sound_table_is_read_once_and_noted(data: Path, tmp_path: Path) -> None:
    table = open_table(str(data), "gqa", "val")
    hashes = picture_hashes(table, tmp_path / "notes")
    assert hashes == [image_hash(one) for one in table["image"].to_pylist()]
    assert hashes == read_manifest(data, "gqa").pictures()["gqa_val.arrow"]
    assert picture_hashes(Table(table.path, (), torch.tensor([2]).numpy()), tmp_path / "notes") == hashes[2:]


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"version": 99, "files": {}, "options": {}}', "has format 99, this code reads up to 1"),
        ("[]", "is damaged"), ("{", "is damaged"), ("null", "is damaged"), ("[" * 10**5, "is damaged"),
        ('{"version": 1, "files": [], "options": {}}', "is damaged"),
        ('{"version": 1, "files": {"gqa_train.arrow": {"bytes": "9", "hash": ""}}, "options": {}}', "is damaged"),
        ('{"version": 1, "files": {"a": {"bytes": 9, "hash": "", "pictures": [[5, 9]]}}, "options": {}}', "is damaged"),
        ('{"version": 1, "files": {"a": {"bytes": 9, "hash": "", "pictures": []}}, "options": {}}', "is damaged"),
    ],
)  # fmt: skip
def test_a_damaged_or_newer_manifest_is_refused(text: str, message: str, data: Path) -> None:
    (data / "gqa_manifest.json").write_text(text)
    with pytest.raises(UserError, match=f"gqa_manifest.json {message}"):
        read_all(data)


def test_the_manifest_tells_what_was_converted_with_which_options(
    data: Path, tmp_path: Path, make_gqa: Callable[[Path], Path]
) -> None:
    convert("gqa", str(make_gqa(tmp_path / "raw")), str(tmp_path / "out"), seed=3)
    content = json.loads((tmp_path / "out" / "gqa_manifest.json").read_text())
    assert content["version"] == 1 and content["task"] == "gqa" and content["options"]["seed"] == 3
    tables = {f"gqa_{split}.arrow" for split in FILES}
    assert set(content["files"]) == tables | {"gqa_answers.json", "gqa_pictures.json"}
    for name, about in content["files"].items():
        path = tmp_path / "out" / name
        assert about["bytes"] == path.stat().st_size and about["hash"] == hash_of(path)
    assert {content["files"][name]["rows"] for name in tables} == {1}


@pytest.fixture
def make_gqa() -> Callable[[Path], Path]:
    def make(raw: Path) -> Path:
        (raw / "images").mkdir(parents=True)
        (raw / "images" / "1.jpg").write_bytes(picture(1))
        for split in ("train", "val", "testdev"):
            rows = {split: {"imageId": "1", "question": "What?", "answer": "red"}}
            (raw / f"{split}_balanced_questions.json").write_text(json.dumps(rows))
        return raw

    return make


def test_files_of_the_published_scripts_open_and_are_checked_by_their_labels(tmp_path: Path) -> None:
    write_data(tmp_path, "gqa")
    assert read_manifest(tmp_path, "gqa") is None
    read_all(tmp_path)
    rows = rows_of("gqa", "val")
    rows[2]["answers"] = [["wrong"], ["wrong"]]
    write_table(tmp_path / "gqa_val.arrow", rows)
    with pytest.raises(UserError, match="gqa_val.arrow has the label .* different conversions"):
        read_all(tmp_path)


def test_a_hash_leaves_parts_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abcdefgh" * 2**18)
    whole = (tmp_path / "file").read_bytes()
    assert hash_of(tmp_path / "file") == image_hash(whole)
    assert hash_of(tmp_path / "file", [(0, 3), (9, 2**20)]) == image_hash(whole[3:9] + whole[9 + 2**20 :])
