"""Data of one's own: JSONL or Parquet rows in the schema of docs/own_data.md -> custom_{train,val,test}.

Everything is read and checked, every picture decoded, before anything is written.
"""

import hashlib
import os.path
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from tqdm import tqdm

from dvp.errors import UserError
from dvp.images import traits
from dvp.prepare.custom_row import FIELDS, Scores, check_row, split_of_name
from dvp.prepare.questions import Question, answer_columns, question_schema
from dvp.prepare.raw import inside
from dvp.prepare.rows import picture_of, read_rows
from dvp.prepare.tables import Account, Options, Tables

SPLITS = ("train", "val", "test")
SHOWN = 10  # faults that a message names


class Asked(NamedTuple):
    """A question as its row has it. There are up to a million in memory: equal scores are one object."""

    question_id: int | str
    text: str
    scores: Scores  # none where no answer is given


class Faults:
    """What is wrong with the rows: the first of it, and how much there is."""

    def __init__(self) -> None:
        self.first: list[str] = []
        self.count = 0

    def add(self, where: str, field: str, what: str) -> None:
        """Nothing; the fault is counted."""
        self.count += 1
        if self.count <= SHOWN:
            self.first.append(f"  {where}, {field}: {what}")

    def refuse(self, raw: Path) -> None:
        """Nothing, or UserError that lists the faults."""
        if self.count:
            more = [f"  ... and {self.count - SHOWN} more"] if self.count > SHOWN else []
            lines = "\n".join([*self.first, *more])
            faults = "1 fault" if self.count == 1 else f"{self.count} faults"
            raise UserError(f"{raw} has {faults}; mend them and convert again, nothing was written:\n{lines}")


class OwnData:
    """The checked rows of a folder: by split and picture its questions, pictures in the order of their first use.

    Raises UserError that lists what is wrong with them.
    """

    def __init__(self, raw: Path, allow_missing_images: bool):
        self.raw, self.allow_missing_images = raw, allow_missing_images
        self.files = [*sorted(raw.glob("*.jsonl")), *sorted(raw.rglob("*.parquet"))]
        if not self.files:
            raise UserError(f"The file of questions is missing in {raw}: put a .jsonl there, see docs/own_data.md.")
        self.splits: dict[str, dict[str, list[Asked]]] = {split: {} for split in SPLITS}
        self.seen: dict[str, list[str] | None] = {}  # by picture what is odd in it; None: not there, or refused
        self.embedded: set[str] = set()  # pictures whose bytes are in the rows
        self.ids: dict[int | str, tuple[Path, int]] = {}  # where each question stands
        self.numbered: bool | None = None  # whether ids are counted, since the rows have none
        self.same: dict[Scores, Scores] = {}
        self.answers: dict[str, None] = {}  # of train, in the order of their first use
        self.missing = {split: set() for split in SPLITS}  # pictures
        self.lost = dict.fromkeys(SPLITS, 0)  # questions about them
        self.unanswered: list[str] = []  # rows of test
        self.faults = Faults()
        for path in self.files:
            for row in tqdm(read_rows(path, FIELDS), desc=f"checking {path.name}", unit="row", disable=None):
                self._take(path, row.line, row.content, row.fault)
        self._check_test()
        self.faults.refuse(raw)

    def _take(self, path: Path, line: int, content: dict[str, Any], fault: str) -> None:
        where = f"{path.relative_to(self.raw)} line {line}"
        if fault:
            self.faults.add(where, "the line", fault)
            return
        values, faults = check_row(content, split_of_name(path))
        for field, what in faults.items():
            self.faults.add(where, field, what)
        question_id = self._id(values.get("question_id"), path, line, where) if "question_id" not in faults else None
        picture = self._picture(content.get("image"), where) if "image" not in faults else None
        if faults or question_id is None or picture is None:
            return
        split, scores = values["split"], values["answer"]
        if not scores and split == "test":
            self.unanswered.append(where)
        if self.seen[picture] is None:
            self.missing[split].add(picture)
            self.lost[split] += 1
            return
        if split == "train":
            self.answers.update(dict.fromkeys(answer for answer, _ in scores))
        asked = Asked(question_id, values["question"], self.same.setdefault(scores, scores))
        self.splits[split].setdefault(picture, []).append(asked)

    def _id(self, given: int | str | None, path: Path, line: int, where: str) -> int | str | None:
        """The id of a question, counted where the rows have none; None where it is refused."""
        if self.numbered is None:
            self.numbered = given is None
        if self.numbered != (given is None):
            unlike = "given" if self.numbered else "missing"
            self.faults.add(where, "question_id", f"is {unlike}, unlike in the first row")
            return None
        found = len(self.ids) if given is None else given
        first = next(iter(self.ids), found)
        if type(found) is not type(first):
            self.faults.add(where, "question_id", f"is {found!r}, though the first is {first!r}: take one type")
        elif found in self.ids:
            file, at = self.ids[found]
            self.faults.add(where, "question_id", f"is {found!r} again, as in {file.relative_to(self.raw)} line {at}")
        else:
            self.ids[found] = path, line
            return found
        return None

    def _picture(self, value: Any, where: str) -> str | None:
        """What a picture is called, decoded when it is first met; None where it is refused."""
        source = picture_of(value)
        name = _name(source)
        if isinstance(source, bytes):
            self.embedded.add(name)
        if name not in self.seen:
            self.seen[name] = None
            if isinstance(source, str) and not (self.raw / source).is_file():
                if not self.allow_missing_images:
                    self.faults.add(where, "image", f"{source} is missing in {self.raw}")
                    return None
                return name
            try:
                data = _file(self.raw, source).read_bytes() if isinstance(source, str) else source
                self.seen[name] = traits(data, f"in {where}" if isinstance(source, bytes) else source)
            except UserError as error:
                self.faults.add(where, "image", str(error))
                return None
        return name if self.seen[name] is not None or self.allow_missing_images else None

    def _check_test(self) -> None:
        """Count faults where some questions of test have answers and some do not: the score would be of a part."""
        answered = any(asked.scores for questions in self.splits["test"].values() for asked in questions)
        for where in self.unanswered if answered else ():
            self.faults.add(where, "answer", "is missing, though other questions of test have one")

    def vocabulary(self) -> list[str]:
        """The answers of train, in the order of their first use; raises UserError for fewer than two."""
        if not self.splits["train"]:
            raise UserError(f"{self.raw} has no question of the split train: give some rows that split.")
        answers = list(self.answers)
        if len(answers) < 2:
            raise UserError(f"Every question of train in {self.raw} has the answer {answers[0]!r}: give at least two.")
        return answers

    def pictures(self, split: str) -> Iterator[tuple[str, bytes]]:
        """Name and bytes of the pictures of a split: those of files, then those in the rows."""
        wanted = self.splits[split]
        for name in wanted:
            if name not in self.embedded:
                yield name, (self.raw / name).read_bytes()
        left = {name for name in wanted if name in self.embedded}
        for path in self.files if left else ():
            for row in read_rows(path, ("image",)):
                source = picture_of(row.content["image"])
                if isinstance(source, bytes) and (name := _name(source)) in left:
                    left.remove(name)
                    yield name, source


