"""Prompts, targets and the answers read back."""

import pytest

from dvp.errors import UserError
from dvp.scienceqa.text import FORMATS, read_answer, write_example

PROBLEM = {
    "question": "Which  one?", "choices": ["a rock", "a mineral"], "answer": 1, "hint": "", "caption": "A stone.",
    "lecture": "Rocks\nare many.", "solution": "It is   one. ",
}  # fmt: skip


def test_the_usual_example():
    prompt, target = write_example(PROBLEM)
    assert prompt == "Question: Which one?\nContext: N/A\nOptions: (A) a rock (B) a mineral\nResponse:"
    assert target == "The answer is B. BECAUSE: Rocks\\nare many. It is  one."


def test_the_context_is_the_hint_and_if_asked_the_caption():
    both = PROBLEM | {"hint": "Look\nhere."}
    assert "\nContext: Look\nhere.\n" in write_example(both)[0]
    assert "\nContext: Look\nhere. A stone.\n" in write_example(both, use_caption=True)[0]
    assert "\nContext: A stone.\n" in write_example(PROBLEM, use_caption=True)[0]


@pytest.mark.parametrize("prompt_format", FORMATS)
def test_every_format_has_what_its_name_says(prompt_format):
    prompt, target = write_example(PROBLEM, prompt_format)
    source, _, wanted = prompt_format.partition("-")
    assert (prompt.index("Question") < prompt.index("Context")) == (source == "QCM")
    parts = {"A": "The answer is B.", "L": "Rocks\\nare many.", "E": "It is  one."}
    places = [target.find(parts[letter]) for letter in wanted]
    assert places == sorted(places) and min(places) >= 0
    assert all(parts[letter] not in target for letter in set(parts) - set(wanted))


def test_an_unknown_format_is_refused_with_those_that_there_are():
    with pytest.raises(UserError, match="QCM-XY.*QCM-ALE"):
        write_example(PROBLEM, "QCM-XY")


@pytest.mark.parametrize(
    "text, choice, published",
    [
        ("The answer is B. BECAUSE: it is.", 1, 1),
        ("So it is. The answer is A.", 0, 0),
        ("The answer is C.", 2, 2),
        ("The answer is D.", None, None),
        ("The answer is B, I think.", None, 1),
        ("The answer is A. No: The answer is B.", 0, None),
        ("B", None, None),
        ("", None, None),
    ],
)
def test_answers_are_read(text, choice, published):
    assert read_answer(text, 3) == choice
    assert read_answer(text, 3, as_published=True) == published
