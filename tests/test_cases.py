"""Situations from public bug reports, rebuilt small: each a folder with a check that runs the project as users do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CASES = os.environ.get("DVP_CASES")
FOLDERS = sorted(path.parent for path in Path(CASES or ROOT / "nowhere").glob("*/*/run.sh"))
pytestmark = pytest.mark.skipif(not CASES, reason="DVP_CASES does not name the folder of the cases")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The embedded world where the cases look for it; drawn once, by whichever process comes first."""
    if (ROOT / "datasets" / "shapes" / "scienceqa_val.arrow").is_file():
        return
    lock = tmp_path_factory.getbasetemp().parent / "world.lock"
    script = (
        f"flock {lock} sh -c 'test -f datasets/shapes/scienceqa_val.arrow || {sys.executable} -W ignore run.py shapes'"
    )
    subprocess.run(script, cwd=ROOT, check=True, shell=True, capture_output=True)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_case_ends_right(folder: Path, world: None) -> None:
    environment = os.environ | {"DVP_PYTHON": sys.executable, "PY": sys.executable}
    run = subprocess.run(
        ["bash", folder / "run.sh", ROOT], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, f"{(folder / 'ABOUT').read_text()}\n{run.stdout[-3000:]}\n{run.stderr[-3000:]}"
