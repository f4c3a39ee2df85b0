"""Which rows go where: every evaluation row once, whatever the number of ranks; training rows shuffled anew."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from tiny_world import PIXELS, SPLITS, rows_of, write_table

from dvp.backbones import BACKBONES
from dvp.data import QuestionData, QuestionReader, read_answers
from dvp.encoders import CLIP
from dvp.encoders.transform import prepare
from dvp.errors import UserError
from dvp.tasks import TASKS


@pytest.fixture
def make_data(data_root: str, language_models: dict[str, str]) -> Callable[..., QuestionData]:
    def make(task: str, folder: str | Path = data_root, rank: int = 0, world_size: int = 1, **options) -> QuestionData:
        options = {"pick": (TASKS[task].pick,), "test": TASKS[task].test, "batch_size": 3, "search_batch_size": 4,
                   "num_workers": 0} | options  # fmt: skip
        tokenizer = BACKBONES["bert"].tokenizer(language_models["bert"])
        answers = read_answers(str(folder), TASKS[task])
        length = options.pop("max_text_len", 16)
        reader = QuestionReader(TASKS[task], answers, tokenizer, lambda image: prepare(image, CLIP.at(PIXELS)), length)
        data = QuestionData(TASKS[task], str(folder), reader, **options)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size)
        return data

    return make


def ids(loader) -> list:
    return [question for batch in loader for question in batch["question_id"]]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("task", ["vqa", "gqa"])
def test_every_evaluation_row_is_dealt_once(task: str, world_size: int, make_data) -> None:
    ranks = [make_data(task, rank=rank, world_size=world_size) for rank in range(world_size)]
    for splits, loaders in (
        (TASKS[task].validate, [data.val_dataloader() for data in ranks]),
        (TASKS[task].test, [data.test_dataloader() for data in ranks]),
    ):
        for number, split in enumerate(splits):
            dealt = Counter(question for loader in loaders for question in ids(loader[number]))
            assert dealt == Counter(question for row in rows_of(task, split) for question in row["question_id"])


@pytest.mark.parametrize("world_size", [1, 2])
def test_training_rows_come_from_all_training_tables_and_are_shuffled_anew(world_size: int, make_data) -> None:
    epochs = []
    for epoch in (0, 0, 1):
        loaders = [make_data("vqa", rank=rank, world_size=world_size).train_dataloader() for rank in range(world_size)]
        for loader in loaders:
            loader.sampler.set_epoch(epoch)
        epochs.append([question for loader in loaders for question in ids(loader)])
    rows = [question for split in ("train", "trainable_val") for row in rows_of("vqa", split) for question in row["question_id"]]  # fmt: skip  # noqa: E501
    assert all(sorted(epoch) == sorted(rows) for epoch in epochs)
    assert epochs[0] == epochs[1] != epochs[2]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_bucketed_batches_pad_less_and_lack_no_row(num_workers: int, make_data) -> None:
    padding = {}
    for bucketed in (False, True):
        loader = make_data("vqa", by_length=bucketed, num_workers=num_workers).train_dataloader()
        loader.sampler.set_epoch(1)
        batches = list(loader)
        rows = {question for row in rows_of("vqa", "train") for question in row["question_id"]}
        assert rows <= {question for batch in batches for question in batch["question_id"]}
        padding[bucketed] = sum(int((batch["attention_mask"] == 0).sum()) for batch in batches)
    assert padding[True] < padding[False]


@pytest.mark.parametrize("task", SPLITS)
def test_the_search_is_scored_on_its_split_alone(task: str, make_data) -> None:
    data = make_data(task)
    batches = list(data.search_dataloader())
    assert [len(batch["targets"]) for batch in batches] == [4, 4]
    if TASKS[task].submission:
        expected = [question for row in rows_of(task, TASKS[task].pick) for question in row["question_id"]]
        assert sorted(q for batch in batches for q in batch["question_id"]) == sorted(expected)


@pytest.mark.parametrize("task, labelled", [("vqa", False), ("gqa", True), ("snli_ve", True)])
def test_whether_the_test_split_can_be_scored_here(task: str, labelled: bool, make_data) -> None:
    assert make_data(task).labelled(TASKS[task].test) == labelled


@pytest.mark.parametrize("task, split", [(name, split) for name in SPLITS for split in dict.fromkeys(TASKS[name].train + TASKS[name].validate + TASKS[name].test) if split != TASKS[name].may_lack])  # fmt: skip  # noqa: E501
def test_a_missing_table_stops_before_anything_is_trained(
    task: str, split: str, make_data, data_root, tmp_path
) -> None:
    folder = shutil.copytree(data_root, tmp_path / "data")
    name = f"{TASKS[task].files}_{split}.arrow"
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        make_data(task, folder)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_questions_is_refused(split: str, make_data, data_root: str, tmp_path: Path) -> None:
    folder = shutil.copytree(data_root, tmp_path / "data")
    empty = pa.table({name: pa.nulls(0) for name in TASKS["gqa"].columns})
    write_table(folder / f"gqa_{split}.arrow", empty)
    with pytest.raises(UserError, match=f"gqa_{split}.arrow .*hold no question"):
        make_data("gqa", folder)


def test_one_of_two_training_tables_may_be_empty(make_data, data_root: str, tmp_path: Path) -> None:
    folder = shutil.copytree(data_root, tmp_path / "data")
    empty = pa.table({name: pa.nulls(0) for name in TASKS["vqa"].columns})  # as the published script writes it
    write_table(folder / "vqav2_trainable_val.arrow", empty)
    assert len(ids(make_data("vqa", folder).train_dataloader())) == 8


@pytest.mark.parametrize("max_text_len", [7, 16])
@pytest.mark.parametrize("task", SPLITS)
def test_it_is_said_once_how_many_questions_are_cut(task: str, max_text_len: int, make_data, capsys) -> None:
    data = make_data(task, max_text_len=max_text_len)
    assert not capsys.readouterr().out  # nothing is read yet
    loader, _, _ = data.train_dataloader(), data.train_dataloader(), data.search_dataloader()
    train, pick = (
        [question for split in splits for row in rows_of(task, split) for question in row["questions"]]
        for splits in (TASKS[task].train, data.pick)
    )
    said = capsys.readouterr().out.splitlines()
    assert said == [  # of none it is not said
        f"{sum(len(question.split()) + 2 > max_text_len for question in asked)} of {len(asked)} "
        f"{' and '.join(splits)} questions are over {max_text_len} tokens and cut."
        for asked, splits in ((train, TASKS[task].train), (pick, data.pick))
        if max_text_len == 7
    ]
    assert (next(iter(data.truncated.values())) > 0) == (max_text_len == 7)
    assert max(batch["input_ids"].shape[1] for batch in loader) == min(max_text_len, 9)
    make_data(task, rank=1, world_size=2).train_dataloader()
    assert not capsys.readouterr().out  # the other ranks are silent, and do not count
