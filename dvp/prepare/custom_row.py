"""One row of one's own data: what each field may be, and the score that an answer to it earns."""

import os.path
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dvp.prepare.raw import HALF
from dvp.prepare.rows import picture_of

FIELDS = ("image", "question", "answer", "answers", "label", "choices", "split", "question_id")
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
ENOUGH = 3  # other annotators who gave an answer make it wholly right, in the official VQA accuracy

Scores = tuple[tuple[str, float], ...]  # answers with their scores, from 0 to 1


def split_of_name(path: Path) -> str | None:
    """The split that a file's name begins with, as in val.jsonl or validation-00000-of-00002.parquet, or None."""
    return SPLITS.get(re.match("[a-z]*", path.name.lower())[0])


def check_row(content: dict[str, Any], split: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    """The values of question, answer, split and question_id, and by field what is wrong with them.

    split: that of the file, for rows that name none. An answer's value is its Scores, none where there is no answer.
    """
    given = [name for name in ANSWERS if content.get(name) is not None]
    answer = given[0] if given else "answer"
    readers: dict[str, Callable[[], Any]] = {
        "image": lambda: _inside(content),
        "question": lambda: _text(content.get("question")),
        "split": lambda: _split(content.get("split"), split),
        "question_id": lambda: _id(content.get("question_id")),
        answer: lambda: _scores(content, given),
    }
    values, faults = {}, {}
    for field, read in readers.items():
        try:
            values["answer" if field == answer else field] = read()
        except ValueError as error:
            faults[field] = str(error)
    if values.get("answer") == () and values.get("split", "test") != "test":
        faults["answer"] = "is missing: only test may have none"
    return values, faults


def consensus(answers: Sequence[str]) -> Scores:
    """The score of each answer that annotators gave: the official VQA accuracy, as a share of what agreement earns.

    With ten annotators 0.3, 0.6, 0.9 and 1 for 1, 2, 3 and more who gave it; with up to four, their share.
    """
    given, most = len(answers), _accuracy(len(answers), len(answers))
    return tuple((answer, round(_accuracy(count, given) / most, 4)) for answer, count in Counter(answers).items())


def _accuracy(count: int, given: int) -> float:
    """The mean over the annotators, of whom `count` gave the answer, of min(1, others who gave it / 3)."""
    if given == 1:
        return float(count)
    return ((given - count) * min(1, count / ENOUGH) + count * min(1, (count - 1) / ENOUGH)) / given


def _inside(content: dict[str, Any]) -> None:
    source = picture_of(content.get("image"))
    if isinstance(source, str):
        path = os.path.normpath(source)
        if os.path.isabs(path) or path.split(os.sep)[0] == os.pardir or "\0" in path:
            raise ValueError(f"{source!r} leaves the folder: give a path inside raw_root")
        _whole(source)


def _split(given: Any, of_file: str | None) -> str:
    if given is None:
        if of_file is None:
            raise ValueError("is missing: say train, val or test, here or at the beginning of the file's name")
        return of_file
    if given not in SPLITS:
        raise ValueError(f"is {given!r}: say train, val or test")
    return SPLITS[given]


def _id(given: Any) -> int | str | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | str) or given == "":
        raise ValueError(f"is {str(given)[:40]!r}: give a whole number or a text")
    if isinstance(given, int) and not -(2**63) <= given < 2**63:
        raise ValueError("does not fit into 64 bits: give a smaller number")
    return _whole(given) if isinstance(given, str) else given


def _scores(content: dict[str, Any], given: list[str]) -> Scores:
    if len(given) > 1:
        raise ValueError(f"stands beside {' and '.join(given[1:])}: leave one of them")
    choices = content.get("choices")
    if choices is not None:
        choices = _texts(choices, "choices")
    if not given:
        return ()
    scores = ANSWERS[given[0]](content[given[0]], choices)
    if choices and (other := [answer for answer, _ in scores if answer not in choices]):
        raise ValueError(f"is {other[0]!r}, which is none of its choices")
    return scores


def _one(answer: Any, choices: list[str] | None) -> Scores:
    return ((_text(answer), 1.0),)


def _several(answers: Any, choices: list[str] | None) -> Scores:
    if not isinstance(answers, dict):
        return consensus(_texts(answers, "a list of answers"))
    scores = {_text(answer): score for answer, score in answers.items() if score is not None}
    for answer, score in scores.items():
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
            raise ValueError(f"gives {answer!r} the score {score!r}: scores go from 0 to 1")
    if not any(scores.values()):
        raise ValueError("has no answer with a score above 0")
    return tuple((answer, float(score)) for answer, score in scores.items() if score)


def _label(label: Any, choices: list[str] | None) -> Scores:
    if choices is None:
        return ((_text(label), 1.0),)
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < len(choices):
        raise ValueError(f"is {label!r}: beside choices it is the place of the right one, from 0 to {len(choices) - 1}")
    return ((choices[label], 1.0),)


def _texts(given: Any, what: str) -> list[str]:
    if not isinstance(given, list) or not given:
        raise ValueError(f"wants {what}, and there is {str(given)[:40]!r}")
    return [_text(one) for one in given]


def _text(given: Any) -> str:
    """A text, without space around it; numbers are texts, too."""
    if isinstance(given, int | float) and not isinstance(given, bool):
        given = str(int(given)) if given == given // 1 else str(given)
    if given is None or given == "":
        raise ValueError("is missing" if given is None else "is empty")
    if not isinstance(given, str):
        raise ValueError(f"is {str(given)[:40]!r}, not a text")
    if not given.strip():
        raise ValueError("is empty")
    return _whole(given.strip())


def _whole(text: str) -> str:
    if HALF.search(text):
        raise ValueError(f"{text[:40]!r} holds half a character (a lone surrogate)")
    return text


ANSWERS: dict[str, Callable[[Any, list[str] | None], Scores]] = {"answer": _one, "answers": _several, "label": _label}
