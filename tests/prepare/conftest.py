"""Small raw folders in the official layouts, with pictures drawn on the spot."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image


def jpeg(shade: int, size: tuple[int, int] = (24, 16)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade % 256, 90, 160)).save(buffer, "JPEG")
    return buffer.getvalue()


def annotation(question_id: int, *answers: str) -> dict[str, Any]:
    """Ten annotators, the last answer filling up; the majority is what most of them gave."""
    given = [*answers, *[answers[-1]] * (10 - len(answers))]
    return {
        "question_id": question_id,
        "image_id": question_id // 1000,
        "multiple_choice_answer": max(given, key=given.count),
        "answers": [{"answer": answer, "answer_id": i} for i, answer in enumerate(given, 1)],
    }


VQA_SPLITS = {"train2014": range(1, 5), "val2014": range(11, 19), "test2015": range(21, 24)}


def write_vqa(root: Path, reverse: bool = False) -> Path:
    """Two questions per image: an odd one answered "yes" and now and then "no", and one with a rare answer."""
    root.mkdir(parents=True)
    for split, image_ids in VQA_SPLITS.items():
        (root / split).mkdir()
        for image_id in sorted(image_ids, reverse=reverse):
            (root / split / f"COCO_{split}_{image_id:012d}.jpg").write_bytes(jpeg(image_id))
        ids = [image_id * 1000 + n for image_id in reversed(image_ids) for n in (0, 1)]
        asked = [{"question_id": i, "image_id": i // 1000, "question": f"Is it {i}?"} for i in ids]
        _dump(root / f"v2_OpenEnded_mscoco_{split}_questions.json", {"data_subtype": split, "questions": asked})
        if split == "test2015":
            dev = {"data_subtype": "test-dev2015", "questions": asked[:3]}
            _dump(root / "v2_OpenEnded_mscoco_test-dev2015_questions.json", dev)
        else:
            answered = [annotation(i, f"rare {i}") if i % 2 else annotation(i, "No.", "no", "a yes") for i in ids]
            both = {"data_subtype": split, "annotations": answered, "data_type": "mscoco"}
            _dump(root / f"v2_mscoco_{split}_annotations.json", both)
    return root


def write_gqa(root: Path) -> Path:
    (root / "images").mkdir(parents=True)
    splits = {
        "train": [("07", "n1", "yes"), ("08", "2", "the T-shirt"), ("09", "n1", "no")],
        "val": [("17", "3", "no"), ("18", "3", "blue")],
        "testdev": [("27", "n4", "never seen"), ("28", "n4", "Blue")],
    }
    for shade, image_id in enumerate(["n1", "2", "3", "n4"]):
        (root / "images" / f"{image_id}.jpg").write_bytes(jpeg(shade))
    for split, rows in splits.items():
        questions = {i: {"imageId": image, "question": f"What {i}?", "answer": answer} for i, image, answer in rows}
        _dump(root / f"{split}_balanced_questions.json", questions)
    return root


def tsv_row(image_id: int | str, hypothesis: str, label: str, image: bytes | str | None = None) -> str:
    image = base64.b64encode(jpeg(int(image_id))).decode() if image is None else image
    return "\t".join([f"{image_id}.jpg#0r1n", str(image_id), image, hypothesis, "a caption", label])


def write_snli_ve(root: Path) -> Path:
    root.mkdir(parents=True)
    for split in ("train", "dev", "test"):
        rows = [
            tsv_row(7, 'a sign reads "closed', "contradiction"),
            tsv_row(5, "None", "neutral"),
            tsv_row(7, "", "entailment"),
            tsv_row(5, "n/a", "neutral"),
        ]
        (root / f"snli_ve_{split}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def _dump(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture
def make_row() -> Callable[..., str]:
    return tsv_row


@pytest.fixture
def make_image() -> Callable[..., bytes]:
    return jpeg


@pytest.fixture
def make_raw(tmp_path: Path) -> Callable[..., Path]:
    """make_raw(task, **options): the raw folder of a task."""
    writers = {"vqa": write_vqa, "gqa": write_gqa, "snli_ve": write_snli_ve}
    return lambda task, name="raw", **options: writers[task](tmp_path / name, **options)


@pytest.fixture
def read_rows() -> Callable[[Path], list[dict[str, Any]]]:
    return lambda path: pa.ipc.open_file(path).read_all().to_pylist()


@pytest.fixture
def edit_json() -> Callable[[Path, Callable[[Any], Any]], None]:
    """edit_json(path, change): the file with `change` applied to its content."""
    return lambda path, change: _dump(path, change(json.loads(path.read_text())))
