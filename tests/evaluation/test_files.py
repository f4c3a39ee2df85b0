"""Scoring and checking files: the table that is printed, and what is said of files that are not right."""

import json
from pathlib import Path

import pytest

from dvp.errors import UserError
from dvp.evaluation import check_submission, score_files

VQA = {
    "predictions": [{"question_id": 1, "answer": "yes"}, {"question_id": 2, "answer": "two"}],
    "annotations": {
        "annotations": [
            {
                "question_id": number,
                "question_type": "how many",
                "answer_type": kind,
                "answers": [{"answer": answer, "answer_id": i} for i, answer in enumerate(answers)],
            }
            for number, kind, answers in [(1, "yes/no", ["yes"] * 10), (2, "number", ["2"] * 3 + ["3"] * 7)]
        ]
    },
    "questions": {"data_subtype": "test2015", "questions": [{"question_id": 1}, {"question_id": 2}]},
}
GQA_QUESTION = {
    "question": "What is it?",
    "answer": "car",
    "isBalanced": True,
    "types": {"structural": "query", "semantic": "obj"},
    "semantic": [{"operation": "query", "argument": "name"}],
}
GQA = {"predictions": [{"questionId": "1", "prediction": "car"}], "questions": {"1": GQA_QUESTION}}


def write(folder: Path, **contents) -> dict[str, str]:
    """Write each content as a JSON file; returns the paths by name."""
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return {name: str(folder / f"{name}.json") for name in contents}


def test_the_vqa_table(tmp_path, capsys):
    score_files("vqa", **write(tmp_path, **VQA))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "overall 95.00",
        "perAnswerType",
        "yes/no 100.00",
        "number 90.00",
        "perQuestionType",
        "how many 95.00",
    ]


@pytest.mark.parametrize("setting", ["questions", "annotations"])
def test_the_gqa_table_from_the_questions_file_under_either_name(setting, tmp_path, capsys):
    paths = write(tmp_path, **GQA)
    files = {"annotations": "", "questions": ""} | {setting: paths["questions"]}
    score_files("gqa", paths["predictions"], **files)
    out = " ".join(capsys.readouterr().out.split())
    assert out.startswith("binary 0.00 open 100.00 accuracy 100.00 by structural type query 100.00 of 1")


def test_an_unknown_task_is_refused():
    with pytest.raises(UserError, match="task=snli has no official evaluation: take one of vqa, gqa"):
        score_files("snli", "a", "b", "c")


WRONG = [
    ("vqa", "predictions", "[1, 2", "not whole JSON.*truncated"),
    ("vqa", "predictions", {"1": "yes"}, "is not a list"),
    ("vqa", "predictions", [["1", "yes"]], 'row 0 has no "question_id" of type int'),
    ("vqa", "predictions", [{"question_id": "1", "answer": "yes"}], 'row 0 has no "question_id" of type int'),
    ("vqa", "predictions", [{"question_id": 1, "answer": 2}], 'row 0 has no "answer" of type str'),
    ("vqa", "annotations", VQA["questions"], 'is not an object with the list "annotations"'),
    ("vqa", "annotations", {"annotations": [{"question_id": 1}]}, 'row 0 has no "question_type"'),
    (
        "vqa",
        "annotations",
        {"annotations": [VQA["annotations"]["annotations"][0] | {"answers": []}]},
        "question 1 has no answers",
    ),
    ("vqa", "questions", [], 'is not an object with the list "questions"'),
    ("vqa", "questions", {"questions": [{"question_id": 8}]}, "another data set"),
    ("gqa", "questions", [], "is not an object of questions by id"),
    ("gqa", "questions", {"1": {"question": "What?"}}, 'row 1 has no "answer"'),
    ("gqa", "questions", {"1": GQA_QUESTION | {"types": {}}}, 'row 1 has no "structural"'),
    ("gqa", "questions", VQA["questions"], 'row data_subtype has no "question"'),
    ("gqa", "predictions", [{"questionId": 1, "prediction": "car"}], 'row 0 has no "questionId" of type str'),
]


@pytest.mark.parametrize(("task", "setting", "content", "message"), WRONG)
def test_a_file_of_the_wrong_form_is_refused(task, setting, content, message, tmp_path):
    good = VQA if task == "vqa" else GQA | {"annotations": ""}
    paths = write(tmp_path, **good | {setting: content})
    with pytest.raises(UserError, match=message):
        score_files(task, **paths)


@pytest.mark.parametrize("setting", ["predictions", "annotations", "questions"])
def test_a_file_that_is_missing_or_not_named_is_refused(setting, tmp_path):
    paths = write(tmp_path, **VQA)
    with pytest.raises(UserError, match=f"{setting}=.*cannot be read .No such file"):
        score_files("vqa", **paths | {setting: str(tmp_path / "nowhere.json")})
    with pytest.raises(UserError, match=f"{setting}= is empty"):
        score_files("vqa", **paths | {setting: ""})


def test_a_submission_that_the_server_takes(tmp_path):
    paths = write(tmp_path, predictions=VQA["predictions"], questions=VQA["questions"])
    line = check_submission(paths["predictions"], paths["questions"])
    assert "the server would take it, 2 questions" in line and "\n" not in line


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (VQA["predictions"][:1], r"1 missing \(2\)"),
        (VQA["predictions"] * 2, r"2 twice \(1, 2\)"),
        ([*VQA["predictions"], {"question_id": 9, "answer": "x"}], r"1 unknown \(9\)"),
        ([{"question_id": 1, "answer": None}], 'row 0 has no "answer" of type str'),
        ({"predictions": VQA["predictions"]}, "is not a list"),
        ("", "not whole JSON"),
    ],
)
def test_a_submission_that_the_server_refuses(predictions, message, tmp_path):
    paths = write(tmp_path, predictions=predictions, questions=VQA["questions"])
    with pytest.raises(UserError, match=message):
        check_submission(paths["predictions"], paths["questions"])


@pytest.mark.parametrize("subset", ["val2014", "train2014", "val2015", "test2014", "", None, 7])
@pytest.mark.parametrize("split", ["test", "test-dev"])
def test_a_submission_for_other_questions_than_the_servers_is_refused(subset, split, tmp_path):
    paths = write(tmp_path, predictions=VQA["predictions"], questions=VQA["questions"] | {"data_subtype": subset})
    with pytest.raises(UserError, match=f"questions=.*not {split}2015: the server takes"):
        check_submission(paths["predictions"], paths["questions"], split)


def test_test_dev_alone_is_checked_where_it_is_asked_for(tmp_path):
    questions = VQA["questions"] | {"data_subtype": "test-dev2015"}
    paths = write(tmp_path, predictions=VQA["predictions"], questions=questions)
    line = check_submission(paths["predictions"], paths["questions"], "test-dev")
    assert "2 questions are answered once each, all of test-dev" in line and "would take it" not in line


def test_files_that_begin_with_a_byte_order_mark_are_read(tmp_path):
    paths = write(tmp_path, predictions=VQA["predictions"], questions=VQA["questions"])
    for path in map(Path, paths.values()):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert "2 questions" in check_submission(paths["predictions"], paths["questions"])


def test_a_submission_of_the_test_dev_questions_alone_is_refused(tmp_path):
    questions = VQA["questions"] | {"data_subtype": "test-dev2015"}
    paths = write(tmp_path, predictions=VQA["predictions"], questions=questions)
    with pytest.raises(UserError, match="wants all test2015 questions"):
        check_submission(paths["predictions"], paths["questions"])
