"""The embedded world's ScienceQA: multiple choice about scenes in the official layout, half of it with a picture."""

import io
import itertools
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
ASKED = 4  # problems about each scene
CHOICES = (2, 3, 4)
LECTURES = {
    "color at": "A color is what light a shape gives back.",
    "shape at": "A shape is what outline a thing has.",
}
SUBJECTS = {"color at": "natural science", "shape at": "language science"}


def write_science_qa(root: Path, splits: dict[str, list[Picture]], rng: random.Random) -> None:
    """ScienceQA: problems, splits, captions and images; every second problem about a scene has its picture."""
    problems, captions, pids = {}, {}, {split: [] for split in splits}
    for split, pictures in splits.items():
        for picture, part in itertools.product(pictures, range(ASKED)):
            pid, has_image = str(ASKED * picture.number + part), part % 2 == 0
            pids[split].append(pid)
            problems[pid] = problem(picture.scene, has_image, rng) | {"split": split}
            if has_image:
                captions[pid] = "A picture of shapes."
                place = root / "images" / split / pid / "image.png"
                place.parent.mkdir(parents=True)
                Image.open(io.BytesIO(picture.jpeg)).save(place, compress_level=1)
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
        "caption": "",
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
