"""What the model reads and writes: prompt and target of a problem, and the choice that an answer names.

A format is <input>-<target>: Q question, C context, M multiple choice, A answer, L lecture, E explanation.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dvp.errors import UserError

LETTERS = "ABCDE"
ANSWER_STEM = "The answer is"

INPUTS = {
    "QCM": "Question: {question}\nContext: {context}\nOptions: {options}\nResponse:",
    "CQM": "Context: {context}\nQuestion: {question}\nOptions: {options}\nResponse:",
}
TARGETS = {
    "A": "The answer is {letter}.",
    "AL": "The answer is {letter}. BECAUSE: {lecture}",
    "AE": "The answer is {letter}. BECAUSE: {solution}",
    "ALE": "The answer is {letter}. BECAUSE: {lecture} {solution}",
    "AEL": "The answer is {letter}. BECAUSE: {solution} {lecture}",
    "LA": "{lecture} The answer is {letter}.",
    "EA": "{solution} The answer is {letter}.",
    "LEA": "{lecture} {solution} The answer is {letter}.",
    "ELA": "{solution} {lecture} The answer is {letter}.",
    "LE": "{lecture} {solution}",
}
FORMATS = tuple(f"{source}-{target}" for source in INPUTS for target in TARGETS)


def write_example(
    problem: Mapping[str, Any], prompt_format: str = "QCM-ALE", use_caption: bool = False
) -> tuple[str, str]:
    """Prompt and target of a problem with the official fields, and `caption` if that is to be used.

    Source: the data set's own prompt builder. A problem without lecture and solution ends in "BECAUSE:".
    """
    source, target = _templates(prompt_format)
    context = f"{problem['hint']} {problem['caption'] if use_caption else ''}".strip()
    fields = {
        "question": problem["question"],
        "context": context or "N/A",
        "options": list_choices(problem["choices"]),
        "letter": LETTERS[problem["answer"]],
        "lecture": problem["lecture"].replace("\n", "\\n"),
        "solution": problem["solution"].replace("\n", "\\n"),
    }
    return _fold(source.format(**fields)), _fold(target.format(**fields))


def answers_first(prompt_format: str) -> bool:
    """Whether the target begins with the answer, so that a letter can be asked for right after the prompt."""
    return _templates(prompt_format)[1].startswith(ANSWER_STEM)


def list_choices(choices: Sequence[str]) -> str:
    """The choices behind their letters: "(A) red (B) blue"."""
    return " ".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False))


def read_answer(text: str, num_choices: int, as_published: bool = False) -> int | None:
    """The index of the choice that a generated text names, or None where it names none or none that there is.

    Published: None, too, where it names more than one, and any character is taken for the full stop.
    """
    found = re.findall(rf"{ANSWER_STEM} ([A-Z]){'.' if as_published else '[.]'}", text)
    if not found or as_published and len(found) > 1:
        return None
    choice = LETTERS.find(found[0])
    return choice if 0 <= choice < num_choices else None


def _templates(prompt_format: str) -> tuple[str, str]:
    if prompt_format not in FORMATS:
        raise UserError(f"prompt_format={prompt_format} is unknown: take one of {', '.join(FORMATS)}.")
    source, _, target = prompt_format.partition("-")
    return INPUTS[source], TARGETS[target]


def _fold(text: str) -> str:
    return text.replace("  ", " ").strip()  # once: three spaces leave two, and the model is trained on that
