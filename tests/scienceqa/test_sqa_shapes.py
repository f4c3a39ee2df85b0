"""The embedded world's ScienceQA: convertible, and answerable by who sees the scene or reads the hint, only."""

import json
import random
import re

import pyarrow as pa

from dvp.prepare import convert
from dvp.shapes.raw import pictures
from dvp.shapes.scienceqa import ASKED, write_science_qa
from dvp.shapes.world import PLACES

COUNTS = {"train": 6, "val": 3, "test": 4}


def test_half_of_the_problems_have_a_picture_and_the_other_half_tells_the_answer(tmp_path):
    splits = pictures(COUNTS, seed=0)
    write_science_qa(tmp_path, splits, random.Random(0))
    problems = json.loads((tmp_path / "problems.json").read_text())
    scenes = {picture.number: picture.scene for found in splits.values() for picture in found}
    assert len(problems) == ASKED * sum(COUNTS.values())
    for pid, problem in problems.items():
        place = next(place for place in PLACES if place in problem["question"])
        thing = next(thing for thing in scenes[int(pid) // ASKED] if PLACES[thing.place] == place)
        answer = problem["choices"][problem["answer"]]
        assert answer == (thing.color if "color" in problem["question"] else thing.shape)
        assert len(set(problem["choices"])) == len(problem["choices"]) >= 2
        told = re.search(rf"{place} {thing.color} {thing.shape}", problem["hint"])
        assert bool(told) == (problem["image"] is None) and bool(problem["hint"]) == bool(told)


def test_it_converts_like_the_official_set(tmp_path):
    write_science_qa(tmp_path, pictures(COUNTS, seed=0), random.Random(0))
    convert("scienceqa", str(tmp_path), str(tmp_path / "arrow"))
    for split, count in COUNTS.items():
        table = pa.ipc.open_file(str(tmp_path / "arrow" / f"scienceqa_{split}.arrow")).read_all()
        assert len(table) == ASKED * count
        assert sum(len(image) > 0 for image in table["image"].to_pylist()) == ASKED // 2 * count
