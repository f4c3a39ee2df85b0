"""The answer processing, against what the official VQA evaluation program gave."""

import json
import os
from pathlib import Path

import pytest

from dvp.evaluation.answers import CONTRACTIONS, normalise_answer


@pytest.mark.skipif("DVP_OFFICIAL" not in os.environ, reason="DVP_OFFICIAL names no official results")
def test_every_answer_is_processed_as_the_official_program_does():
    rows = json.loads((Path(os.environ["DVP_OFFICIAL"]) / "vqa/normalise.json").read_text(encoding="utf-8"))
    assert rows
    assert {row["raw"]: normalise_answer(row["raw"]) for row in rows} == {row["raw"]: row["processed"] for row in rows}


@pytest.mark.parametrize(
    ("raw", "processed"),
    [
        ("The  Two", "2"),
        ("1,000", "1000"),  # a comma between digits joins
        ("a/b", "b"),  # a mark between letters parts them, and "a" is an article
        ("red ,blue/green", "red blue green"),
        ("p.m.", "pm"),
        ("3.5", "3.5"),
        ("youd've", "you'd've"),
        ("somebody'd", "somebodyd"),
        ("", ""),
    ],
)
def test_rules(raw, processed):
    assert normalise_answer(raw) == processed


def test_only_the_first_32_periods_fall():
    assert normalise_answer("x" + "." * 40) == "x" + "." * 8


def test_contractions_have_the_size_of_the_official_table():
    # 120 there, of which four lower-cased text cannot meet and two change nothing.
    assert len(CONTRACTIONS) == 114
