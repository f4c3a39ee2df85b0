"""Data of one's own by the commands alone: convert, search, train at its K, answer the test, ask the checkpoint."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_world import SENTENCES, picture

from dvp.checkpoints import read_checkpoint

ANSWERS = ("teal", "T-shirt", "2")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Twelve pictures with two questions each; of train, val and test."""
    folder, draw = tmp_path / "raw", random.Random(0)
    folder.mkdir()
    rows = []
    for number in range(12):
        (folder / f"{number}.png").write_bytes(picture(number))
        split = "test" if number > 9 else "val" if number > 7 else "train"
        for place in range(2):
            row = {"image": f"{number}.png", "question": SENTENCES[place], "split": split}
            rows.append(row | {"answer": draw.choice(ANSWERS), "question_id": f"{number}-{place}"})
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def leave_out(raw: Path, split: str) -> None:
    path = raw / "rows.jsonl"
    kept = [line for line in path.read_text().splitlines() if json.loads(line)["split"] != split]
    path.write_text("\n".join(kept))


def convert(command: Callable[..., None], raw: Path) -> Path:
    command("convert", "with", "datasets=custom", raw_root=raw, data_root=raw.parent / "tables")
    return raw.parent / "tables"


def newest(log_dir: str, name: str) -> Path:
    return max(Path(log_dir).rglob(name), key=lambda path: path.stat().st_mtime)


def test_from_rows_to_answers(raw: Path, command, tiny, arm_one_is_better, capsys) -> None:
    settings = tiny("dvp_adaption_bert_custom", data_root=convert(command, raw), batch_size=4)
    command("with", "dvp_search_bert_custom", **settings)
    page = newest(settings["log_dir"], "search.html").read_text()
    assert "dvp_search_bert_custom" in page
    command("with", "dvp_adaption_bert_custom", **settings, insert_layer="auto")
    last = newest(settings["log_dir"], "last.ckpt")
    description = read_checkpoint(str(last))[1]
    assert set(description["answers"]) <= set(ANSWERS) and description["insert_layer"] == 1
    command("with", **settings, test_only=True, load_path=last)
    answers = json.loads((Path(settings["log_dir"]) / "custom_submit_last.json").read_text())
    assert [row["question_id"] for row in answers] == ["10-0", "10-1", "11-0", "11-1"]
    assert {row["answer"] for row in answers} <= set(ANSWERS)
    capsys.readouterr()
    command("predict", "with", load_path=last, image=raw / "10.png", question=SENTENCES[0], json=True)
    assert json.loads(capsys.readouterr().out)["answer"] == answers[0]["answer"]


def test_without_val_a_part_of_train_takes_its_place_and_it_is_said(raw: Path, command, tiny, capsys) -> None:
    leave_out(raw, "val")
    tables = convert(command, raw)
    assert "There is no val: in its place a run keeps 5 % of train's pictures" in capsys.readouterr().out
    command("with", "dvp_adaption_bert_custom", **tiny("dvp_adaption_bert_custom", data_root=tables, max_steps=1))
    assert "custom_val.arrow is missing: 1 of the 8 images of custom_train.arrow (5%)" in capsys.readouterr().out


def test_a_refusal_lists_its_faults_without_a_traceback(raw: Path, refused: Callable[..., str]) -> None:
    path = raw / "rows.jsonl"
    path.write_text(path.read_text() + '\n{"image": "../x.png", "question": "?", "split": "train"}')
    said = refused("convert", "with", "datasets=custom", raw_root=raw, data_root=raw.parent / "tables")
    assert "has 3 faults" in said and "rows.jsonl line 25, image: '../x.png' leaves the folder" in said
    assert not list((raw.parent / "tables").iterdir())
