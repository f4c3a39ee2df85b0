"""Rows and batches: every question with its picture and its target; only training drops what has no answer."""

from pathlib import Path

import pyarrow as pa
import pytest
import torch
from tiny_world import PIXELS, PUBLISHED, SPLITS, rows_of

from dvp.backbones import BACKBONES
from dvp.data.questions import Collate, Questions
from dvp.encoders import CLIP
from dvp.encoders.transform import prepare
from dvp.tasks import TASKS, soft_targets


def questions(task: str, splits: tuple[str, ...], labelled_only: bool = False, rows=None) -> Questions:
    tables = [pa.Table.from_pylist(rows or rows_of(task, split)) for split in splits]
    return Questions(tables, TASKS[task], lambda image: prepare(image, CLIP.at(PIXELS)), labelled_only)


@pytest.mark.parametrize("task", SPLITS)
def test_rows_are_the_tables_questions_in_order(task: str) -> None:
    splits = SPLITS[task][:2]
    dataset = questions(task, splits)
    expected = [(row, place) for split in splits for row in rows_of(task, split) for place in range(2)]
    assert len(dataset) == len(expected) == 16
    for item, (row, place) in zip(dataset, expected, strict=False):
        assert item["text"] == row["questions"][place]
        assert item["pixel_values"].shape == (3, PIXELS, PIXELS)
        if TASKS[task].answers:
            assert TASKS[task].answers[item["labels"][0]] == row["answers"][place]
        else:
            assert (item["labels"], item["scores"]) == (row["answer_labels"][place], row["answer_scores"][place])
        if TASKS[task].submission:
            assert item["question_id"] == row["question_id"][place]


@pytest.mark.parametrize("task", ["vqa", "gqa"])
@pytest.mark.parametrize("labelled_only", [True, False])
def test_only_training_drops_questions_without_a_known_answer(task: str, labelled_only: bool) -> None:
    rows = rows_of(task, "train")
    for column in ("answers", "answer_labels", "answer_scores"):
        rows[1][column][0] = []
    dataset = questions(task, ("train",), labelled_only, rows)
    dropped = rows[1]["question_id"][0]
    assert len(dataset) == 8 - labelled_only
    assert (dropped in dataset.question_ids()) != labelled_only
    assert all(dataset[item]["labels"] for item in range(len(dataset))) == labelled_only


@pytest.mark.parametrize("split", ["test", "test-dev"])
def test_a_test_split_has_questions_but_no_answers(split: str) -> None:
    rows = rows_of("vqa", split)
    assert pa.Table.from_pylist(rows)["answer_labels"].type == pa.list_(pa.null())
    dataset = questions("vqa", (split,))
    assert len(dataset.question_ids()) == len(set(dataset.question_ids())) == 8
    assert all((item["labels"], item["scores"]) == ([], []) for item in (dataset[0], dataset[7]))


@pytest.mark.parametrize("family", BACKBONES)
@pytest.mark.parametrize("task", SPLITS)
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("pad_to_max", [True, False])
def test_batches_have_their_shapes(
    family: str, task: str, size: int, pad_to_max: bool, language_models: dict[str, str]
) -> None:
    dataset = questions(task, ("train",))
    collate = Collate(BACKBONES[family].tokenizer(language_models[family]), TASKS[task], 4, 16, pad_to_max)
    batch = collate([dataset[item] for item in range(size)])
    longest = batch["attention_mask"].sum(1).max()
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (size, 16 if pad_to_max else longest)
    assert batch["pixel_values"].shape == (size, 3, PIXELS, PIXELS)
    assert batch["targets"].shape == ((size, 4) if TASKS[task].targets is soft_targets else (size,))
    assert len(batch.get("question_id", [])) == (size if TASKS[task].submission else 0)


def test_the_batch_of_a_test_split_has_empty_targets(language_models: dict[str, str]) -> None:
    dataset = questions("vqa", ("test",))
    collate = Collate(BACKBONES["bert"].tokenizer(language_models["bert"]), TASKS["vqa"], 4, 16)
    assert torch.equal(collate([dataset[0], dataset[1]])["targets"], torch.zeros(2, 4))


def test_published_tables_give_rows(real_data, tmp_path: Path) -> None:
    from dvp.data.arrow import open_table

    for task in map(TASKS.get, PUBLISHED):
        splits = tuple(dict.fromkeys(task.train + task.validate + task.test))
        tables = [open_table(str(real_data() / "ref_arrow"), task.files, split) for split in splits]
        dataset = Questions(tables, task, lambda image: prepare(image, CLIP.at(PIXELS)), labelled_only=False)
        for item in range(len(dataset)):
            row = dataset[item]
            assert row["text"] and row["pixel_values"].isfinite().all()
