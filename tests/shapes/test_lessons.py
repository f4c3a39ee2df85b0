"""What LLaMA is pre-trained on: every answer marked is the answer, and nothing that it says gives it away before."""

import random

import pytest

from dvp.backbones import BACKBONES
from dvp.backbones.tokenizer import Tokenizer
from dvp.scienceqa.text import LETTERS
from dvp.shapes.corpus import entries
from dvp.shapes.lessons import look_up, reply, solve
from dvp.shapes.pretrain import MODELS
from dvp.shapes.world import scenes


@pytest.fixture(scope="module")
def tokens() -> Tokenizer:
    return BACKBONES["llama"].tokenizer(str(MODELS / "llama"))


def words(tokens: Tokenizer, ids: list[int]) -> str:
    return tokens.decode(ids).strip()


@pytest.mark.parametrize("seed", range(5))
def test_a_look_up_answers_with_the_letter_in_front_of_the_choice(seed: int, tokens: Tokenizer) -> None:
    lesson = look_up(tokens, random.Random(seed))
    told = words(tokens, lesson.ids[1 : lesson.said])
    for place in lesson.answers:
        choice, letter = (words(tokens, lesson.ids[at : at + 1]) for at in (place - 1, place))
        assert letter in LETTERS and f"({letter}) {choice}" in told


@pytest.mark.parametrize("number", range(5))
def test_a_reply_ends_with_the_answer_and_asks_at_the_end_of_the_question(number: int, tokens: Tokenizer) -> None:
    entry = entries(40)[number]
    lesson = reply(tokens, entry)
    *answer, end = (lesson.ids[place] for place in lesson.answers)
    assert words(tokens, answer) == entry.answer and end == tokens.eos_token_id
    assert [lesson.ids[place] for place in lesson.asked] == [tokens.eos_token_id]
    assert words(tokens, list(lesson.question)) == entry.question


@pytest.mark.parametrize("number", range(10))
def test_a_problem_is_said_from_its_target_on_and_asked_by_its_prompt(number: int, tokens: Tokenizer) -> None:
    lesson = solve(tokens, scenes("pretrain", 10)[number], random.Random(number))
    said = words(tokens, lesson.ids[lesson.said : -1])
    (place,) = lesson.answers
    answer = said.partition("The answer is ")[2]
    letter = words(tokens, lesson.ids[place : place + 1])
    assert answer.startswith(f"{letter}.")
    prompt = words(tokens, [lesson.ids[place] for place in lesson.asked])
    assert prompt.startswith("Question: ") and prompt.endswith("Response:")
    assert words(tokens, list(lesson.question)) in prompt
    choice = prompt.split(f"({letter}) ")[1].split()[0]
    assert f" {choice}." in said
