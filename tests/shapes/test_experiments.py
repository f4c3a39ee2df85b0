"""All named experiments on the embedded world, by the command line, for a few steps; some to the test answers."""

import json
from collections import Counter

import pytest

import run
from dvp import evaluation
from dvp.config import NAMED
from dvp.shapes import WRITERS, build
from dvp.shapes.pretrain import LANGUAGE

EMBEDDED = [
    name
    for name, settings in NAMED.items()
    if settings["language_model"].lower() in LANGUAGE and settings["datasets"][0] in WRITERS
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    build(str(folder), pictures_per_split={"train": 8, "val": 6, "test": 4})
    return folder


def command(*words: object) -> None:
    run.ex.run_commandline(["run.py", "with", *map(str, words)])


@pytest.mark.parametrize("name", EMBEDDED)
def test_every_experiment_runs_on_the_embedded_world(name, world, tmp_path):
    settings = [name, "shapes", f"data_root={world}", f"log_dir={tmp_path}", "batch_size=8", "per_gpu_batchsize=8"]
    command(*settings, "insert_layer=1", "max_steps=2")
    (checkpoint,) = tmp_path.rglob("last.ckpt")
    if "search" in name:
        (found,) = tmp_path.rglob("search.json")
        assert json.loads(found.read_text())["finished"]
    elif "vqa" in name:
        command(*settings, "insert_layer=1", "test_only=True", f"load_path={checkpoint}")
        answers, questions = (
            tmp_path / "vqa_submit_last.json",
            world / "raw/vqa/v2_OpenEnded_mscoco_test2015_questions.json",
        )
        assert evaluation.check_submission(str(answers), str(questions))
        asked = Counter(entry["question_id"] for entry in json.loads(questions.read_text())["questions"])
        assert asked == Counter(row["question_id"] for row in json.loads(answers.read_text()))
    elif "sqa" in name:
        command(*settings, "insert_layer=1", "test_only=True", f"load_path={checkpoint}")
        answers, problems = tmp_path / "sqa_last.json", world / "raw/scienceqa/problems.json"
        answered = json.loads(answers.read_text())["results"]
        assert len(answered) == len(json.loads((problems.parent / "pid_splits.json").read_text())["test"])
        columns = evaluation.SCORERS["scienceqa"](str(answers), str(problems), "")
        assert {"IMG", "TXT", "Avg"} <= columns.keys()
