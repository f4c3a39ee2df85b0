"""ScienceQA: problems, captions, splits and images in the official layout -> scienceqa_{train,val,test}."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from dvp.counting import counted
from dvp.errors import UserError
from dvp.prepare.raw import field, file_name, inside, read_image, read_object, storable
from dvp.prepare.tables import Account, Options, Tables, present_images

SPLITS = ("train", "val", "test")
TEXTS = ("question", "hint", "lecture", "solution", "subject", "grade")
MAY_BE_NULL = ("hint", "lecture", "solution")  # where other editions of the data have null for "there is none"
SCHEMA = pa.schema(
    {
        "question_id": pa.string(),
        "image": pa.binary(),  # empty: the problem has none
        "choices": pa.list_(pa.string()),
        "answer": pa.int64(),  # place of the right choice
        "caption": pa.string(),  # empty: the image has none
        **dict.fromkeys(TEXTS, pa.string()),
    }
)
MOST_CHOICES = 5


def prepare(raw: Path, tables: Tables, options: Options) -> None:
    """Nothing; writes the three tables, one row per problem."""
    problems = dict(read_object(raw / "problems.json"))
    captions = field(dict(read_object(raw / "captions.json")), "captions", dict, str(raw / "captions.json"))
    path = raw / "pid_splits.json"
    splits = dict(read_object(path))
    split_of: dict[str, str] = {}
    for split in SPLITS:
        found: dict[str, dict] = {}
        for pid in (_id(given, split, path) for given in field(splits, split, list, str(path))):
            if pid in split_of:
                raise UserError(
                    f"{path} has the problem {pid} in {split_of[pid]} and in {split}: leave it in one of them, once."
                )
            split_of[pid] = split
            picture = _picture(raw, split, pid)
            found[pid] = _problem(raw, problems, pid, picture.is_file()) | {"caption": _caption(raw, captions, pid)}
        _write(tables, split, found, raw, options.allow_missing_images)


def _write(tables: Tables, split: str, problems: dict[str, dict], raw: Path, allow_missing: bool) -> None:
    def path_of(pid: str) -> Path:
        return _picture(raw, split, pid)

    account = Account(f"scienceqa_{split}", questions=len(problems))
    tables.accounts.append(account)
    pictured = [pid for pid, problem in problems.items() if problem["image"]]
    present = present_images(pictured, path_of, account, allow_missing)
    lost = set(pictured) - set(present)
    account.images, account.imageless, account.kept = len(present), len(lost), len(problems) - len(lost)

    def rows() -> Iterator[dict[str, Any]]:
        for pid, problem in counted(problems.items(), f"{account.table}: problems"):
            if pid not in lost:
                data = read_image(path_of(pid), account.seen) if problem["image"] else b""
                yield problem | {"question_id": pid, "image": data}

    tables.write(account.table, SCHEMA, rows())


def _picture(raw: Path, split: str, pid: str) -> Path:
    return inside(raw / "images" / split, pid, "image.png")


def _id(given: Any, split: str, path: Path) -> str:
    """The id as problems.json has it, where keys are always texts."""
    if isinstance(given, bool) or not isinstance(given, int | str):
        raise UserError(f"{path}: {split} holds {str(given)[:40]!r}, which is not the id of a problem: mend the list.")
    return file_name(storable(str(given), "id", f"{path}, {split}"), "id", f"{path}, {split}")


def _problem(raw: Path, problems: dict[str, Any], pid: str, picture: bool) -> dict[str, Any]:
    """The problem, checked, with the columns of a table; image tells whether it has one.

    picture: whether a file is there, which tells it in editions without a field for it.
    """
    where = f"{raw / 'problems.json'}: problem {pid}"
    problem = field(problems, pid, dict, str(raw / "problems.json"))
    texts = {name: "" for name in MAY_BE_NULL if name in problem and problem[name] is None}
    texts |= {name: field(problem, name, str, where) for name in TEXTS if name not in texts}
    image = problem.get("image", "image.png" if picture else None)
    if image is not None and not isinstance(image, str):
        raise UserError(
            f"{where} has the image {str(image)[:40]!r}: it must be the name of a file, or null; mend the file."
        )
    choices, answer = field(problem, "choices", list, where), field(problem, "answer", int, where)
    if not 2 <= len(choices) <= MOST_CHOICES or not 0 <= answer < len(choices):
        raise UserError(
            f"{where} has {len(choices)} choices and the answer {answer}: the file is damaged, see DATA.md."
        )
    choices = [_choice(choice, where) for choice in choices]
    return texts | {"image": bool(image), "choices": choices, "answer": answer}


def _choice(choice: Any, where: str) -> str:
    if isinstance(choice, int | float) and not isinstance(choice, bool) and math.isfinite(choice):
        return str(choice)
    if not isinstance(choice, str):
        raise UserError(
            f"{where} has the choice {str(choice)[:40]!r}: choices must be texts or numbers, mend the file."
        )
    return storable(choice, "choice", where)


def _caption(raw: Path, captions: dict[str, Any], pid: str) -> str:
    caption = captions.get(pid)
    return "" if caption is None else field(captions, pid, str, str(raw / "captions.json"))
