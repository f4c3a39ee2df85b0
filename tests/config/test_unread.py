"""A command whose output nobody reads any more ends as SIGPIPE would end it, and without a word."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dvp.config.unread import UNREAD, ends_where_unread

ROOT = Path(__file__).parents[2]


def run_unread(*words: str) -> subprocess.CompletedProcess:
    """What became of `python run.py <words>` whose output goes into a pipe that is closed at its other end."""
    reads, writes = os.pipe()
    os.close(reads)
    try:
        command = [sys.executable, "run.py", *words]
        return subprocess.run(command, cwd=ROOT, stdout=writes, stderr=subprocess.PIPE, text=True, timeout=120)
    finally:
        os.close(writes)


@pytest.mark.parametrize("words", ["help", "help seed", "--help", "print_config with dvp_search_bert_vqa", "training"])
def test_it_ends_without_a_word(words: str, tiny: Callable[..., dict]) -> None:
    settings = [f"{key}={value}" for key, value in tiny("dvp_adaption_bert_gqa", insert_layer=0).items()]
    training = ["with", "dvp_adaption_bert_gqa", *settings]
    ended = run_unread(*(training if words == "training" else words.split()))
    assert (ended.returncode, ended.stderr) == (UNREAD, "")


def test_another_connection_that_breaks_is_told() -> None:
    with pytest.raises(BrokenPipeError, match="of a worker"), ends_where_unread():
        raise BrokenPipeError("of a worker")
