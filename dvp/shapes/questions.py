"""Questions and statements about a scene, and their true answers."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from dvp.shapes.world import COLORS, PLACES, SHAPES, Scene, Thing

Step = tuple[str, str]  # an operation of GQA's programs and its argument; each depends on the step before it


@dataclass(frozen=True)
class Question:
    """One question with its answer, a key of KINDS, GQA's long answer and GQA's program."""

    text: str
    answer: str
    kind: str
    full_answer: str
    program: tuple[Step, ...]


@dataclass(frozen=True)
class Kind:
    """How a question is made, and what the official files call its like."""

    make: Callable[[Scene, random.Random], tuple | None]  # Question less its kind; None where the scene offers none
    question_type: str  # VQAv2: the words it opens with
    answer_type: str  # VQAv2: yes/no, number, other
    structural: str  # GQA: query, verify, choose, logical, compare
    semantic: str  # GQA: attr, obj, rel, cat, global
    detailed: str  # GQA


def plural(noun: str) -> str:
    """The plural of a shape's name."""
    return noun + ("es" if noun.endswith("s") else "s")


def _only(scene: Scene, field: str, rng: random.Random) -> Thing | None:
    """A thing whose color, shape or name no other thing of the scene has."""
    counts = Counter(getattr(thing, field) for thing in scene)
    return _pick([thing for thing in scene if counts[getattr(thing, field)] == 1], rng)


def _pick(things: list[Thing], rng: random.Random) -> Thing | None:
    return rng.choice(things) if things else None


def _other(words: dict, word: str, rng: random.Random) -> str:
    return rng.choice([other for other in words if other != word])


def _color_at(scene: Scene, rng: random.Random) -> tuple | None:
    thing = rng.choice(scene)
    place = PLACES[thing.place]
    program = (("select", "shape"), ("filter place", place), ("query", "color"))
    return f"What color is the {place} shape?", thing.color, f"The {place} shape is {thing.color}.", program


def _shape_at(scene: Scene, rng: random.Random) -> tuple | None:
    thing = rng.choice(scene)
    place = PLACES[thing.place]
    program = (("select", "shape"), ("filter place", place), ("query", "name"))
    return f"What is in the {place}?", thing.shape, f"The {place} shape is a {thing.shape}.", program


def _color_of(scene: Scene, rng: random.Random) -> tuple | None:
    thing = _only(scene, "shape", rng)
    if thing is None:
        return None
    program = (("select", thing.shape), ("query", "color"))
    return f"What color is the {thing.shape}?", thing.color, f"The {thing.shape} is {thing.color}.", program


def _shape_of(scene: Scene, rng: random.Random) -> tuple | None:
    thing = _only(scene, "color", rng)
    if thing is None:
        return None
    program = (("select", "shape"), ("filter color", thing.color), ("query", "name"))
    return f"What shape is {thing.color}?", thing.shape, f"The {thing.shape} is {thing.color}.", program


def _where(scene: Scene, rng: random.Random) -> tuple | None:
    thing = _only(scene, "name", rng)
    if thing is None:
        return None
    place = PLACES[thing.place]
    program = (("select", thing.shape), ("filter color", thing.color), ("query", "place"))
    return f"Where is the {thing.name}?", place, f"The {thing.name} is in the {place}.", program


def _exists(scene: Scene, rng: random.Random) -> tuple | None:
    thing = rng.choice(scene)
    name = thing.name
    if rng.random() < 0.5:  # one of its words is true of the scene, so that one word alone does not tell
        color, shape = _other(COLORS, thing.color, rng), _other(SHAPES, thing.shape, rng)
        name = rng.choice((f"{thing.color} {shape}", f"{color} {thing.shape}"))
    answer = "yes" if name in {thing.name for thing in scene} else "no"
    color, shape = name.split()
    program = (("select", shape), ("filter color", color), ("exist", "?"))
    full = f"Yes, there is a {name}." if answer == "yes" else f"No, there is no {name}."
    return f"Is there a {name}?", answer, full, program


def _any_at(scene: Scene, rng: random.Random) -> tuple | None:
    taken = [thing.place for thing in scene]
    free = [index for index in range(len(PLACES)) if index not in taken]
    answer = rng.choice(("yes", "no"))
    place = PLACES[rng.choice(taken if answer == "yes" else free)]
    full = f"Yes, there is a shape in the {place}." if answer == "yes" else f"No, the {place} is empty."
    return (
        f"Is there a shape in the {place}?",
        answer,
        full,
        (("select", "shape"), ("filter place", place), ("exist", "?")),
    )


def _is_color_at(scene: Scene, rng: random.Random) -> tuple | None:
    return _check_at(rng.choice(scene), "color", "{}", COLORS, rng)


def _is_shape_at(scene: Scene, rng: random.Random) -> tuple | None:
    return _check_at(rng.choice(scene), "shape", "a {}", SHAPES, rng)


def _check_at(thing: Thing, field: str, said: str, words: dict, rng: random.Random) -> tuple:
    true, place = getattr(thing, field), PLACES[thing.place]
    word = true if rng.random() < 0.5 else _other(words, true, rng)
    program = (("select", "shape"), ("filter place", place), (f"verify {field}", word))
    text, full = f"Is the {place} shape {said.format(word)}?", f"The {place} shape is {said.format(true)}."
    return text, "yes" if word == true else "no", full, program


