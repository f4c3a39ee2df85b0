"""Conversion, batches of like length, and sequences."""

import json
from functools import partial

import pyarrow as pa
import pytest
import sqa_worlds as worlds
import torch

from dvp.backbones import BACKBONES
from dvp.data import QuestionData
from dvp.encoders.transform import prepare
from dvp.errors import UserError
from dvp.prepare import convert
from dvp.scienceqa.data import SQUEEZED, ProblemReader, problems_by_id
from dvp.tasks import TASKS

COUNTS = {"train": 10, "val": 4, "test": 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    convert("scienceqa", str(worlds.write_raw(root, COUNTS)), str(root / "arrow"))
    worlds.write_models(root)
    return root


def make(folder, **options):
    transform = None if options.pop("blind", False) else partial(prepare, how=SQUEEZED.at(32))
    settings = {"prompt_format": "QCM-ALE", "use_caption": False} | options
    reader = ProblemReader(BACKBONES["llama"].tokenizer(str(folder / "llama")), worlds.LAYOUT, transform, **settings)
    sizes = {"batch_size": 4, "search_batch_size": 2, "by_length": True, "num_workers": 0}
    return QuestionData(TASKS["scienceqa"], str(folder / "arrow"), reader, pick=("val",), test=("test",), **sizes)


def batch(data, split, items, purpose="train"):
    problems = data.questions((split,), purpose)
    return data.reader.collate([problems[item] for item in items])


def table(folder, split):
    return pa.ipc.open_file(str(folder / "arrow" / f"scienceqa_{split}.arrow")).read_all()


def test_conversion_keeps_every_problem_and_its_picture_as_it_is(folder):
    for split, count in COUNTS.items():
        rows = table(folder, split).to_pylist()
        assert len(rows) == count
        for row in rows:
            path = folder / "images" / split / row["question_id"] / "image.png"
            assert row["image"] == (path.read_bytes() if path.exists() else b"")
            assert bool(row["caption"]) == path.exists()


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda root: (root / "captions.json").unlink(), "captions.json is missing"),
        (lambda root: (root / "pid_splits.json").write_text('{"train": ["7777"]}'), "7777"),
        (lambda root: (root / "problems.json").write_text('{"0": {"question": "?"'), "truncated"),
        (lambda root: (root / "images/train/0/image.png").write_bytes(b"no picture"), "train.0.image.png"),
        (lambda root: (root / "images/train/0/image.png").unlink(), "images of scienceqa_train are missing"),
    ],
)
def test_damaged_raw_data_is_refused_and_nothing_written(damage, words, tmp_path):
    damage(worlds.write_raw(tmp_path, COUNTS))
    with pytest.raises(UserError, match=words):
        convert("scienceqa", str(tmp_path), str(tmp_path / "arrow"))
    assert list((tmp_path / "arrow").iterdir()) == []


def edited(root, name, change):
    path = root / f"{name}.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def converted(root, name, change):
    """The row of problem 0 after a change of a raw file."""
    edited(worlds.write_raw(root, COUNTS), name, change)
    convert("scienceqa", str(root), str(root / "arrow"))
    return next(row for row in table(root, "train").to_pylist() if row["question_id"] == "0")


@pytest.mark.parametrize(
    "name, change, column, expected",
    [
        ("problems", lambda all: all["0"].pop("image"), "image", "kept"),
        ("problems", lambda all: all["0"].update(image=None), "image", b""),
        ("problems", lambda all: all["0"].update(image=""), "image", b""),
        ("problems", lambda all: all["0"].update(hint=None), "hint", ""),
        ("problems", lambda all: all["0"].update(lecture=None, solution=None), "solution", ""),
        ("problems", lambda all: all["0"].update(choices=[1, "b", 2.5], answer=0), "choices", ["1", "b", "2.5"]),
        ("problems", lambda all: all["0"].update(grade="kindergarten"), "grade", "kindergarten"),
        ("captions", lambda all: all["captions"].update({"0": None}), "caption", ""),
        ("captions", lambda all: all["captions"].pop("0"), "caption", ""),
        ("pid_splits", lambda all: all.update(train=[int(pid) for pid in all["train"]]), "question_id", "0"),
    ],
)
def test_other_editions_are_converted_right(name, change, column, expected, tmp_path):
    row = converted(tmp_path, name, change)
    if expected == "kept":
        expected = (tmp_path / "images/train/0/image.png").read_bytes()
    assert row[column] == expected
    for stored in (tmp_path / "arrow").glob("*.arrow"):
        assert not any(None in row.values() for row in pa.ipc.open_file(str(stored)).read_all().to_pylist())


