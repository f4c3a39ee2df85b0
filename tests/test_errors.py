"""What a user is told: every sentence of a UserError says what to do."""

import ast
import re
from pathlib import Path

import pytest

from dvp.config.rules import CONTRADICTIONS

ROOT = Path(__file__).parents[1]
VERBS = (
    "add ask change check choose convert copy download fetch free give go leave load make mend move name pass pip put "
    "python remove replace resume run save say search see set start take test type use write"
).split()
ELSEWHERE = (
    "way",
    "hint",
    "remedy",
    "MISMATCH",
    "cause",
    "refusal",
    "AGAIN",
    "ANOTHER",
)  # names of what says what to do
# An imperative begins the sentence or follows a mark, or "must be" names what would do.
WHAT_TO_DO = rf"`?({'|'.join(VERBS)})\b|{{({'|'.join(ELSEWHERE)})}}"
REMEDY = re.compile(rf"(^|[:;,.] |, or |, and |, so |: on the CPU )({WHAT_TO_DO})|must be ", re.IGNORECASE)


def sentence(node: ast.expr) -> str | None:
    """The text of a string with its placeholders in braces, as names; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            part.value if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}" for part in node.values
        )
    return None


def raised() -> list[tuple[str, str]]:
    """Where a UserError is made of a string, and the string."""
    found = []
    for path in sorted([*(ROOT / "dvp").rglob("*.py"), *(ROOT / "clip").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "UserError":
                if text := sentence(node.args[0]):
                    found.append((f"{path.relative_to(ROOT)}:{node.lineno}", text))
    return found


SENTENCES = [*raised(), *(("dvp/config/rules.py", text) for _, text in CONTRADICTIONS)]


@pytest.mark.parametrize("text", [text for _, text in SENTENCES], ids=[place for place, _ in SENTENCES])
def test_it_says_what_to_do(text: str) -> None:
    assert REMEDY.search(text), text
