"""The Hugging Face hub's editions of VQAv2, GQA and ScienceQA: Parquet, unpacked into the official layout."""

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dvp.errors import UserError
from dvp.prepare.raw import field
from dvp.prepare.rows import column_names, picture_of, read_rows

# The name that a file begins with -> its split in the official files
VQA_SPLITS = {"train": "train2014", "validation": "val2014", "test": "test2015", "testdev": "test-dev2015"}
VQA_COLUMNS = ("question_id", "image_id", "question", "image", "multiple_choice_answer", "answers")
GQA_FOLDER = re.compile("(train|val|testdev)_balanced_(instructions|images)")
GQA_COLUMNS = {"instructions": ("id", "imageId", "question", "answer"), "images": ("id", "image")}
SCIENCE_QA_SPLITS = {"train": "train", "validation": "val", "test": "test"}
SCIENCE_QA_TEXTS = ("question", "hint", "lecture", "solution", "subject", "grade")
SCIENCE_QA_COLUMNS = ("image", "choices", "answer", *SCIENCE_QA_TEXTS)


@contextmanager
def official(task: str, raw: Path, scratch: Path) -> Iterator[Path]:
    """The raw folder in the official layout: itself, or a temporary one under `scratch` where it holds Parquet files.

    What lies there in the official layout stands in the temporary one, too. Raises UserError for Parquet files of
    another data set, and turns one about the temporary folder into one about `raw`.
    """
    files = sorted(raw.rglob("*.parquet")) if task in UNPACKERS else []
    if not files:
        yield raw
        return
    folder = Path(tempfile.mkdtemp(prefix=".official.converting-", dir=scratch))
    try:
        UNPACKERS[task](raw, files, folder)
        for path in raw.iterdir():
            if not (folder / path.name).exists():
                (folder / path.name).symlink_to(path.absolute())
        yield folder
    except UserError as error:
        raise UserError(str(error).replace(str(folder), str(raw))) from error
    finally:
        shutil.rmtree(folder)


def _vqa(raw: Path, files: list[Path], folder: Path) -> None:
    """lmms-lab/VQAv2: data/validation-*.parquet and so on, a row a question with its picture."""
    with ExitStack() as open_files:
        written: dict[str, tuple[Callable[[dict], None], Callable[[dict], None] | None]] = {}
        for path in files:
            _require(path, VQA_COLUMNS[:4], "VQAv2")
            year = _split(path, VQA_SPLITS)
            pictures = folder / year.replace("-dev", "")
            pictures.mkdir(exist_ok=True)
            if year not in written:
                questions = _listing(folder / f"v2_OpenEnded_mscoco_{year}_questions.json", year, "questions")
                answers = _listing(folder / f"v2_mscoco_{year}_annotations.json", year, "annotations")
                written[year] = (
                    open_files.enter_context(questions),
                    None if year.startswith("test") else open_files.enter_context(answers),
                )
            ask, annotate = written[year]
            for where, row in _rows(path, VQA_COLUMNS):
                number = field(row, "image_id", int, where)
                picture = pictures / f"COCO_{pictures.name}_{number:012d}.jpg"
                if not picture.exists():
                    picture.write_bytes(_bytes(row["image"], where))
                ids = {"question_id": row["question_id"], "image_id": number}
                ask(ids | {"question": row["question"]})
                if annotate:
                    annotate(ids | {name: row.get(name) for name in ("multiple_choice_answer", "answers")})


