"""What torch compiles lies with the results, and no empty folder is left anywhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from pathlib import Path
from dvp.runs.compiled import place_compiled
{guard}place_compiled(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
import torch._dynamo
"""


def left_by(tmp_path: Path, *words: str, guard: str = "") -> set[str]:
    """What a process that imports the compiler leaves, in its /tmp and in a run's folder."""
    (tmp_path / "tmp").mkdir(exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if key != "TORCHINDUCTOR_CACHE_DIR"}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT.format(guard=guard), *words]
    subprocess.run(command, cwd=ROOT, env=environment | {"TMPDIR": str(tmp_path / "tmp")}, check=True)
    return {path.name for path in tmp_path.rglob("*")} - {"tmp"}


@pytest.mark.parametrize("log_dir", [True, False])
def test_nothing_is_left_where_nothing_was_compiled(log_dir: bool, tmp_path: Path) -> None:
    (tmp_path / "result").mkdir()
    assert left_by(tmp_path, *([str(tmp_path / "result")] if log_dir else [])) == {"result"}


def test_without_that_an_empty_folder_is_left(tmp_path: Path) -> None:
    (name,) = left_by(tmp_path, guard="# ")
    assert name.startswith("torchinductor_")
