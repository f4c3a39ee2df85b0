"""The embedded world's ScienceQA: multiple choice about scenes in the official layout, half of it with a picture."""

import io
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from dvp.shapes.questions import ask
from dvp.shapes.raw import Picture
from dvp.shapes.world import COLORS, SHAPES, Scene, caption

KINDS = ("color at", "shape at")
POOLS: tuple[Sequence[str], ...] = (tuple(COLORS), tuple(SHAPES))
CHOICES = (2, 3, 4)
LECTURES = {
    "color at": "A color is what light a shape gives back.",
    "shape at": "A shape is what outline a thing has.",
}
SUBJECTS = {"color at": "natural science", "shape at": "language science"}


def write_science_qa(root: Path, splits: dict[str, list[Picture]], rng: random.Random) -> None:
    """ScienceQA: problems, splits, captions and images; of each scene one problem with its picture and one without."""
    problems, captions, pids = {}, {}, {}
    for split, pictures in splits.items():
        pids[split] = [str(2 * picture.number + part) for picture in pictures for part in (0, 1)]
        for picture in pictures:
            seen, told = (str(2 * picture.number + part) for part in (0, 1))
            problems[seen] = problem(picture.scene, True, rng) | {"split": split}
            problems[told] = problem(picture.scene, False, rng) | {"split": split}
            captions[seen] = "A picture of shapes."
            place = root / "images" / split / seen / "image.png"
            place.parent.mkdir(parents=True)
            Image.open(io.BytesIO(picture.jpeg)).save(place)
    for name, content in {"problems": problems, "pid_splits": pids, "captions": {"captions": captions}}.items():
        (root / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def problem(scene: Scene, has_image: bool, rng: random.Random) -> dict[str, Any]:
    """A problem about the scene, which is seen, or told in the hint."""
    (question,) = ask(scene, KINDS, 1, rng)
    pool = next(pool for pool in POOLS if question.answer in pool)
    wrong = rng.sample([answer for answer in pool if answer != question.answer], rng.choice(CHOICES) - 1)
    choices = rng.sample([question.answer, *wrong], len(wrong) + 1)
    return {
        "question": question.text,
        "choices": choices,
        "answer": choices.index(question.answer),
        "hint": "" if has_image else caption(scene, rng),
        "image": "image.png" if has_image else None,
        "task": "closed choice",
        "grade": f"grade{rng.randint(1, 12)}",
        "subject": SUBJECTS[question.kind],
        "topic": "shapes",
        "category": question.kind,
        "skill": question.kind,
        "lecture": LECTURES[question.kind],
        "solution": question.full_answer,
    }
