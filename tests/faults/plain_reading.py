"""Small raw files of each data set, and what a plain reading makes of them, written down apart from the conversion."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from dvp.evaluation.answers import normalise_answer


class NotSound(Exception):
    """A plain reading finds nothing that makes sense."""


def need(holds: bool) -> None:
    if not holds:
        raise NotSound


def text(value: Any) -> str:
    need(isinstance(value, str) and not re.search("[\ud800-\udfff]", value))
    return value


def number(value: Any) -> int:
    need(type(value) is int and -(2**63) <= value < 2**63)
    return value


def name(value: Any) -> str:
    need(text(value) not in ("", ".", "..") and not set("/\\\0") & set(value) and len(value.encode()) <= 240)
    return value


def item(content: Any, key: str, kind: type) -> Any:
    need(isinstance(content, dict) and isinstance(content.get(key), kind))
    return content[key]


# What each data set is, and what a plain reading makes of it: for each table its rows, without pictures


VQA = {"train2014": 1, "val2014": 2, "test2015": 3}


def vqa_files() -> dict[str, Any]:
    files: dict[str, Any] = {}
    for split, first in VQA.items():
        ids = [{"question_id": 10 * first + n, "image_id": first} for n in (0, 1)]
        asked = [one | {"question": f"is it {one['question_id']}"} for one in ids]
        files[f"v2_OpenEnded_mscoco_{split}_questions.json"] = {"data_subtype": split, "questions": asked}
        if split != "test2015":
            given_ = [{"answer": answer} for answer in ("yes", "no", "no", "Two.")]
            answered = [one | {"multiple_choice_answer": "no", "answers": given_} for one in ids]
            files[f"v2_mscoco_{split}_annotations.json"] = {"data_subtype": split, "annotations": answered}
    dev = {"data_subtype": "test-dev2015", "questions": asked[:1]}
    return files | {"v2_OpenEnded_mscoco_test-dev2015_questions.json": dev}


def vqa_tables(files: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    def listed(file: str, key: str, split: str) -> list[Any]:
        content = files[file]
        need(isinstance(content, dict) and content.get("data_subtype", split) == split)
        need(bool(entries := item(content, key, list)))
        return entries

    vocabulary, scores, tables = [], (0.0, 0.3, 0.6, 0.9, 1.0), {}
    for split in ("train2014", "val2014"):
        for one in listed(f"v2_mscoco_{split}_annotations.json", "annotations", split):
            vocabulary.append(normalise_answer(text(item(one, "multiple_choice_answer", str))))
    vocabulary = list(dict.fromkeys(vocabulary))
    read: dict[str, list[tuple]] = {}
    for split in (*VQA, "test-dev2015"):
        questions = listed(f"v2_OpenEnded_mscoco_{split}_questions.json", "questions", split)
        ids = [number(item(one, "question_id", int)) for one in questions]
        need(len(set(ids)) == len(ids))
        targets = dict.fromkeys(ids, [])
        if not split.startswith("test"):
            answered = listed(f"v2_mscoco_{split}_annotations.json", "annotations", split)
            about = [number(item(one, "question_id", int)) for one in answered]
            need(len(set(about)) == len(about) and set(about) == set(ids))
            for key, one in zip(about, answered, strict=True):
                given_ = Counter(normalise_answer(text(item(by, "answer", str))) for by in item(one, "answers", list))
                targets[key] = [
                    (vocabulary.index(a), a, scores[min(n, 4)]) for a, n in given_.items() if a in vocabulary
                ]
        read[split] = [
            (number(item(one, "image_id", int)), key, text(item(one, "question", str)), targets[key])
            for one, key in zip(questions, ids, strict=True)
        ]
        need({image for image, *_ in read[split]} <= {VQA.get(split, 3)})  # of no other there is a picture
    need({key for _, key, *_ in read["test-dev2015"]} <= {key for _, key, *_ in read["test2015"]})
    tables = {}
    for table, split, train in (
        ("train", "train2014", True), ("trainable_val", "val2014", True), ("val", "val2014", False),
        ("rest_val", "", False), ("test", "test2015", False), ("test-dev", "test-dev2015", False),
    ):  # fmt: skip
        tables[f"vqav2_{table}"] = by_picture(read.get(split, []), train, split.startswith("test"))
    return tables


def by_picture(questions: list[tuple], train: bool, asked: bool) -> list[dict[str, Any]]:
    """The rows of questions (image, id, text, targets); train: without those of no known answer."""
    rows = []
    for image in sorted({image for image, *_ in questions}):
        own = [one for one in questions if one[0] == image and (one[3] or not train)]
        columns = [[[target[place] for target in one[3]] for one in own] if not asked else [] for place in range(3)]
        if own:
            rows.append(
                {"image_id": image, "question_id": [one[1] for one in own], "questions": [one[2] for one in own],
                 "answer_labels": columns[0], "answers": columns[1], "answer_scores": columns[2]}
            )  # fmt: skip
    return rows


GQA = {"train": "train", "val": "val", "testdev": "test-dev"}


def gqa_files() -> dict[str, Any]:
    answers = {"train": ["Yes", "a red car"], "val": ["no", "yes"], "testdev": ["Yes", "unseen"]}
    return {
        f"{split}_balanced_questions.json": {
            f"{split}{n}": {"imageId": "1", "question": f"is it {n}", "answer": one}
            for n, one in enumerate(answers[split])
        }
        for split in GQA
    }


def gqa_tables(files: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    spelt: dict[str, list[str]] = {}
    entries = {split: files[f"{split}_balanced_questions.json"] for split in GQA}
    for split, questions in entries.items():
        need(isinstance(questions, dict) and bool(questions))
        for key, one in questions.items():
            need(text(key) != "" and bool(name(item(one, "imageId", str)) == "1"))
            text(item(one, "question", str))
            text(item(one, "answer", str))
            if split != "testdev":
                spelt.setdefault(normalise_answer(one["answer"]), []).append(one["answer"])
    answers = [Counter(found).most_common(1)[0][0] for found in spelt.values()]
    tables = {}
    for split, table in GQA.items():
        read = []
        for key, one in entries[split].items():
            said = one["answer"]
            known = list(spelt).index(normalise_answer(said)) if split == "train" else None
            if split != "train" and said in answers:
                known = max(place for place, answer in enumerate(answers) if answer == said)
            read.append((one["imageId"], key, one["question"], [] if known is None else [(known, answers[known], 1.0)]))
        tables[f"gqa_{table}"] = by_picture(read, split == "train", False)
    return tables


TEXTS = ("question", "hint", "lecture", "solution", "subject", "grade")
PROBLEM = {name: f"a {name}" for name in TEXTS} | {"choices": ["red", "blue"], "answer": 1, "image": None}


def science_qa_files() -> dict[str, Any]:
    problems = {
        "1": PROBLEM | {"image": "image.png"},
        "2": PROBLEM | {"choices": [1, 2.5, "b"]},
        "3": PROBLEM,
        "4": PROBLEM,
    }
    splits = {"train": ["1", "2"], "val": ["3"], "test": [4]}
    return {"problems.json": problems, "captions.json": {"captions": {"1": "a car"}}, "pid_splits.json": splits}


def science_qa_tables(files: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    need(all(isinstance(content, dict) for content in files.values()))
    problems, captions = files["problems.json"], item(files["captions.json"], "captions", dict)
    seen, tables = set(), {}
    for split in ("train", "val", "test"):
        tables[f"scienceqa_{split}"] = rows = []
        for given_ in item(files["pid_splits.json"], split, list):
            need(type(given_) in (int, str))
            pid = name(str(given_)) if isinstance(given_, str) else name(str(number(given_)))
            need(pid not in seen)
            seen.add(pid)
            problem = item(problems, pid, dict)
            row = {"question_id": pid}
            for key in TEXTS:
                absent = key in ("hint", "lecture", "solution") and key in problem and problem[key] is None
                row[key] = "" if absent else text(problem.get(key))
            pictured = (
                problem["image"] if "image" in problem else ("image.png" if (split, pid) == ("train", "1") else None)
            )
            need(pictured is None or isinstance(pictured, str))
            need(not pictured or (split, pid) == ("train", "1"))  # of no other there is a picture
            choices = item(problem, "choices", list)
            need(2 <= len(choices) <= 5 and 0 <= number(problem.get("answer")) < len(choices))
            finite = [type(one) in (int, float) and one == one for one in choices]
            row["choices"] = [str(one) if ok else text(one) for one, ok in zip(choices, finite, strict=True)]
            row["answer"] = problem["answer"]
            row["caption"] = "" if captions.get(pid) is None else text(captions[pid])
            rows.append(row)
    return tables


# By task: its files, the pictures beside them, what a plain reading makes of the files, and options of `convert`
SETS: dict[str, tuple[Callable[[], dict[str, Any]], list[str], Callable[[dict[str, Any]], dict], dict[str, Any]]] = {
    "vqa": (
        vqa_files, [f"{split}/COCO_{split}_{image:012d}.jpg" for split, image in VQA.items()], vqa_tables,
        {"min_answer_count": 1, "rest_val_images": 0},
    ),
    "gqa": (gqa_files, ["images/1.jpg"], gqa_tables, {}),
    "scienceqa": (science_qa_files, ["images/train/1/image.png"], science_qa_tables, {}),
}  # fmt: skip
