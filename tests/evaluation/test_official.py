"""The scorers against what the task owners' own programs answered, here and in any folder of the same layout."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dvp.evaluation import gqa, vqa

OWN = Path(__file__).parents[1] / "golden/official"
OFFICIAL = os.environ.get("DVP_OFFICIAL")
REAL = os.environ.get("DVP_REAL_DATA")
CASES = sorted(OWN.glob("vqa/case_*.json")) + (sorted(Path(OFFICIAL).glob("vqa/case_*.json")) if OFFICIAL else [])

needs_both = pytest.mark.skipif(
    not (OFFICIAL and REAL),
    reason="needs DVP_OFFICIAL, the official answers, and DVP_REAL_DATA, the data they are about",
)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def assert_vqa_equals(scores: dict[str, Any], case: dict[str, Any]) -> None:
    assert {str(question): value for question, value in scores.pop("perQuestion").items()} == case["per_question"]
    assert scores == case["accuracy"]


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parents[1].name}-{path.stem}")
def test_vqa_equals_the_official_program(path):
    case = read(path)
    assert_vqa_equals(vqa.score(case["predictions"], case["annotations"], case["questions"]), case)


@needs_both
def test_vqa_equals_the_official_program_on_real_questions(tmp_path):
    data = Path(REAL) / "mini_vqav2"
    paths = sorted(Path(OFFICIAL).glob("vqa/mini_*.json"))
    assert paths
    for path in paths:
        case = read(path)
        predictions = tmp_path / path.name
        predictions.write_text(json.dumps(case["predictions"]))
        scores = vqa.score_files(
            str(predictions),
            str(data / "v2_mscoco_val2014_annotations.json"),
            str(data / "v2_OpenEnded_mscoco_val2014_questions.json"),
        )
        assert_vqa_equals(scores, case)


@needs_both
@pytest.mark.parametrize("questions", ["testdev_balanced_questions.json", "extras/testdev_all_questions.json"])
def test_gqa_equals_the_official_program(questions):
    case = read(Path(OFFICIAL) / "gqa/testdev.json")
    scores = gqa.score(case["predictions"], read(Path(REAL) / "mini_gqa" / questions))
    assert scores == {name: case[name] for name in ("binary", "open", "accuracy", "by")}
