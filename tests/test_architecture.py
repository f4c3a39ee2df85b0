"""The rooms of the code: which way the arrows go between them, that the idea stands once, and that files stay small."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dvp.backbones import BACKBONES
from dvp.tasks import TASKS

ROOT = Path(__file__).parents[1]
ROOT_FILES = {
    "__init__", "build", "compressor", "counting", "errors", "families", "files", "images", "model", "module", "optim",
    "tasks", "vision",
}  # fmt: skip

# Room -> what it must not know. A room is a file or folder of dvp/, or a folder beside it; other names are packages.
STEERING = {"dvp.config", "dvp.build", "dvp.commands", "dvp.answering", "sacred", "run", "demos"}
TOP = STEERING | {"dvp.module", "dvp.kinds", "dvp.published", "dvp.runs", "dvp.report"}
IMAGES = {"clip", "PIL", "dvp.encoders", "dvp.vision", "dvp.compressor", "dvp.data"}
METHOD = {"dvp.model", "dvp.backbones", "dvp.adapters"}
MUST_NOT_KNOW = {
    "families": TOP | IMAGES | METHOD | {"dvp.tasks", "dvp.search", "torch", "transformers"},
    "backbones": TOP | IMAGES | {"dvp.tasks", "dvp.search", "dvp.model", "dvp.adapters", "dvp.scienceqa"},
    "adapters": TOP | IMAGES | {"dvp.tasks", "dvp.search", "dvp.model", "dvp.backbones", "transformers"},
    "vision": TOP | METHOD | {"dvp.tasks", "dvp.search", "dvp.data"},
    "encoders": TOP | METHOD | {"dvp.tasks", "dvp.search", "dvp.data", "dvp.vision", "dvp.compressor"},
    "compressor": TOP | {"clip", "PIL", "dvp.data", "dvp.tasks", "dvp.search", "dvp.model", "transformers"},
    "search": TOP | IMAGES | METHOD | {"dvp.tasks", "transformers"},
    "tasks": TOP | IMAGES | METHOD | {"dvp.search", "transformers"},
    "optim": TOP | IMAGES | METHOD | {"dvp.tasks", "dvp.search"},
    "checkpoints": TOP | IMAGES | METHOD | {"dvp.tasks", "dvp.search"},
    "evaluation": TOP | IMAGES | METHOD | {"dvp.tasks", "dvp.search", "dvp.prepare"},
    "cpu": TOP | IMAGES | METHOD | {"dvp.tasks", "dvp.search", "transformers"},
    "data": TOP | {"clip", "dvp.vision", "dvp.compressor", "dvp.search", "dvp.model", "dvp.backbones"},
    "manifest": TOP | IMAGES | METHOD | {"dvp.tasks", "dvp.search", "dvp.prepare", "torch", "pyarrow"},
    "model": TOP | {"clip", "PIL", "dvp.data", "dvp.tasks", "dvp.search", "dvp.optim", "dvp.checkpoints"},
    "module": STEERING | {"clip", "PIL", "dvp.data", "dvp.backbones", "dvp.scienceqa", "dvp.kinds", "transformers"},
    "scienceqa": TOP | {"clip"},
    "kinds": STEERING,
    "published": STEERING | {"dvp.kinds"},
    "prepare": TOP | METHOD | {"torch", "clip", "dvp.vision", "dvp.compressor", "dvp.search"},
    "shapes": {"run", "demos", "dvp.build", "dvp.module", "dvp.commands", "dvp.answering"},
    "build": {"run", "demos", "dvp.commands", "dvp.scienceqa", "dvp.answering"},
    "answering": {"run", "demos", "dvp.commands", "dvp.search", "dvp.optim", "dvp.report", "dvp.prepare"},
    "page": {"run", "demos", "dvp.commands", "dvp.config", "dvp.build", "dvp.module", "dvp.search", "dvp.prepare"},
    "sweep": {"run", "demos", "dvp.commands"},
    "doctor": {"run", "demos", "dvp.commands", "dvp.answering", "dvp.page", "dvp.prepare"},
    "sharing": {"run", "demos", "dvp.commands", "dvp.answering", "dvp.module", "dvp.optim", "dvp.prepare"},
    "commands": {"run", "demos"},
    "runs": STEERING | METHOD | {"PIL", "dvp.module", "dvp.published", "dvp.search", "dvp.report"},
    "config": {
        "torch",
        "transformers",
        "clip",
        "dvp.build",
        "dvp.module",
        "dvp.tasks",
        "dvp.backbones",
        "dvp.answering",
    },
}


def sources(room: str) -> list[Path]:
    """The files of a room."""
    folder = ROOT / "dvp" / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def code() -> list[Path]:
    """All files of the packages."""
    return sorted([*(ROOT / "dvp").rglob("*.py"), *(ROOT / "clip").rglob("*.py"), *(ROOT / "demos").rglob("*.py")])


FILES = pytest.mark.parametrize("path", code(), ids=lambda path: str(path.relative_to(ROOT)))


def tree(path: Path) -> ast.Module:
    """The parsed file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, and all that they lie in: dvp.data.arrow gives dvp.data too."""
    for node in ast.walk(tree(path)):
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


def rows() -> dict[str, int]:
    """The rooms in the table of CONTRIBUTING.md, as dotted names with the number of their row."""
    table = re.findall(r"^\| (`\S.*?) \| ", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    found: dict[str, int] = {}
    for number, names in enumerate(row for row in table if not row.startswith("`DVP")):
        for name in re.findall(r"`(.+?)`", names):
            place = name if (ROOT / name).exists() else f"dvp/{name}"
            found[place.rstrip("/").removesuffix(".py").replace("/", ".")] = number
    return found


ROWS = rows()


@pytest.mark.parametrize("room", ROWS)
def test_the_table_of_rooms_goes_downwards(room: str) -> None:
    path = ROOT / room.replace(".", "/")
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    known = {name for file in files for name in imports(file)}
    assert files and not [name for name in known if ROWS.get(name, ROWS[room]) < ROWS[room]]


def test_the_root_holds_what_everyone_meets_and_each_room_says_what_belongs_there() -> None:
    assert {path.stem for path in (ROOT / "dvp").glob("*.py")} == ROOT_FILES
    rooms = [path for path in (ROOT / "dvp").iterdir() if path.is_dir() and any(path.glob("*.py"))]
    assert not [room.name for room in rooms if not ast.get_docstring(tree(room / "__init__.py"))]
    assert not {room.name for room in rooms} - {key.split("/")[0] for key in MUST_NOT_KNOW} - {"report"}


@pytest.mark.parametrize("folder", sorted({path.parent for path in (ROOT / "tests").rglob("test_*.py")}), ids=str)
def test_the_tests_mirror_the_tree(folder: Path) -> None:
    room = folder.relative_to(ROOT / "tests")
    # faults: promises of whole runs, whatever breaks; browser: the page as a person sees it
    whole = {Path(), Path("faults"), Path("browser")}
    assert room in whole or any((place / room).is_dir() for place in (ROOT, ROOT / "dvp"))


# The idea stands once


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    """The functions and methods of a file."""
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef))


def callers(called: str) -> list[str]:
    """Where a method of this name is called, as file:function."""
    pattern = re.compile(rf"\.{called}\(")
    return [
        f"{path.relative_to(ROOT)}:{function.name}"
        for path in code()
        for function in functions(path)
        if pattern.search(ast.unparse(ast.Module(function.body, [])))
    ]


def test_there_is_one_loop_over_the_layers_one_insertion_and_one_look_at_the_picture() -> None:
    assert callers("run_layer") == ["dvp/model.py:run"]
    assert callers("put_in") == ["dvp/compressor.py:insert", "dvp/model.py:forward_arms"]
    assert callers("vision") == ["dvp/model.py:embed"]
    assert [place for place in callers("branch_off") if place != "dvp/model.py:forward_arms"] == []


def test_there_is_one_lightning_module_one_data_module_and_one_of_each_hook() -> None:
    hooks = ("configure_optimizers", "training_step", "optimizer_step", "score_arms", "_evaluate", "describe")
    found = {hook: [path.name for path in code() for one in functions(path) if one.name == hook] for hook in hooks}
    assert found == dict.fromkeys(hooks, ["module.py"])
    bases = [
        (path.name, ast.unparse(base))
        for path in code()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef)
        for base in node.bases
    ]
    assert [name for name, base in bases if base.endswith("LightningModule")] == ["module.py"]
    assert [name for name, base in bases if base.endswith("LightningDataModule")] == ["datamodule.py"]
    assert [name for name, base in bases if base == "DVPModule"] == []


@FILES
def test_no_file_asks_which_task_it_is(path: Path) -> None:
    if path.name == "older.py":  # it knows what old files hold
        return
    text = path.read_text(encoding="utf-8")
    assert not re.search(rf"(task|datasets)\S* (==|!=|in) [\"'(]+({'|'.join(TASKS)})", text)


@FILES
def test_clip_is_for_users_alone(path: Path) -> None:
    assert "clip" not in set(imports(path)) or path.parent.name == "clip"


def test_a_look_at_the_settings_loads_no_torch() -> None:
    script = "import sys, dvp.commands; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=ROOT).returncode == 0


def test_run_is_short_and_names_no_task_and_no_backbone() -> None:
    text = (ROOT / "run.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    rest = text.replace(ast.get_docstring(ast.parse(text), clean=False), "").lower()
    assert not [name for name in (*TASKS, *BACKBONES) if name in rest]


@FILES
def test_files_fit_in_a_sitting_and_functions_on_a_screen(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
    long = [f.name for f in functions(path) if f.end_lineno - f.lineno >= 60 and f.name != "defaults"]
    assert long == []  # but for the list of settings
