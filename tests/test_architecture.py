"""The rooms of the code: which way the arrows go between them, and that they stay small."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dvp.backbones import BACKBONES
from dvp.tasks import TASKS

ROOT = Path(__file__).parents[1]
SIDE_ROOMS = {"shapes", "prepare", "evaluation", "scienceqa", "report"}
# Room -> what it must not know. A room is a file or folder of dvp/; other names are packages.
STEERING = {"dvp.config", "dvp.build", "dvp.commands", "sacred", "run"}
TOP = STEERING | {"dvp.module"}
IMAGES = {"clip", "PIL", "dvp.vision", "dvp.compressor", "dvp.data"}
MUST_NOT_KNOW = {
    "backbones": TOP | IMAGES | {"dvp.tasks", "dvp.search", "dvp.model", "dvp.adapters"},
    "adapters": TOP | IMAGES | {"dvp.tasks", "dvp.search", "dvp.model", "dvp.backbones", "transformers"},
    "vision": TOP | {"dvp.tasks", "dvp.search", "dvp.model", "dvp.backbones", "dvp.data"},
    "compressor": TOP | {"clip", "PIL", "dvp.data", "dvp.tasks", "dvp.search", "dvp.model", "transformers"},
    "search": TOP | IMAGES | {"dvp.tasks", "dvp.model", "dvp.backbones", "dvp.adapters", "transformers"},
    "tasks": TOP | IMAGES | {"dvp.search", "dvp.model", "dvp.backbones", "dvp.adapters", "transformers"},
    "optim": TOP | IMAGES | {"dvp.tasks", "dvp.search", "dvp.model", "dvp.backbones", "dvp.adapters"},
    "checkpoints": TOP | IMAGES | {"dvp.tasks", "dvp.search", "dvp.model", "dvp.backbones"},
    "evaluation/submission": TOP | IMAGES | {"dvp.tasks", "dvp.search", "dvp.model", "dvp.backbones"},
    "data": TOP | {"clip", "dvp.vision", "dvp.compressor", "dvp.search", "dvp.model", "dvp.backbones"},
    "model": TOP | {"clip", "PIL", "dvp.data", "dvp.tasks", "dvp.search", "dvp.optim", "dvp.checkpoints"},
    "module": STEERING | {"clip", "PIL", "dvp.data", "dvp.backbones", "transformers"},
    "prepare": TOP | {"torch", "clip", "dvp.vision", "dvp.compressor", "dvp.model", "dvp.backbones", "dvp.search"},
    "config": {"torch", "transformers", "clip", "dvp.build", "dvp.module", "dvp.tasks", "dvp.backbones"},
}  # fmt: skip


def sources(room: str) -> list[Path]:
    folder = ROOT / "dvp" / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def core() -> list[Path]:
    """The files of dvp/ without the side rooms."""
    return [path for path in sorted((ROOT / "dvp").rglob("*.py")) if not SIDE_ROOMS & set(path.parts)]


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, and all that they lie in: dvp.data.arrow gives dvp.data too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


@pytest.mark.parametrize("room", MUST_NOT_KNOW)
def test_no_arrow_turns_round(room: str) -> None:
    known = {name for path in sources(room) for name in imports(path)}
    assert not known & MUST_NOT_KNOW[room]


@pytest.mark.parametrize("path", core(), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_builder_of_the_encoder_imports_clip(path: Path) -> None:
    assert "clip" not in set(imports(path)) or path.name in ("vision.py", "build.py", "classification.py")


def test_a_look_at_the_settings_loads_no_torch() -> None:
    script = "import sys, dvp.commands; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=ROOT).returncode == 0


def test_run_is_short_and_names_no_task_and_no_backbone() -> None:
    text = (ROOT / "run.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    code = text.replace(ast.get_docstring(ast.parse(text), clean=False), "").lower()
    assert not [name for name in (*TASKS, *BACKBONES) if name in code]


ROOT_FILES = {
    "__init__",
    "adapters",
    "build",
    "compressor",
    "config",
    "errors",
    "files",
    "images",
    "model",
    "module",
    "optim",
    "tasks",
    "vision",
}


def test_the_root_holds_what_everyone_meets_and_each_room_says_what_belongs_there() -> None:
    assert {path.stem for path in (ROOT / "dvp").glob("*.py")} == ROOT_FILES
    rooms = [path for path in (ROOT / "dvp").iterdir() if path.is_dir() and any(path.glob("*.py"))]
    assert not [room.name for room in rooms if not ast.get_docstring(ast.parse((room / "__init__.py").read_text()))]


@pytest.mark.parametrize("path", core(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_fit_in_a_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize("path", core(), ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_fit_on_a_screen(path: Path) -> None:
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    long = [f.name for f in functions if f.end_lineno - f.lineno >= 60 and f.name != "defaults"]  # the list of settings
    assert long == []
