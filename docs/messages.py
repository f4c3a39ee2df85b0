"""What a user may be told: every sentence of a UserError, with where it is raised, read from the source."""

import ast
import re
from pathlib import Path
from typing import NamedTuple

from dvp.config.contradictions import CONTRADICTIONS

ROOT = Path(__file__).parents[1]
RAISED = ("UserError", "NotNow")  # the classes that a sentence is raised by
VERBS = (
    "add ask change check choose convert copy download fetch free get give go keep leave load make mend move name pass "
    "pip put python remove replace resume run save say search see set start take test type use wait write"
).split()
ELSEWHERE = ("way", "hint", "remedy", "cause", "refusal", "longer")  # names of what says what to do
# An imperative begins the sentence or follows a mark, or "must be" names what would do.
WHAT_TO_DO = rf"`?({'|'.join(VERBS)})\b|{{({'|'.join(ELSEWHERE)})}}"
REMEDY = re.compile(rf"(?:^|[:;,.] |, or |, and |, so |: on the CPU )({WHAT_TO_DO})|must be ", re.IGNORECASE)
# Of sentences that are raised by a name: the functions that make them, or None where they stand here otherwise
MADE_BY = {
    "self._words(*ended)": ("dvp/runs/stopping.py", "_words"),
    "unwritable": ("dvp/data/token_cache.py", "claim"),
    "shortage": ("dvp/data/token_cache.py", "shortage"),
    "sentence": None,  # CONTRADICTIONS
    "str(error).replace(str(folder), str(raw))": None,  # another UserError, with the folder that the user knows
}
# What a room's messages are about, the first that fits; in the order of the page
TOPICS = {
    "The command line and settings": ("dvp/config/", "dvp/commands/", "dvp/build.py", "dvp/compressor.py", "dvp/kinds"),
    "Language models and image encoders": ("dvp/backbones/", "dvp/encoders/", "clip/"),
    "Converting raw data": ("dvp/prepare/",),
    "Tables and pictures": ("dvp/data/", "dvp/images.py", "dvp/manifest/", "dvp/scienceqa/", "dvp/tasks.py"),
    "Checkpoints, devices and going on": ("dvp/checkpoints/", "dvp/files.py", "dvp/runs/"),
    "Search and sweep": ("dvp/search/", "dvp/sweep/"),
    "Asking a checkpoint": ("dvp/answering/", "dvp/page/"),
    "Scores and files of answers": ("dvp/evaluation/",),
    "The published code's checkpoints": ("dvp/published/",),
    "Everything else": ("",),
}


class Message(NamedTuple):
    """A sentence with its placeholders in braces, and where it is raised."""

    text: str
    file: str
    line: int
    function: str

    @property
    def shown(self) -> str:
        """The sentence as the documents write it: <name> or ... for what differs from case to case."""
        return _shown(self.text)

    @property
    def parts(self) -> tuple[str, str]:
        """The same in two: what is wrong, and what to do."""
        found = REMEDY.search(self.text)
        start = max(found.start(1), found.start()) if found else len(self.text)
        return _shown(self.text[:start]), _shown(self.text[start:])

    @property
    def topic(self) -> str:
        """What it is about."""
        return next(topic for topic, rooms in TOPICS.items() if self.file.startswith(rooms))


def sentence(node: ast.expr) -> str | None:
    """The text of a string with its placeholders in braces, as names; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            part.value if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}" for part in node.values
        )
    return None


def sources() -> list[Path]:
    """The files that may raise a UserError."""
    return sorted([*(ROOT / "dvp").rglob("*.py"), *(ROOT / "clip").rglob("*.py")])


def messages() -> list[Message]:
    """All sentences, by file and line; KeyError for one that is neither a string nor in MADE_BY."""
    found, made = [], []
    for path in sources():
        file, tree = path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))
        for owner, node in _calls(tree):
            text = sentence(node.args[0])
            if text is None:
                made.append(MADE_BY[ast.unparse(node.args[0])])
            else:
                found.append(_message(text, file, node.lineno, owner, tree))
    for file, function in sorted(set(filter(None, made))):
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        (owner,) = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == function)
        texts = [(node.lineno, sentence(node.value)) for node in ast.walk(owner) if isinstance(node, ast.Return)]
        found += [_message(text, file, line, owner, tree) for line, text in texts if text]
    found += [Message(text, "dvp/config/contradictions.py", 0, "check") for _, text in CONTRADICTIONS]
    return sorted(found, key=lambda message: (message.file, message.line))


def _calls(tree: ast.Module) -> list[tuple[ast.AST, ast.Call]]:
    """Where a UserError is made, with the innermost function around it, or the file."""
    owners: dict[int, ast.AST] = {}
    for outer in ast.walk(tree):  # from the outside in
        if isinstance(outer, ast.Module | ast.FunctionDef):
            owners |= {id(inner): outer for inner in ast.walk(outer)}
    return [
        (owners[id(node)], node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RAISED
    ]


def _message(text: str, file: str, line: int, owner: ast.AST, tree: ast.Module) -> Message:
    """The message with the file's own constants written out."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            for target in node.targets:
                text = text.replace(f"{{{ast.unparse(target)}}}", str(node.value.value))
    return Message(text, file, line, getattr(owner, "name", ""))


def _shown(text: str) -> str:
    return " ".join(re.sub(r"{([^{}]*)}", lambda found: _placeholder(found[1]), text).split())


def _placeholder(code: str) -> str:
    """<name> for a name, an attribute or a named item; ... for anything else."""
    named = re.fullmatch(r"(?:str\()?(?:\w+\.)*(\w+)\)?|\w+\['(\w+)'\]", code)
    return f"<{named[1] or named[2]}>" if named else "..."
