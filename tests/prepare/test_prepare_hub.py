"""The hub's Parquet editions give the tables of the official layout, byte for byte."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqa_worlds

from dvp.errors import UserError
from dvp.prepare import convert

VQA = {"train2014": "train", "val2014": "validation", "test2015": "test", "test-dev2015": "testdev"}
IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
ANSWER = pa.struct({"answer": pa.string(), "answer_confidence": pa.string(), "answer_id": pa.int64()})
VQA_SCHEMA = pa.schema(
    {
        "question_type": pa.string(), "multiple_choice_answer": pa.string(), "answers": pa.list_(ANSWER),
        "image_id": pa.int64(), "answer_type": pa.string(), "question_id": pa.int64(), "question": pa.string(),
        "image": IMAGE,
    }
)  # fmt: skip
GQA_SCHEMAS = {
    "images": pa.schema({"id": pa.string(), "image": IMAGE}),
    "instructions": pa.schema(
        {
            **dict.fromkeys(("id", "imageId", "question", "answer", "fullAnswer"), pa.string()),
            "isBalanced": pa.bool_(),
            "semanticStr": pa.string(),
        }
    ),
}
SCIENCE_QA_SCHEMA = pa.schema(
    {
        "image": IMAGE, "question": pa.string(), "choices": pa.list_(pa.string()), "answer": pa.int8(),
        **dict.fromkeys(("hint", "task", "grade", "subject", "topic", "category"), pa.string()),
        **dict.fromkeys(("skill", "lecture", "solution"), pa.string()),
    }
)  # fmt: skip


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def image(path: Path) -> dict[str, Any]:
    return {"bytes": path.read_bytes(), "path": path.name}


def vqa_parquet(official: Path, hub: Path, splits: dict[str, str] = VQA) -> Path:
    """lmms-lab/VQAv2's layout; of each split two files, to be read in the order of their numbers."""
    for year, split in splits.items():
        folder, rows = year.replace("-dev", ""), read(official / f"v2_OpenEnded_mscoco_{year}_questions.json")
        notes = official / f"v2_mscoco_{year}_annotations.json"
        annotations = {row["question_id"]: row for row in read(notes)["annotations"]} if notes.exists() else {}
        rows = [
            {key: None for key in VQA_SCHEMA.names}
            | annotations.get(row["question_id"], {})
            | row
            | {"image": image(official / folder / f"COCO_{folder}_{row['image_id']:012d}.jpg")}
            for row in rows["questions"]
        ]
        for part, number in ((rows[:2], 0), (rows[2:], 1)):
            write(hub / "data" / f"{split}-{number:05d}-of-00002.parquet", part, VQA_SCHEMA)
    return hub


def gqa_parquet(official: Path, hub: Path) -> Path:
    """lmms-lab/GQA's layout, beside a configuration that is not read."""
    for split in ("train", "val", "testdev"):
        rows = [{"id": name} | row for name, row in read(official / f"{split}_balanced_questions.json").items()]
        pictures = [
            {"id": name, "image": image(official / "images" / f"{name}.jpg")} for name in ("n1", "2", "3", "n4")
        ]
        for kind, content in (("instructions", rows), ("images", pictures)):
            file = f"{split}-00000-of-00001.parquet"
            write(hub / f"{split}_balanced_{kind}" / file, content, GQA_SCHEMAS[kind])
            write(hub / f"{split}_all_{kind}" / file, [], GQA_SCHEMAS[kind])
    return hub


def science_qa_parquet(official: Path, hub: Path) -> Path:
    """derek-thomas/ScienceQA's layout; the official ids become what that counts, and its captions are emptied."""
    problems, splits = read(official / "problems.json"), read(official / "pid_splits.json")
    names = {"train": "train", "val": "validation", "test": "test"}
    order = [(split, pid) for split in names for pid in splits[split]]
    rows: dict[str, list] = {split: [] for split in names}
    renamed: dict[str, Any] = {}
    for number, (split, pid) in enumerate(order, 1):
        folder = official / "images" / split / pid
        pictured = (folder / "image.png").exists()
        rows[split].append(problems[pid] | {"image": image(folder / "image.png") if pictured else None})
        renamed[str(number)] = problems[pid]
        if pictured:
            folder.rename(official / "images" / split / f"new{number}")
    for folder in official.glob("images/*/new*"):
        folder.rename(folder.with_name(folder.name.removeprefix("new")))
    for split, name in names.items():
        write(hub / "data" / f"{name}-00000-of-00001-0123456789abcdef.parquet", rows[split], SCIENCE_QA_SCHEMA)
    numbers = iter(range(1, len(order) + 1))
    (official / "problems.json").write_text(json.dumps(renamed))
    (official / "captions.json").write_text('{"captions": {}}')
    (official / "pid_splits.json").write_text(
        json.dumps({split: [str(next(numbers)) for _ in splits[split]] for split in names})
    )
    return hub


