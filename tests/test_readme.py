"""The documents: every command that they show is one that the command line takes, or a program that is there."""

import ast
import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest

import run  # noqa: F401  registers the commands
from dvp.config import check, check_command_line, ex

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    path
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("docs/*/*.md")])
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
]
FORM = re.compile(r"(^|\s)[<\[]|^\.\.\.")  # python run.py [command] with <experiment>: how one looks, not one


def commands(path: Path) -> list[str]:
    """What follows `python run.py`, or torchrun's, in a document: up to the end of line, code or cell of a table."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    found = [line.strip() for line in re.findall(r"(?:python|torchrun .*) +run\.py ([^`\n|#]+)", text)]
    return [line for line in found if not FORM.search(line)]


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
    shown = {"README.md", "DATA.md", "docs/start.md", "docs/tasks/vqa.md", "Dynamic_Visual_Prompting_For_SQA/README.md"}
    assert shown <= {name for name, _ in COMMANDS}


@pytest.mark.parametrize("name, line", [*COMMANDS, *(("published", line) for line in PUBLISHED)])
def test_a_shown_command_is_taken(name: str, line: str) -> None:
    # What only the reader knows: <a checkpoint>, "..." and K, and of which task.
    line = line.replace("datasets=<name>", "datasets=vqa")
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


def blocks(language: str) -> list[tuple[str, str]]:
    """The blocks of code of a language in all documents, with the document."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [
        (path.relative_to(ROOT).as_posix(), code)
        for path in DOCUMENTS
        for code in pattern.findall(path.read_text(encoding="utf-8"))
    ]


SHELL = [
    (name, line.strip())
    for name, block in blocks("bash")
    for whole in block.replace("\\\n", " ").splitlines()
    for line in whole.partition("#")[0].split("&&")
    if line.strip()
]
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("name, line", SHELL)
def test_a_line_for_the_shell_is_of_a_program_that_is_there(name: str, line: str) -> None:
    match shlex.split(line):
        case ["python", "run.py", *_] | ["git", "clone", *_] | ["cd", "dvp"]:
            pass  # the first are tried above
        case ["srun", "python", "run.py", *_] | ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1", "torchrun", *_]:
            pass  # these too
        case ["make", target, *_]:
            assert target in TARGETS
        case ["source", place]:
            assert place == ".venv/bin/activate"
        case ["pip", "install", "-r", file]:
            assert (ROOT / file).is_file()
        case ["hf", "download", model, "--local-dir", folder]:
            assert folder in model
            assert (Path(sys.executable).parent / "hf").is_file()
        case other:
            pytest.fail(f"{name} shows {other}, which no test knows")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_targets_and_modules_that_a_text_names_are_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= set(TARGETS)
    modules = re.findall(r"python -m ((?:demos|benchmarks|tests)[\w.]*)", text)
    assert not [name for name in modules if not (ROOT / f"{name.replace('.', '/')}.py").is_file()]
    for code in re.findall(r'python -c "([^"]+)"', text):
        imported(code)


@pytest.mark.parametrize("name, code", blocks("python"))
def test_python_that_is_shown_imports_what_there_is(name: str, code: str) -> None:
    names = imported(code)
    assert names
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
            assert hasattr(names[node.value.id], node.attr)


def imported(code: str) -> dict[str, object]:
    """What a piece of Python imports, by name."""
    found: dict[str, object] = {}
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.asname or alias.name: importlib.import_module(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            names = [alias.name for alias in node.names if alias.name != "*"]
            found |= {name: getattr(module, name) for name in names}
    return found
