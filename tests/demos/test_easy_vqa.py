"""The worked example of own data: a sample of easy-VQA, from its package to a table of test accuracies."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from transformers import BertModel

import run
from demos import easy_vqa
from demos.larger import write_bert_with_words, write_larger_clip
from dvp.config import SHAPES_MODELS
from dvp.encoders.loading import load_encoder

installed = pytest.mark.skipif(
    importlib.util.find_spec("easy_vqa") is None, reason="needs the package easy-vqa: pip install easy-vqa"
)


@installed
def test_a_sample_goes_from_the_package_to_a_test_accuracy(tmp_path: Path, capsys) -> None:
    settings = "max_steps=2", "insert_layer=1 max_epoch=1"  # so short a search is undecided
    reached = easy_vqa.main(tmp_path / "data", tmp_path / "result", 20, *settings)
    run.ex.observers.clear()
    printed = capsys.readouterr().out
    assert 0 <= reached <= 100 and f"{reached:10.2f}" in printed
    rows = [json.loads(line) for line in (tmp_path / "data/raw/questions.jsonl").read_text().splitlines()]
    (answers,) = (tmp_path / "result").glob("*_easy_vqa.json")
    given = {row["question_id"] for row in json.loads(answers.read_text())}
    assert given == {row["question_id"] for row in rows if row["split"] == "test"}
    assert {row["split"] for row in rows} == {"train", "val", "test"}


@installed
def test_the_whole_set_is_there_and_its_commonest_answers_are_known(tmp_path: Path) -> None:
    rows = easy_vqa.write_rows(easy_vqa.package(), tmp_path / "raw")
    assert len(rows) == 48_248 and len({row["question_id"] for row in rows}) == 48_248
    assert len({row["answer"] for row in rows}) == 13
    assert easy_vqa.commonest(rows) == pytest.approx(66.8, abs=0.3)


def test_a_larger_encoder_sees_as_before_at_its_own_size_and_more_at_twice(tmp_path: Path) -> None:
    source = load_encoder(str(SHAPES_MODELS / "clip"))
    for pixels in (60, 120):
        write_larger_clip(SHAPES_MODELS / "clip", tmp_path / str(pixels), pixels)
    same, twice = (load_encoder(str(tmp_path / str(pixels))) for pixels in (60, 120))
    pixels = torch.randn(1, 3, 60, 60, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(same(pixels).last_hidden_state, source(pixels).last_hidden_state)
        larger = torch.nn.functional.interpolate(pixels, scale_factor=2)
        expected = source(larger, interpolate_pos_encoding=True).last_hidden_state
        torch.testing.assert_close(twice(larger).last_hidden_state, expected, rtol=1e-4, atol=1e-4)


def test_new_words_stand_behind_the_old_ones(tmp_path: Path) -> None:
    write_bert_with_words(SHAPES_MODELS / "bert", tmp_path, ["teal", "red", "teal", "brown"])
    words = (tmp_path / "vocab.txt").read_text().split()
    known = (SHAPES_MODELS / "bert" / "vocab.txt").read_text().split()
    assert words == [*known, "teal", "brown"]
    old, new = (BertModel.from_pretrained(folder, add_pooling_layer=False).get_input_embeddings().weight for folder in
                (SHAPES_MODELS / "bert", tmp_path))  # fmt: skip
    assert torch.equal(new[: len(known)], old) and len(new) == len(words)
    assert not torch.equal(new[-1], new[-2])