@pytest.fixture
def make_official(make_raw: Callable[..., Path], tmp_path: Path) -> Callable[[str], Path]:
    def make(task: str) -> Path:
        if task == "scienceqa":
            (tmp_path / "raw").mkdir()
            return sqa_worlds.write_raw(tmp_path / "raw", {"train": 10, "val": 4, "test": 5})
        return make_raw(task)

    return make


WRITERS = {"vqa": vqa_parquet, "gqa": gqa_parquet, "scienceqa": science_qa_parquet}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("task", WRITERS)
def test_the_hubs_edition_gives_the_official_tables(task: str, make_official, tmp_path: Path) -> None:
    official = make_official(task)
    hub = WRITERS[task](official, tmp_path / "hub")
    convert(task, str(official), str(tmp_path / "a"), rest_val_images=3)
    convert(task, str(hub), str(tmp_path / "b"), rest_val_images=3)
    found = contents(tmp_path / "b")
    assert found == contents(tmp_path / "a") and sum(name.endswith(".arrow") for name in found) >= 3


def test_official_files_beside_the_parquet_make_up_for_its_splits(make_official, tmp_path: Path) -> None:
    """lmms-lab/VQAv2 has no train."""
    official = make_official("vqa")
    hub = vqa_parquet(official, tmp_path / "hub", {year: split for year, split in VQA.items() if split != "train"})
    with pytest.raises(UserError, match=f"{hub}/v2_mscoco_train2014_annotations.json is missing"):
        convert("vqa", str(hub), str(tmp_path / "b"))
    assert contents(tmp_path / "b") == {}
    for path in official.glob("*train2014*"):
        (shutil.copytree if path.is_dir() else shutil.copy)(path, hub / path.name)
    convert("vqa", str(official), str(tmp_path / "a"))
    convert("vqa", str(hub), str(tmp_path / "b"))
    assert contents(tmp_path / "b") == contents(tmp_path / "a")


def _rewrite(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    table = pq.read_table(path)
    pq.write_table(pa.Table.from_pylist([change(row) for row in table.to_pylist()]), path)


@pytest.mark.parametrize(
    "task, name, damage, sentence",
    [
        ("vqa", "data/train-00000-of-00002", lambda path: path.write_bytes(b"PAR1"), "no Parquet file"),
        ("vqa", "data/train-00000-of-00002", lambda path: path.rename(path.with_name("all.parquet")), "of no split"),
        (
            "vqa",
            "data/validation-00000-of-00002",
            lambda path: _rewrite(path, lambda row: row | {"image": {"path": "x.jpg"}}),
            "row 1: the image is the path 'x.jpg' without bytes",
        ),
        (
            "vqa",
            "data/validation-00000-of-00002",
            lambda path: _rewrite(path, lambda row: {"image": row["image"]}),
            "has no column image_id, question, question_id",
        ),
        (
            "gqa",
            "val_balanced_images/val-00000-of-00001",
            lambda path: _rewrite(path, lambda row: row | {"id": "../../x"}),
            "row 1: the id '../../x' is no name of a picture",
        ),
        (
            "gqa",
            "val_balanced_instructions/val-00000-of-00001",
            lambda path: _rewrite(path, lambda row: row | {"answer": None}),
            "question '17' has no answer",
        ),
    ],
)
def test_damaged_parquet_is_refused_and_leaves_nothing(task: str, name: str, damage, sentence, make_official, tmp_path):
    hub = WRITERS[task](make_official(task), tmp_path / "hub")
    damage(hub / f"{name}.parquet")
    with pytest.raises(UserError, match=sentence) as caught:
        convert(task, str(hub), str(tmp_path / "out"))
    assert ".official_" not in str(caught.value)
    assert contents(tmp_path / "out") == {}
