"""Predictions: every question exactly once, or no file at all."""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from dvp.errors import UserError
from dvp.evaluation import submission
from dvp.evaluation.submission import gather, predictions, write_answers, write_submission

OLD = Path(__file__).parents[1] / "golden" / "formats" / "unversioned" / "bert"
ROWS = [(7, "yes"), (3, "two")]
NAMES = ("question_id", "answer")


def test_answers_are_written_in_order_with_a_note_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "result" / "vqa_submit_last.json"
    write_submission(path, predictions(ROWS, [3, 7], NAMES), {"as_published": False})
    assert json.loads(path.read_text()) == [{"question_id": 3, "answer": "two"}, {"question_id": 7, "answer": "yes"}]
    assert json.loads(path.with_suffix(".about.json").read_text()) == {"format": 1, "as_published": False}
    assert len(list(path.parent.iterdir())) == 2


WRONG = [
    (ROWS, [3, 7, 8], "1 questions without an answer"),
    (ROWS, [3], "1 answers too many"),
    ([*ROWS, ROWS[0]], [3, 7], "1 answers too many"),
    ([ROWS[0], ROWS[0]], [3, 7], "1 questions without an answer, 1 answers too many"),
    ([*ROWS, ROWS[0]], [3, 7, 7], "question 7 twice"),
    ([("7", "yes"), ("3", "two")], [3, 7], "2 questions without an answer"),
]


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("rows, questions, message", WRONG)
def test_anything_but_each_question_once_is_refused_and_not_written(
    rows: list, questions: list, message: str, guarded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "vqa_submit_last.json"
    if guarded:
        with pytest.raises(UserError, match=message):
            write_submission(path, predictions(rows, questions, NAMES), {})
        assert not list(tmp_path.iterdir())
        return
    monkeypatch.setattr(submission, "Counter", lambda ids: {})  # nothing is counted
    write_submission(path, predictions(rows, questions, NAMES), {})
    assert [row["question_id"] for row in json.loads(path.read_text())] != sorted(set(questions))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "result").write_text("a file in place of the folder")
    with pytest.raises(UserError, match="result"):
        write_submission(tmp_path / "result" / "out.json", predictions(ROWS, [3, 7], NAMES), {})


def test_alone_the_rows_are_all_rows() -> None:
    assert gather(ROWS) == ROWS


# Answers of several runs


def checkpoint(result: Path, run: str, weights: bytes) -> str:
    """A checkpoint of the name `last` of a run, as far as its answers' name goes."""
    folder = result / run / "checkpoints" / "last.ckpt"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.safetensors").write_bytes(weights)
    return str(folder)


def test_another_runs_answers_stay(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "vqa_submit_last.json"
    first, second = (checkpoint(tmp_path, f"e_seed0/version_{number}", bytes([number])) for number in (0, 1))
    assert write_answers(path, "first", {"n": 1}, first) == path
    place = write_answers(path, "second", {"n": 2}, second)
    assert place.name == "vqa_submit_e_seed0_version_1_last.json"
    assert f"{path} holds another checkpoint's answers" in capsys.readouterr().out
    assert [json.loads(file.read_text()) for file in (path, place)] == ["first", "second"]
    about = [json.loads(file.with_suffix(".about.json").read_text())["checkpoint"]["path"] for file in (path, place)]
    assert about == [first, second]
    assert write_answers(path, "first again", {}, first) == path
    assert write_answers(path, "second again", {}, second) == place
    assert len(list(tmp_path.glob("*.json"))) == 4


def test_a_run_that_was_made_anew_in_the_same_place_is_another(tmp_path: Path) -> None:
    path, run = tmp_path / "sqa_last.json", "e_seed0/version_0"
    for number in range(4):
        write_answers(path, number, {}, checkpoint(tmp_path, run, bytes([number])))
    names = ["sqa_last.json", *(f"sqa_e_seed0_version_0_last{end}.json" for end in ("", "_2", "_3"))]
    assert [json.loads((tmp_path / name).read_text()) for name in names] == [0, 1, 2, 3]


def test_a_checkpoint_that_was_moved_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "vqa_submit_last.json"
    for run in ("e_seed0/version_0", "elsewhere/kept"):
        assert write_answers(path, run, {}, checkpoint(tmp_path, run, b"same")) == path


@pytest.mark.parametrize("guarded", [True, False])
def test_answers_that_nobody_tells_of_stay(guarded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "vqa_submit_last.json"
    path.write_text("mine")
    if not guarded:
        monkeypatch.setattr(submission, "_free_or_own", lambda *place: True)
    place = write_answers(path, "new", {}, checkpoint(tmp_path, "e_seed0/version_0", b"0"))
    assert (path.read_text() == "mine" and place != path) == guarded


@pytest.mark.parametrize("note", ["about_by_path.json", "about_by_weights.json"])
def test_a_note_of_before_there_were_formats_tells_whose_the_answers_are(
    note: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = str(shutil.copytree(OLD / "adapters.ckpt", Path("bert") / "adapters.ckpt"))  # where it lay
    path = tmp_path / "vqa_submit_adapters.json"
    shutil.copy(OLD / "answers.json", path)
    shutil.copy(OLD / note, path.with_suffix(".about.json"))
    assert write_answers(path, "other", {}, checkpoint(tmp_path, "e_seed0/version_1", b"1")) != path
    assert write_answers(path, "new", {}, own) == path and json.loads(path.read_text()) == "new"


@pytest.mark.parametrize("guarded", [True, False])
def test_of_many_tests_that_end_together_each_keeps_its_answers(
    guarded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "vqa_submit_last.json"
    tested = [checkpoint(tmp_path, f"e_seed0/version_{number}", bytes([number])) for number in range(16)]
    if not guarded:
        look = submission._free_or_own
        monkeypatch.setattr(submission, "locked", lambda lock: nullcontext())
        monkeypatch.setattr(submission, "_free_or_own", lambda *place: [look(*place), time.sleep(0.1)][0])

    def write(number: int) -> None:
        with nullcontext() if guarded else suppress(UserError, OSError):
            write_answers(path, number, {}, tested[number])

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, range(16)))
    kept = {json.loads(place.read_text()) for place in tmp_path.glob("*_last.json")}
    assert (kept == set(range(16))) == guarded


def test_a_failed_write_leaves_no_note(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_answers(tmp_path / "vqa_submit_last.json", object(), {}, checkpoint(tmp_path, "e/version_0", b"0"))
    assert not list(tmp_path.glob("*submit*"))
