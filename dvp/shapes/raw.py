"""The embedded world in the official raw formats of VQAv2, GQA and SNLI-VE (OFA's TSV).

Image ids count up through the splits. VQAv2's hidden annotations of test2015 lie beside its files, for scoring.
"""

import base64
import io
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dvp.shapes.questions import GQA_KINDS, KINDS, VQA_KINDS, Question, ask, state
from dvp.shapes.world import COLORS, PLACES, SHAPES, Scene, caption, draw, scenes

TEST_ANNOTATIONS = "v2_mscoco_test2015_annotations.json"  # as the server holds them; the official download lacks them
ASKED = 8  # questions about each picture
SLIP = 0.04  # how often an annotator gives a wrong answer
ANSWER_POOLS: tuple[Sequence[str], ...] = (
    ("yes", "no"), tuple("0123456"), tuple(COLORS), tuple(SHAPES), PLACES,
)  # fmt: skip
VERDICTS = ("entailment", "neutral", "contradiction")
INFO = {"description": "The embedded world in the format of VQA v2.0.", "version": "2.0"}


@dataclass(frozen=True)
class Picture:
    """A scene, its number and its JPEG."""

    number: int
    scene: Scene
    jpeg: bytes


def pictures(counts: dict[str, int], seed: int) -> dict[str, list[Picture]]:
    """Per split as many pictures as `counts` says; the numbers count up through all of them, from 1."""
    noise, found, number = np.random.default_rng(seed), {}, 0
    for split, count in counts.items():
        found[split] = []
        for scene in scenes(split, count, seed):
            number += 1
            found[split].append(Picture(number, scene, _jpeg(draw(scene, noise))))
    return found


def _jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, subsampling=0)  # 0: colours at full resolution
    return buffer.getvalue()


def write_vqa(root: Path, splits: dict[str, list[Picture]], rng: random.Random) -> None:
    """VQAv2: questions, annotations and image folders of train2014, val2014, test2015; test-dev2015 is half of test."""
    for split, year in (("train", "train2014"), ("val", "val2014"), ("test", "test2015")):
        questions, annotations = [], []
        (root / year).mkdir(parents=True)
        for picture in splits[split]:
            (root / year / f"COCO_{year}_{picture.number:012d}.jpg").write_bytes(picture.jpeg)
            for place, question in enumerate(ask(picture.scene, VQA_KINDS, ASKED, rng)):
                ids = {"image_id": picture.number, "question_id": picture.number * 1000 + place}
                questions.append({"question": question.text} | ids)
                annotations.append(_annotation(question, rng) | ids)
        _write(root / f"v2_mscoco_{year}_annotations.json", _vqa_file(year, annotations=annotations))
        _write_questions(root, year, questions)
        if split == "test":
            half = splits[split][len(splits[split]) // 2].number
            _write_questions(root, "test-dev2015", [entry for entry in questions if entry["image_id"] < half])


def _write_questions(root: Path, year: str, questions: list[dict[str, Any]]) -> None:
    content = _vqa_file(year, task_type="Open-Ended", questions=questions)
    _write(root / f"v2_OpenEnded_mscoco_{year}_questions.json", content)


def _vqa_file(year: str, **content: Any) -> dict[str, Any]:
    return {"info": INFO, "license": {"name": "Apache-2.0"}, "data_type": "mscoco", "data_subtype": year} | content


def _annotation(question: Question, rng: random.Random) -> dict[str, Any]:
    """Ten annotators' answers, of whom some slip to another answer of the same sort."""
    pool = next(pool for pool in ANSWER_POOLS if question.answer in pool)
    wrong = [answer for answer in pool if answer != question.answer]
    given = [rng.choice(wrong) if rng.random() < SLIP else question.answer for _ in range(10)]
    answers = [
        {"answer": answer, "answer_confidence": "yes" if answer == question.answer else "maybe", "answer_id": number}
        for number, answer in enumerate(given, start=1)
    ]
    kind = KINDS[question.kind]
    majority = max(given, key=given.count)
    return {
        "question_type": kind.question_type,
        "multiple_choice_answer": majority,
        "answers": answers,
        "answer_type": kind.answer_type,
    }


def write_gqa(root: Path, splits: dict[str, list[Picture]], rng: random.Random) -> None:
    """GQA: the balanced questions of train, val and testdev, and one folder of images."""
    (root / "images").mkdir(parents=True)
    for split, official in (("train", "train"), ("val", "val"), ("test", "testdev")):
        entries: dict[str, dict[str, Any]] = {}
        for picture in splits[split]:
            (root / "images" / f"{picture.number}.jpg").write_bytes(picture.jpeg)
            for question in ask(picture.scene, GQA_KINDS, ASKED, rng):
                question_id = f"{picture.number:06d}{len(entries) % 100:02d}"
                entries[question_id] = _gqa_entry(question_id, picture, question)
        _write(root / f"{official}_balanced_questions.json", entries)


def _gqa_entry(question_id: str, picture: Picture, question: Question) -> dict[str, Any]:
    kind = KINDS[question.kind]
    semantic = [
        {"operation": operation, "dependencies": [step - 1] if step else [], "argument": argument}
        for step, (operation, argument) in enumerate(question.program)
    ]
    steps = [f"{operation}: {argument}" for operation, argument in question.program]
    return {
        "semantic": semantic,
        "entailed": [],
        "equivalent": [question_id],
        "question": question.text,
        "imageId": str(picture.number),
        "isBalanced": True,
        "groups": {"global": kind.detailed if kind.structural == "query" else None, "local": question.kind},
        "answer": question.answer,
        "semanticStr": "->".join(f"{text} [{step - 1}]" if step else text for step, text in enumerate(steps)),
        "annotations": {"answer": {}, "question": {}, "fullAnswer": {}},
        "types": {"detailed": kind.detailed, "semantic": kind.semantic, "structural": kind.structural},
        "fullAnswer": question.full_answer,
    }


def write_snli_ve(root: Path, splits: dict[str, list[Picture]], rng: random.Random) -> None:
    """SNLI-VE: one TSV per split, the image in each row, three statements of each picture, one of every label."""
    root.mkdir(parents=True)
    for split, official in (("train", "train"), ("val", "dev"), ("test", "test")):
        rows = (row for picture in splits[split] for row in _statements(picture, rng))
        (root / f"snli_ve_{official}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _statements(picture: Picture, rng: random.Random) -> Iterator[str]:
    encoded = base64.b64encode(picture.jpeg).decode()
    for label in VERDICTS:
        hypothesis, told = state(picture.scene, label, rng), caption(picture.scene, rng)
        name = f"{picture.number}.jpg#0r1{label[0]}"
        yield "\t".join((name, str(picture.number), encoded, hypothesis, told, label))


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
