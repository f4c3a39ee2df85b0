"""ScienceQA: problems, captions, splits and images in the official layout -> scienceqa_{train,val,test}."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from dvp.errors import UserError
from dvp.prepare.raw import field, read_image, read_object
from dvp.prepare.tables import Account, Options, Tables, present_images

SPLITS = ("train", "val", "test")
TEXTS = ("question", "hint", "lecture", "solution", "subject", "grade")
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
    splits = dict(read_object(raw / "pid_splits.json"))
    for split in SPLITS:
        pids = field(splits, split, list, str(raw / "pid_splits.json"))
        found = {pid: _problem(raw, problems, pid) for pid in pids}
        _write(tables, split, found, captions, raw / "images" / split, options.allow_missing_images)


def _write(
    tables: Tables, split: str, problems: dict[str, dict], captions: dict[str, str], images: Path, allow_missing: bool
) -> None:
    def path_of(pid: str) -> Path:
        return images / pid / "image.png"

    account = Account(f"scienceqa_{split}", questions=len(problems))
    tables.accounts.append(account)
    pictured = [pid for pid, problem in problems.items() if problem["image"]]
    present = present_images(pictured, path_of, account, allow_missing)
    lost = set(pictured) - set(present)
    account.images, account.imageless, account.kept = len(present), len(lost), len(problems) - len(lost)

    def rows() -> Iterator[dict[str, Any]]:
        for pid, problem in tqdm(problems.items(), desc=account.table, unit="problem"):
            if pid not in lost:
                yield {name: problem[name] for name in (*TEXTS, "choices", "answer")} | {
                    "question_id": pid,
                    "image": read_image(path_of(pid)) if problem["image"] else b"",
                    "caption": captions.get(pid, ""),
                }

    tables.write(account.table, SCHEMA, rows())


def _problem(raw: Path, problems: dict[str, Any], pid: str) -> dict[str, Any]:
    """The problem, checked."""
    where = f"{raw / 'problems.json'}: problem {pid}"
    problem = field(problems, pid, dict, str(raw / "problems.json"))
    for name in TEXTS:
        field(problem, name, str, where)
    choices, answer = field(problem, "choices", list, where), field(problem, "answer", int, where)
    if not 2 <= len(choices) <= MOST_CHOICES or not 0 <= answer < len(choices):
        raise UserError(
            f"{where} has {len(choices)} choices and the answer {answer}: the file is damaged, see DATA.md."
        )
    return problem
