"""The answers of a published checkpoint, which numbers them: never others in silence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_file import published_state, write_lightning
from tiny_world import ANSWERS, rows_of, write_data, write_table

from dvp.build import build_data, build_module
from dvp.errors import UserError
from dvp.published.checkpoint import PublishedCheckpoint, read_lightning
from dvp.published.vocabulary import published_answers
from dvp.tasks import TASKS

WIDTH = 9  # answers that the checkpoints here tell apart
LIST = [*ANSWERS, "t shirt", "table", "dog", "cat", "sky"]
LABELS = {4: "t-shirt", 6: "dog"}  # what the tables hold beside ANSWERS


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Tables of GQA as the published scripts leave them: labels of their list, few of which occur, and no list."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_data(folder, "gqa")
    rows = rows_of("gqa", "train")
    labels = list(LABELS)
    rows[0] |= {"answers": [[LABELS[label]] for label in labels], "answer_labels": [[label] for label in labels]}
    write_table(folder / "gqa_train.arrow", rows)
    return folder


@pytest.fixture
def checkpoint() -> PublishedCheckpoint:
    head = {"gqa_classifier.3.weight": torch.zeros(WIDTH, 2), "snli_ve_classifier.3.weight": torch.zeros(3, 2)}
    return PublishedCheckpoint("last.ckpt", head, {}, None, None)


def write_list(folder: Path, answers: list[str]) -> None:
    (folder / "gqa_answers.json").write_text(json.dumps(answers))


def test_without_a_list_the_labels_name_what_they_can(
    checkpoint: PublishedCheckpoint, tables: Path, capsys: Any
) -> None:
    names = published_answers(checkpoint, "gqa", TASKS["gqa"], str(tables))
    assert names == [*ANSWERS, "t-shirt", "", "dog", "", ""]
    said = capsys.readouterr().out
    assert f"last.ckpt tells 9 answers apart without naming them: the labels in {tables} are taken" in said
    assert "3 of them have no name there" in said and "put the list of all 9" in said and "gqa_answers.json" in said


def test_a_list_that_agrees_names_them_all(checkpoint: PublishedCheckpoint, tables: Path, capsys: Any) -> None:
    write_list(tables, LIST)
    assert published_answers(checkpoint, "gqa", TASKS["gqa"], str(tables)) == LIST
    said = capsys.readouterr().out
    assert "no name" not in said and "gqa_answers.json is taken for its own" in said


WRONG = {
    "another order": ([*LIST[1:], LIST[0]], "calls label 0 'no', but the tables beside it 'yes': put the list"),
    "two exchanged": ([*LIST[:4], *LIST[6:3:-1], *LIST[7:]], "calls label 4 'dog', but the tables beside it 't-shirt'"),
    "shorter": (LIST[:-1], "tells 9 answers apart, but .*gqa_answers.json lists 8"),
    "longer": ([*LIST, "tree"], "lists 10: take the Arrow files that it was trained on"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_another_list_is_refused(kind: str, checkpoint: PublishedCheckpoint, tables: Path) -> None:
    answers, message = WRONG[kind]
    write_list(tables, answers)
    with pytest.raises(UserError, match=message):
        published_answers(checkpoint, "gqa", TASKS["gqa"], str(tables))


@pytest.mark.parametrize("listed", [False, True])
def test_a_label_beyond_the_head_is_refused(listed: bool, checkpoint: PublishedCheckpoint, tables: Path) -> None:
    rows = rows_of("gqa", "val")
    rows[1] |= {"answers": [["tree"]] * 2, "answer_labels": [[WIDTH]] * 2}
    write_table(tables / "gqa_val.arrow", rows)
    if listed:
        write_list(tables, LIST)
    with pytest.raises(UserError, match="tells 9 answers apart, but the tables in .* have the label 9"):
        published_answers(checkpoint, "gqa", TASKS["gqa"], str(tables))


def test_a_fixed_vocabulary_needs_no_list(checkpoint: PublishedCheckpoint, data_root: str) -> None:
    assert published_answers(checkpoint, "snli_ve", TASKS["snli_ve"], data_root) is None
    assert published_answers(checkpoint, "vqa", TASKS["vqa"], data_root) is None  # it has no head for that


def test_the_head_is_as_wide_as_the_checkpoints(
    tables: Path, configure: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Which is loaded; tables that are not its are refused before the language model is read."""
    write_list(tables, LIST)
    options = {"data_root": str(tables), "as_published": True, "insert_layer": 1}
    module = build_module(config := configure("dvp_adaption_bert_gqa", **options), build_data(config))
    settings = {"loss_names": {"gqa": 1}, "insert_layer": 1, "num_heads": 4}
    path = write_lightning(tmp_path / "last.ckpt", published_state(module), settings)
    assert read_lightning(path).num_answers("gqa") == WIDTH
    (tables / "gqa_answers.json").unlink()
    config = configure("dvp_adaption_bert_gqa", **options, load_path=path)
    data = build_data(config)
    loaded = build_module(config, data)
    assert torch.equal(loaded.model.head.answer.weight, module.model.head.answer.weight)
    assert len(data.answers) == WIDTH and [data.answers[label] for label in LABELS] == list(LABELS.values())
    write_list(tables, LIST[::-1])
    with pytest.raises(UserError, match="calls label 0"):
        build_data(config)


def test_vqas_soft_targets_are_as_wide_too(configure: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    options = {"as_published": True, "insert_layer": 1}
    config = configure("dvp_adaption_bert_vqa", **options)
    module = build_module(config, build_data(config))
    state = published_state(module)
    for name in ("weight", "bias"):
        state[f"vqa_classifier.3.{name}"] = torch.cat([state[f"vqa_classifier.3.{name}"]] * 2)
    settings = {"loss_names": {"vqa": 1}, "insert_layer": 1, "num_heads": 4}
    path = write_lightning(tmp_path / "last.ckpt", state, settings)
    data = build_data(configure("dvp_adaption_bert_vqa", **options, load_path=path))
    assert next(iter(data.train_dataloader()))["targets"].shape[1] == 2 * len(ANSWERS)
