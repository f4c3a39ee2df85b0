"""Processes that load data are sent paths, not tables, however they are started; they begin while nothing else runs."""

import hashlib
import os
import pickle
import sys
import threading
import time
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
import torch
from tiny_world import rows_of, write_table

from dvp.data import workers
from dvp.data.arrow import Table, open_table
from dvp.data.lengths import Batches
from dvp.data.questions import Questions
from dvp.tasks import TASKS

PICTURE_BYTES = 100_000


def first_byte(image) -> torch.Tensor:
    """A transform that a process can be sent."""
    return torch.tensor([image.getpixel((0, 0))[0]])


@pytest.fixture
def questions(tmp_path: Path) -> Questions:
    """The questions of two tables with heavy pictures."""
    for split in ("train", "trainable_val"):
        rows = rows_of("vqa", split)
        write_table(tmp_path / f"vqav2_{split}.arrow", [r | {"image": r["image"] + bytes(PICTURE_BYTES)} for r in rows])
    tables = [open_table(str(tmp_path), "vqav2", split) for split in ("train", "trainable_val")]
    return Questions(tables, TASKS["vqa"], first_byte, labelled_only=True)


def test_a_table_pickles_as_its_path_and_opens_again(questions: Questions) -> None:
    table = questions.tables[0]
    sent = pickle.dumps(table)
    again = pickle.loads(sent)
    assert len(sent) < 300 and isinstance(again, Table)
    assert again.to_pylist() == table.to_pylist() and again.column_names == table.column_names


def test_a_relative_path_is_opened_from_elsewhere(questions, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sent = pickle.dumps(open_table(".", "vqav2", "train"))
    monkeypatch.chdir(Path.home())
    assert pickle.loads(sent)["questions"].to_pylist() == questions.tables[0]["questions"].to_pylist()


@pytest.mark.parametrize("wrap", [lambda dataset: dataset, Batches, lambda d: torch.utils.data.Subset(d, range(3))])
def test_questions_are_sent_small_and_whole(wrap, questions: Questions) -> None:
    sent = bytes(ForkingPickler.dumps(wrap(questions)))
    assert len(sent) < 2_000 < PICTURE_BYTES
    again = pickle.loads(pickle.dumps(questions))
    assert len(again) == len(questions)
    assert again[len(questions) - 1] == questions[len(questions) - 1]
    assert again.question_ids() == questions.question_ids()


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_processes_started_afresh_load_the_same_rows(start: str, questions: Questions) -> None:
    loader = torch.utils.data.DataLoader(questions, None, num_workers=1, multiprocessing_context=start)
    for loaded, row in zip(loader, questions, strict=True):
        assert loaded.keys() == row.keys() and loaded["question_id"] == row["question_id"]
        assert torch.equal(loaded["pixel_values"], row["pixel_values"])


@pytest.mark.skipif(not workers.THREADS.is_dir(), reason="threads are looked up as Linux shows them")
@pytest.mark.parametrize("patience", [workers.PATIENCE, 0.0])
def test_a_fork_waits_for_threads_that_run_and_not_for_those_at_rest(patience, monkeypatch) -> None:
    monkeypatch.setattr(workers, "PATIENCE", patience)
    sleeping = threading.Event()
    sleeper = threading.Thread(target=sleeping.wait)
    busy = threading.Thread(target=hashlib.sha256, args=(bytes(100_000_000),))  # outside of Python: 0.1 s and more
    for thread in (sleeper, busy):
        thread.start()
    workers.come_to_rest()
    waited = not workers._others_run()
    busy.join()
    start = time.monotonic()
    workers.come_to_rest()
    seconds = time.monotonic() - start
    sleeping.set()
    sleeper.join()
    assert waited == (patience > 0)
    assert seconds < 0.5  # the sleeper does not hold it up


@pytest.mark.skipif(sys.version_info >= workers.FORKS_SAFELY, reason="this Python forks safely by itself")
def test_every_fork_waits(monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(workers, "_others_run", lambda: seen.append(True))
    if not (child := os.fork()):
        os._exit(0)
    os.waitpid(child, 0)
    assert seen
