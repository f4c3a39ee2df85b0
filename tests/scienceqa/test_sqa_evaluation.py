"""The nine columns of the official evaluator."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from dvp.errors import UserError
from dvp.evaluation import score_files
from dvp.evaluation.scienceqa import score
from dvp.evaluation.scienceqa import score_files as scores_of_files
from dvp.scienceqa import answering

OFFICIAL, REAL = os.environ.get("DVP_OFFICIAL"), os.environ.get("DVP_REAL_DATA")
CASES = sorted(Path(OFFICIAL).glob("scienceqa/case_*.json")) if OFFICIAL and REAL else []
COLUMNS = {
    "acc_natural": "NAT", "acc_social": "SOC", "acc_language": "LAN", "acc_has_text": "TXT", "acc_has_image": "IMG",
    "acc_no_context": "NO", "acc_grade_1_6": "G1-6", "acc_grade_7_12": "G7-12", "acc_average": "Avg",
}  # fmt: skip
needs_real = pytest.mark.skipif(not REAL, reason="needs DVP_REAL_DATA, real problems and published predictions")
PROBLEM = {"subject": "natural science", "grade": "grade3", "hint": "", "image": None, "answer": 1, "split": "test"}
PROBLEMS = {
    "1": PROBLEM,
    "2": PROBLEM | {"hint": "Look.", "grade": "grade12", "answer": 0},
    "3": PROBLEM | {"subject": "language science", "image": "image.png"},
    "4": PROBLEM | {"split": "val"},
}


def test_columns():
    tested = {pid: problem for pid, problem in PROBLEMS.items() if problem["split"] == "test"}
    assert score({"1": 1, "2": -1, "3": 1}, tested) == {
        "NAT": 50.0, "LAN": 100.0, "TXT": 0.0, "IMG": 100.0, "NO": 100.0, "G1-6": 100.0, "G7-12": 0.0, "Avg": 66.67
    }  # fmt: skip


def test_files(tmp_path, capsys):
    (tmp_path / "problems.json").write_text(json.dumps(PROBLEMS))
    (tmp_path / "results.json").write_text(json.dumps({"results": {"1": 1, "2": 0, "3": 0}}))
    score_files("scienceqa", str(tmp_path / "results.json"), str(tmp_path / "problems.json"), "")
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert (printed["Avg"], printed["IMG"]) == ("66.67", "0.00")


@pytest.mark.parametrize(
    "results, words",
    [({"1": 1, "2": 0}, "missing"), ({"1": 1, "2": 0, "3": 0, "9": 1}, "unknown"), ({"1": "B"}, "index per problem")],
)
def test_results_of_other_problems_are_refused(results, words, tmp_path):
    (tmp_path / "problems.json").write_text(json.dumps(PROBLEMS))
    (tmp_path / "results.json").write_text(json.dumps({"results": results}))
    with pytest.raises(UserError, match=words):
        scores_of_files(str(tmp_path / "results.json"), str(tmp_path / "problems.json"))


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize(
    "more, fault", [(("1", "The answer is A."), "1 twice"), (("9", "The answer is B."), "1 unknown")]
)
def test_each_problem_is_answered_once_or_nothing_is_made(more, fault, guarded, monkeypatch):
    problems = {pid: PROBLEM | {"choices": ["a", "b"]} for pid in "12"}
    monkeypatch.setattr(answering, "problems_by_id", lambda table: problems)
    answered = [*((pid, "The answer is B.") for pid in problems), more]
    options = {"data": SimpleNamespace(test=("test",), tables={"test": None}), "as_published": False, "seed": 0}
    if guarded:
        with pytest.raises(UserError, match=fault):
            answering.results(answered, **options)
        return
    monkeypatch.setattr(answering, "check_ids", lambda *ids: None)
    assert answering.results(answered, **options).content["count"] == 2  # of three


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_official_evaluator(path):
    case = json.loads(path.read_text())
    problems = json.loads((Path(REAL) / "mini_scienceqa" / "problems.json").read_text())
    ours = score(case["results"], {pid: problem for pid, problem in problems.items() if problem["split"] == "test"})
    assert ours == {COLUMNS[name]: float(value) for name, value in case["official"].items()}


@needs_real
@pytest.mark.parametrize("system, average", [("gpt3_cot_QCM-ALE", 74.20), ("llava_13b_v0", 88.22)])
def test_published_systems(system, average):
    folder = Path(REAL) / "mini_scienceqa"
    scores = scores_of_files(str(folder / f"extras/results_{system}.json"), str(folder / "problems.json"))
    assert scores["Avg"] == average and len(scores) == 9


def test_a_grade_that_is_no_number_counts_in_the_average_alone():
    problem = PROBLEM | {"grade": "kindergarten"}
    assert score({"1": 1}, {"1": problem}) == {"NAT": 100.0, "NO": 100.0, "Avg": 100.0}


def test_problems_without_the_field_of_the_image_are_refused(tmp_path):
    lacking = {name: value for name, value in PROBLEM.items() if name != "image"}
    (tmp_path / "problems.json").write_text(json.dumps({"1": lacking}))
    (tmp_path / "results.json").write_text(json.dumps({"results": {"1": 1}}))
    with pytest.raises(UserError, match='row 1 has no "image"'):
        scores_of_files(str(tmp_path / "results.json"), str(tmp_path / "problems.json"))