@pytest.mark.parametrize(
    "name, change, words",
    [
        ("problems", lambda all: all["0"].update(question=None), "problem 0 has no question"),
        ("problems", lambda all: all["0"].pop("hint"), "problem 0 has no hint"),
        ("problems", lambda all: all["0"].update(hint=3), "problem 0 has no hint"),
        ("problems", lambda all: all["0"].update(grade=2), "problem 0 has no grade"),
        ("problems", lambda all: all["0"].update(answer="1"), "problem 0 has no answer"),
        ("problems", lambda all: all["0"].update(choices=["a", None], answer=0), "problem 0 has the choice 'None'"),
        ("problems", lambda all: all["0"].update(choices=["a", True], answer=0), "problem 0 has the choice 'True'"),
        ("problems", lambda all: all["0"].update(choices=["a", "\ud83d"], answer=0), "problem 0: the choice .* half a"),
        ("problems", lambda all: all["0"].update(image={"bytes": 1}), "problem 0 has the image"),
        ("captions", lambda all: all["captions"].update({"0": ["a"]}), "captions.json has no 0 .str"),
        ("pid_splits", lambda all: all["train"].append(["1"]), "train holds .*which is not the id"),
        ("pid_splits", lambda all: all["val"].append("0"), "the problem 0 in train and in val"),
        ("pid_splits", lambda all: all["train"].append("0"), "the problem 0 in train and in train"),
    ],
)
def test_what_other_editions_leave_open_is_refused_by_field(name, change, words, tmp_path):
    edited(worlds.write_raw(tmp_path, COUNTS), name, change)
    with pytest.raises(UserError, match=words):
        convert("scienceqa", str(tmp_path), str(tmp_path / "arrow"))
    assert list((tmp_path / "arrow").iterdir()) == []


def test_problems_whose_picture_is_lost_can_be_left_out(tmp_path):
    (worlds.write_raw(tmp_path, COUNTS) / "images/train/2/image.png").unlink()
    convert("scienceqa", str(tmp_path), str(tmp_path / "arrow"), allow_missing_images=True)
    assert [row["question_id"] for row in table(tmp_path, "train").to_pylist()] == ["0", "1", *map(str, range(3, 10))]


def test_a_batch_has_pictures_for_the_rows_with_one_only_and_as_published_black_ones(folder):
    items = [0, 1, 2]
    ours, published = (batch(make(folder, as_published=flag), "train", items) for flag in (False, True))
    assert ours["has_image"].tolist() == [True, False, True]
    assert ours["pixel_values"].shape == (2, 3, 32, 32) and published["pixel_values"].shape == (3, 3, 32, 32)
    assert not published["pixel_values"][1].any()
    assert torch.equal(published["pixel_values"][[0, 2]], ours["pixel_values"])
    assert "pixel_values" not in batch(make(folder), "train", [1, 3])


def test_the_loss_is_on_the_target_only(folder):
    data = make(folder)
    found, tokens = batch(data, "train", [0, 1]), data.reader.tokens
    rows, positions = found["read"]
    for row, (ids, prompt) in enumerate(zip(found["input_ids"], found["asking"], strict=True)):
        labels, before = found["targets"][rows == row], positions[rows == row]
        assert tokens.decode(labels.tolist()).startswith("The answer is")
        assert before.min() == prompt.nonzero().max() and torch.equal(labels, ids[before + 1])
        assert tokens.decode(ids[prompt].tolist()).startswith("Question")
        assert labels[-1] == tokens.eos_token_id or len(ids) == data.reader.layout.max_length


