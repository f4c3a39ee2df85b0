"""The two scripts and the commands of the README."""

import re
import subprocess
from pathlib import Path

import pytest

import dvp.commands  # noqa: F401  registers the verbs
from dvp.config import check_command_line

FOLDER = Path(__file__).parents[2] / "Dynamic_Visual_Prompting_For_SQA"
README = (FOLDER / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
COMMANDS = re.findall(r"^    python run\.py ([^#\n]*)", README, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_readme_are_known(command):
    before, _, words = command.partition("with ")
    assert check_command_line(before.strip() or None, words.replace("=K", "=5").split())


@pytest.mark.parametrize("script, stage", [("search_sqa_7b.sh", "search"), ("finetuning_sqa_7b.sh", "adaption")])
def test_scripts_call_run(script, stage, tmp_path):
    options = {
        "cwd": tmp_path,
        "env": {"PYTHON": "echo", "PATH": "/usr/bin:/bin"},
        "capture_output": True,
        "text": True,
    }
    words = subprocess.run([FOLDER / "scripts" / script, "seed=1"], check=True, **options).stdout.split()
    assert words[:3] == ["run.py", "with", f"dvp_{stage}_llama_sqa"]
    assert check_command_line(None, words[2:])["seed"] == 1
