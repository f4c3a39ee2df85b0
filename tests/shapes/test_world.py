"""Scenes, pictures, questions and statements of the embedded world."""

import random
import re

import numpy as np
import pytest

from dvp.shapes.questions import KINDS, NEUTRAL, ask, plural, state
from dvp.shapes.world import COLORS, PLACES, SHAPES, SIZE, Scene, caption, draw, scenes, split_of

SPLITS = ("pretrain", "train", "val", "test")
SINGULAR = {plural(shape): shape for shape in SHAPES}


def true_answer(text: str, scene: Scene) -> str:
    """The answer to a question, worked out from its words alone."""
    words = re.findall(r"\w+", text.lower())
    colors, shapes = ([word for word in words if word in known] for known in (COLORS, SHAPES))
    shapes += [SINGULAR[word] for word in words if word in SINGULAR]
    places = [index for index, place in enumerate(PLACES) if f" {place}" in text.lower()]
    meant = [
        thing
        for thing in scene
        if (not places or thing.place in places)
        and (not colors or thing.color in colors)
        and (not shapes or thing.shape in shapes)
    ]
    if "left of" in text:
        (right,) = [thing for thing in scene if thing.color in colors and thing.shape in shapes]
        return next(thing.shape for thing in scene if thing.place == right.place - 1)
    if " or " in text:
        return next(thing.color for thing in scene if thing.shape in shapes)
    if text.startswith("What color"):
        return meant[0].color
    if text.startswith("What"):
        return meant[0].shape
    if text.startswith("Where"):
        return PLACES[meant[0].place]
    if text.startswith("How many"):
        return str(len(meant))
    return "yes" if meant else "no"


def test_scenes_of_a_seed_are_always_the_same_and_differ_from_another_seed():
    assert scenes("train", 50, seed=3) == scenes("train", 50, seed=3)
    assert scenes("train", 50, seed=3) != scenes("train", 50, seed=4)


def test_no_scene_content_is_in_two_splits_whatever_the_seed():
    content = [{scene for seed in range(3) for scene in scenes(split, 300, seed)} for split in SPLITS]
    assert sum(map(len, content)) == len(set.union(*content))
    assert all({split_of(scene) for scene in found} == {split} for split, found in zip(SPLITS, content, strict=True))


def test_scenes_hold_four_to_six_things_in_different_places():
    found = scenes("val", 200)
    assert {len(scene) for scene in found} == {4, 5, 6}
    assert all(len({thing.place for thing in scene}) == len(scene) for scene in found)
    assert len(set(found)) == 200


def test_a_picture_shows_each_thing_in_its_place_and_color():
    scene = scenes("test", 1)[0]
    picture = draw(scene, np.random.default_rng(0))
    assert picture.shape == (SIZE, SIZE, 3) and picture.dtype == np.uint8
    for thing in scene:
        row, column = divmod(thing.place, 3)
        cell = picture[20 * row : 20 * row + 20, 20 * column : 20 * column + 20].reshape(-1, 3)
        assert (cell == COLORS[thing.color]).all(1).sum() > 30


def test_no_two_shapes_look_alike():
    thing = scenes("test", 1)[0][0]
    looks = {draw((thing._replace(shape=shape),), np.random.default_rng(0)).tobytes() for shape in SHAPES}
    assert len(looks) == len(SHAPES)


def test_a_caption_names_every_thing_once():
    scene = scenes("test", 1)[0]
    told = caption(scene, random.Random(0)).split(", ")
    assert sorted(told) == sorted(f"{PLACES[thing.place]} {thing.color} {thing.shape}" for thing in scene)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_true_of_the_scene(kind):
    rng = random.Random(kind)
    asked = [(scene, question) for scene in scenes("train", 200) for question in ask(scene, (kind,), 3, rng)]
    assert len(asked) > 100
    for scene, question in asked:
        assert question.answer == true_answer(question.text, scene), (question, scene)


@pytest.mark.parametrize("kind", ["exists", "any at", "is color at", "is shape at", "is color"])
def test_yes_and_no_are_balanced(kind):
    rng = random.Random(0)
    answers = [question.answer for scene in scenes("train", 600) for question in ask(scene, (kind,), 1, rng)]
    assert 0.4 < answers.count("yes") / len(answers) < 0.6


def test_a_picture_is_never_asked_the_same_question_twice():
    texts = [question.text for question in ask(scenes("train", 1)[0], tuple(KINDS), 8, random.Random(0))]
    assert len(set(texts)) == len(texts) == 8


def test_statements_are_what_their_label_says():
    rng = random.Random(0)
    for scene in scenes("train", 100):
        known = {f"the {PLACES[thing.place]} shape is a {thing.color} {thing.shape}." for thing in scene}
        assert state(scene, "entailment", rng) in known
        assert state(scene, "contradiction", rng) not in known
        assert state(scene, "neutral", rng) in {
            sentence.format(name=f"{thing.color} {thing.shape}") for sentence in NEUTRAL for thing in scene
        }