def _is_color(scene: Scene, rng: random.Random) -> tuple | None:
    thing = _only(scene, "shape", rng)
    if thing is None:
        return None
    color = thing.color if rng.random() < 0.5 else _other(COLORS, thing.color, rng)
    answer = "yes" if color == thing.color else "no"
    program = (("select", thing.shape), ("verify color", color))
    return f"Is the {thing.shape} {color}?", answer, f"The {thing.shape} is {thing.color}.", program


def _count(scene: Scene, rng: random.Random) -> tuple | None:
    field, words = rng.choice((("shape", SHAPES), ("color", COLORS)))
    word = getattr(rng.choice(scene), field) if rng.random() < 0.75 else rng.choice(list(words))
    number = str(sum(getattr(thing, field) == word for thing in scene))
    text = f"How many {plural(word)} are there?" if field == "shape" else f"How many shapes are {word}?"
    return text, number, f"There are {number}.", (("select", "shape"), (f"filter {field}", word), ("count", "?"))


def _choose(scene: Scene, rng: random.Random) -> tuple | None:
    thing = _only(scene, "shape", rng)
    if thing is None:
        return None
    first, second = rng.sample([thing.color, _other(COLORS, thing.color, rng)], 2)
    program = (("select", thing.shape), ("choose color", f"{first}|{second}"))
    return f"Is the {thing.shape} {first} or {second}?", thing.color, f"The {thing.shape} is {thing.color}.", program


def _beside(scene: Scene, rng: random.Random) -> tuple | None:
    at = {thing.place: thing for thing in scene}
    pairs = [(at[place], at[place + 1]) for place in at if place % 3 < 2 and place + 1 in at]
    pairs = [(left, right) for left, right in pairs if sum(thing.name == right.name for thing in scene) == 1]
    if not pairs:
        return None
    left, right = rng.choice(pairs)
    relate = ("relate", "shape,to the left of,s")
    program = (("select", right.shape), ("filter color", right.color), relate, ("query", "name"))
    return f"What is left of the {right.name}?", left.shape, f"The {left.shape} is left of the {right.name}.", program


KINDS = {
    "color at": Kind(_color_at, "what color is the", "other", "query", "attr", "color"),
    "shape at": Kind(_shape_at, "what is in the", "other", "query", "cat", "categoryThat"),
    "color of": Kind(_color_of, "what color is the", "other", "query", "attr", "color"),
    "shape of": Kind(_shape_of, "what", "other", "query", "cat", "categoryThat"),
    "where": Kind(_where, "where is the", "other", "query", "attr", "place"),
    "exists": Kind(_exists, "is there a", "yes/no", "verify", "obj", "exist"),
    "any at": Kind(_any_at, "is there a", "yes/no", "verify", "obj", "exist"),
    "is color at": Kind(_is_color_at, "is the", "yes/no", "verify", "attr", "verifyAttr"),
    "is shape at": Kind(_is_shape_at, "is the", "yes/no", "verify", "cat", "verifyCat"),
    "is color": Kind(_is_color, "is the", "yes/no", "verify", "attr", "verifyAttr"),
    "count": Kind(_count, "how many", "number", "query", "obj", "count"),
    "choose": Kind(_choose, "is the", "other", "choose", "attr", "chooseAttr"),
    "beside": Kind(_beside, "what is", "other", "query", "rel", "relS"),
}
# How often a kind is asked: as often as it stands here.
VQA_KINDS = (
    *("color at", "shape at", "any at") * 2,
    *("any at", "color of", "shape of", "is color at", "exists", "count"),
)
GQA_KINDS = (
    *("color at", "shape at", "any at") * 2,
    *("color of", "shape of", "is shape at", "is color", "exists", "where", "choose", "beside"),
)


def ask(scene: Scene, kinds: tuple[str, ...], count: int, rng: random.Random) -> list[Question]:
    """At most `count` different questions about the scene, of kinds drawn from `kinds`."""
    asked: dict[str, Question] = {}
    for _ in range(3 * count):
        kind = rng.choice(kinds)
        made = KINDS[kind].make(scene, rng)
        if made and len(asked) < count:
            text, answer, full_answer, program = made
            asked.setdefault(text, Question(text, answer, kind, full_answer, program))
    return list(asked.values())


NEUTRAL = (
    "a child drew the {name} first.",
    "the {name} is a gift.",
    "somebody will move the {name}.",
    "the {name} was sold yesterday.",
)


def state(scene: Scene, label: str, rng: random.Random) -> str:
    """A statement that the scene entails or contradicts, or (neutral) that the picture cannot tell."""
    thing = rng.choice(scene)
    if label == "neutral":
        return rng.choice(NEUTRAL).format(name=thing.name)
    stated = thing
    if label == "contradiction":
        swaps = ({"color": _other(COLORS, thing.color, rng)}, {"shape": _other(SHAPES, thing.shape, rng)})
        stated = thing._replace(**rng.choice(swaps))
    return f"the {PLACES[thing.place]} shape is a {stated.name}."