def _gqa(raw: Path, files: list[Path], folder: Path) -> None:
    """lmms-lab/GQA: a folder a configuration, of which the balanced questions and their pictures are read."""
    wanted = [(path, match) for path in files if (match := GQA_FOLDER.fullmatch(path.parent.name))]
    if not wanted:
        raise UserError(f"{raw} has no folder train_balanced_instructions: give that of the hub's GQA, see DATA.md.")
    (folder / "images").mkdir()
    with ExitStack() as open_files:
        written: dict[str, Callable[[dict], None]] = {}
        for path, match in wanted:
            split, kind = match.groups()
            _require(path, GQA_COLUMNS[kind], "GQA")
            if kind == "instructions" and split not in written:
                listing = _listing(folder / f"{split}_balanced_questions.json")
                written[split] = open_files.enter_context(listing)
            for where, row in _rows(path, GQA_COLUMNS[kind]):
                name = field(row, "id", str, where)
                if kind == "instructions":
                    written[split]({name: {key: row[key] for key in GQA_COLUMNS[kind][1:]}})
                elif re.fullmatch(r"[\w-]+", name):
                    (folder / "images" / f"{name}.jpg").write_bytes(_bytes(row["image"], where))
                else:
                    raise UserError(f"{where}: the id {name[:40]!r} is no name of a picture: get the file again.")


def _science_qa(raw: Path, files: list[Path], folder: Path) -> None:
    """derek-thomas/ScienceQA: data/train-*.parquet and so on; it has no ids, which are counted, and no captions."""
    problems: dict[str, dict[str, Any]] = {}
    splits: dict[str, list[str]] = {split: [] for split in SCIENCE_QA_SPLITS.values()}
    order = list(SCIENCE_QA_SPLITS.values())
    for path in sorted(files, key=lambda path: order.index(_split(path, SCIENCE_QA_SPLITS))):
        _require(path, SCIENCE_QA_COLUMNS, "ScienceQA")
        split = _split(path, SCIENCE_QA_SPLITS)
        for where, row in _rows(path, SCIENCE_QA_COLUMNS):
            pid = str(len(problems) + 1)
            if row["image"] is not None:
                picture = folder / "images" / split / pid / "image.png"
                picture.parent.mkdir(parents=True)
                picture.write_bytes(_bytes(row["image"], where))
            problems[pid] = row | {"image": None if row["image"] is None else "image.png", "split": split}
            splits[split].append(pid)
    for name, content in (("problems", problems), ("pid_splits", splits), ("captions", {"captions": {}})):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


UNPACKERS: dict[str, Callable[[Path, list[Path], Path], None]] = {"vqa": _vqa, "gqa": _gqa, "scienceqa": _science_qa}


def _split(path: Path, splits: dict[str, str]) -> str:
    name = re.match("[a-z]*", path.name)[0]
    if name not in splits:
        known = ", ".join(f"{split}-*.parquet" for split in splits)
        raise UserError(f"{path} is of no split that is read: keep {known} alone in the folder.")
    return splits[name]


def _require(path: Path, columns: tuple[str, ...], name: str) -> None:
    if lacking := set(columns) - column_names(path):
        columns = ", ".join(sorted(lacking))
        raise UserError(f"{path} has no column {columns}: it is not {name} as on the hub, see DATA.md.")


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    for row in tqdm(read_rows(path, columns), desc=f"unpacking {path.name}", unit="row", disable=None):
        yield f"{path} row {row.line}", row.content


def _bytes(value: Any, where: str) -> bytes:
    try:
        picture = picture_of(value)
    except ValueError as error:
        raise UserError(f"{where}: the image {error}; get the file again.") from error
    if isinstance(picture, str):
        raise UserError(f"{where}: the image is the path {picture!r} without bytes: get the edition with pictures.")
    return picture


@contextmanager
def _listing(path: Path, year: str = "", key: str = "") -> Iterator[Callable[[dict], None]]:
    """What adds to a JSON file: with a key an element to its array, else the members of an object."""
    head, tail = (f'{{"data_subtype": "{year}", "{key}": [', "]}") if key else ("{", "}")
    with open(path, "w", encoding="utf-8") as file:
        mark = head

        def add(content: dict) -> None:
            nonlocal mark
            text = json.dumps(content)
            file.write(mark + "\n" + (text if key else text[1:-1]))
            mark = ","

        yield add
        file.write(("" if mark == "," else head) + "\n" + tail + "\n")