def prepare(raw: Path, tables: Tables, options: Options) -> None:
    """Nothing; writes the tables of the splits that there are, and custom_answers.json."""
    data = OwnData(raw, options.allow_missing_images)
    answers = data.vocabulary()
    _refuse_strangers(tables.root, data)
    labels = {answer: label for label, answer in enumerate(answers)}
    ids = pa.int64() if isinstance(next(iter(data.ids)), int) else pa.string()
    for split in SPLITS:
        if data.splits[split]:
            _write(tables, data, split, question_schema(pa.string(), ids), labels)
    tables.write_answers("custom", answers)
    _tell(data, labels)


def _write(tables: Tables, data: OwnData, split: str, schema: pa.Schema, labels: dict[str, int]) -> None:
    images, answers = data.splits[split], list(labels)
    kept = sum(map(len, images.values()))
    account = Account(f"custom_{split}", images=len(images), questions=kept + data.lost[split], kept=kept)
    account.imageless, account.missing_images = data.lost[split], len(data.missing[split])
    for name in images:
        account.seen.update(data.seen[name])
    tables.accounts.append(account)
    answered = any(asked.scores for questions in images.values() for asked in questions)

    def rows() -> Iterator[dict[str, Any]]:
        for name, picture in tqdm(
            data.pictures(split), total=len(images), desc=account.table, unit="image", disable=None
        ):
            questions = [
                Question(one.question_id, one.text, tuple((labels[a], score) for a, score in one.scores if a in labels))
                for one in images[name]
            ]
            yield {
                "image": picture,
                "questions": [question.text for question in questions],
                **answer_columns(questions, answers if answered else None),
                "image_id": name,
                "question_id": [question.question_id for question in questions],
                "split": split,
            }

    tables.write(account.table, schema, rows())


def _refuse_strangers(root: Path, data: OwnData) -> None:
    """Raise UserError where a table of another set lies there that this one would not replace."""
    for split in SPLITS:
        path = root / f"custom_{split}.arrow"
        if not data.splits[split] and path.exists():
            raise UserError(f"{path} is another set's, and this one has no {split}: remove it, or change data_root.")


def _tell(data: OwnData, labels: dict[str, int]) -> None:
    """Say what a user should know of data that are sound."""
    for split in SPLITS[1:]:
        scores = [asked.scores for questions in data.splits[split].values() for asked in questions if asked.scores]
        unknown = sum(not any(answer in labels for answer, _ in given) for given in scores)
        if unknown:
            print(
                f"{unknown} of the {len(scores)} questions of {split} have answers that train lacks: these are wrong."
            )
        if both := len(data.splits[split].keys() & data.splits["train"].keys()):
            print(f"{both} of the {len(data.splits[split])} pictures of {split} are in train, too: its score flatters.")
    if not data.splits["val"]:
        print("There is no val: in its place a run keeps 5 % of train's pictures, chosen by seed, out of training.")


def _name(source: str | bytes) -> str:
    """A file's path in the folder; for bytes, their hash."""
    return Path(os.path.normpath(source)).as_posix() if isinstance(source, str) else hashlib.sha256(source).hexdigest()


def _file(raw: Path, source: str) -> Path:
    """Where a picture lies; UserError where a link leads out of its uppermost folder, which may be a link itself."""
    *folder, name = Path(os.path.normpath(source)).parts
    return inside(raw / folder[0], *folder[1:], name) if folder else inside(raw, name)