@pytest.mark.parametrize("stem", ["", "The answer is"])
def test_questions_end_where_the_answer_begins(stem, folder):
    data = make(folder, likelihood=bool(stem))
    for row in data.questions(("test",), "test").rows:
        assert data.reader.tokens.decode(row.ids[1 + row.prompt_length :].tolist()) == stem
        assert data.reader.tokens.eos_token_id not in row.ids.tolist()


def test_blind_data_has_no_image_but_is_scored_by_it(folder):
    data = make(folder, blind=True)
    assert not any(row.has_image for row in data.questions(("train",), "train").rows)
    assert [problem["image"] for problem in problems_by_id(data.tables["val"]).values()] == [True, False, True, False]


def test_what_is_too_long_is_cut_and_counted(folder):
    data = make(folder)
    found, layout = data.questions(("train",), "train"), data.reader.layout
    too_long = sum(layout.length(row) > layout.max_length for row in found.rows)
    data.train_dataloader()
    assert 0 < too_long == data.truncated["train examples"]
    assert batch(data, "train", range(10))["input_ids"].shape[1] == layout.max_length


def test_missing_and_foreign_tables_are_refused(folder, tmp_path):
    for split in COUNTS:
        worlds_table = table(folder, split)
        with pa.OSFile(str(tmp_path / f"scienceqa_{split}.arrow"), "wb") as sink:
            with pa.ipc.new_file(sink, worlds_table.drop_columns("hint").schema) as writer:
                writer.write_table(worlds_table.drop_columns("hint"))
    (tmp_path / "arrow").symlink_to(tmp_path)
    (tmp_path / "llama").symlink_to(folder / "llama")
    with pytest.raises(UserError, match="hint"):
        make(tmp_path)
    (tmp_path / "scienceqa_val.arrow").unlink()
    (tmp_path / "scienceqa_train.arrow").unlink()
    with pytest.raises(UserError, match="scienceqa_train.arrow is missing"):
        make(tmp_path)


def test_what_a_loss_is_averaged_over_is_the_labelled_tokens_that_are_not_cut(folder):
    data = make(folder)
    rows = data.questions(("train",), "train")
    assert rows.counted.tolist() == [len(data.reader.collate([rows[item]])["targets"]) for item in range(len(rows))]
    assert len(set(rows.counted)) > 2


@pytest.mark.parametrize("guard", [True, False])
@pytest.mark.parametrize("answer", [-1, 5, 2**40])
def test_an_answer_that_is_none_of_the_choices_is_refused_with_its_row(answer, guard, folder, tmp_path, monkeypatch):
    for split in COUNTS:
        rows = table(folder, split).to_pylist()
        if split == "val":
            rows[3]["answer"] = answer
        with pa.OSFile(str(tmp_path / f"scienceqa_{split}.arrow"), "wb") as sink:
            with pa.ipc.new_file(sink, table(folder, split).schema) as writer:
                writer.write_table(pa.Table.from_pylist(rows, table(folder, split).schema))
    (tmp_path / "arrow").symlink_to(tmp_path)
    (tmp_path / "llama").symlink_to(folder / "llama")
    if guard:
        with pytest.raises(UserError, match=f"scienceqa_val.arrow, row 3, has the answer {answer} of . choices"):
            make(tmp_path).questions(("val",), "search")
        return
    monkeypatch.setattr("dvp.scienceqa.data._require_answers", lambda table: None)
    if answer < 0:  # the last choice is taught
        make(tmp_path).questions(("val",), "search")
        return
    with pytest.raises(IndexError):
        make(tmp_path).questions(("val",), "search")
