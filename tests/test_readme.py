"""The documents: every command that they show is one that the command line takes."""

import re
import shlex
from pathlib import Path

import pytest

import run  # noqa: F401  registers the commands
from dvp.config import check, check_command_line, ex

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    path
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("*/*.md")])
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
]


def commands(path: Path) -> list[str]:
    """What follows `python run.py` in a document: up to the end of the line, of the code or of the table's cell."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    return [found.strip() for found in re.findall(r"python run\.py ([^`\n|#]+)", text)]


COMMANDS = [(path.relative_to(ROOT).as_posix(), line) for path in DOCUMENTS for line in commands(path)]
PUBLISHED = [  # the published code's own commands
    f"with data_root=./datasets num_gpus=1 num_nodes=1 dvp_{stage}_{model}_{task} per_gpu_batchsize=64 {more}"
    for model in ("bert", "t5", "llama")
    for task in ("vqa", "gqa", "snli_ve")
    for stage, more in (
        ("search", ""),
        ("adaption", "insert_layer=K"),
        ("adaption", "insert_layer=K use_adapter=True learning_rate=1e-3"),
        ("adaption", "insert_layer=K test_only=True precision=32 load_path=<checkpoint>"),
    )
]


def test_the_documents_show_commands() -> None:
    assert {"README.md", "DATA.md", "Dynamic_Visual_Prompting_For_SQA/README.md"} <= {name for name, _ in COMMANDS}


@pytest.mark.parametrize("name, line", [*COMMANDS, *(("published", line) for line in PUBLISHED)])
def test_a_shown_command_is_taken(name: str, line: str) -> None:
    # What only the reader knows: <a checkpoint>, "..." and K.
    words = [
        re.sub(r"=(<.*>|\.\.\.)$", "=here", word).replace("=K", "=5") for word in shlex.split(line) if word != "..."
    ]
    command = words.pop(0) if words[0] != "with" else None
    settings = words[1:]
    if command == "help":
        return
    updates = check_command_line(command, settings)
    named = [word for word in settings if "=" not in word]
    options = {"COMMAND": command, "UPDATE": settings}
    config = ex.run("print_config", updates, named_configs=named, options=options).config
    if command in (None, "encode"):
        check(config)
