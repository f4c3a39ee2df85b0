"""Without a GPU a checkpoint is asked on the CPU, and this is said; what is typed, and a training, is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_world import picture

from dvp.commands import early

BERT = "dvp_adaption_bert_vqa"
SAID = "There is no GPU here: the CPU answers (num_gpus=0)."
REFUSED = "num_gpus=1 but this machine has 0"


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early, "_gpus_at_most", lambda: 0)


@pytest.fixture
def asking(checkpoint: Callable[..., Path], data_root: str, tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """The words that ask a checkpoint by a command, without a number of GPUs."""

    def make(command_name: str) -> dict[str, Any]:
        asked = {"load_path": checkpoint(BERT)}
        if command_name == "predict":
            (tmp_path / "a.png").write_bytes(picture(1))
            return asked | {"image": tmp_path / "a.png", "question": "is there a red circle"}
        return asked | {"data_root": data_root, "log_dir": tmp_path, "test_only": True, "num_workers": 0}

    return make


WORDS = pytest.mark.parametrize("words", [["predict", "with"], ["with"]], ids=["predict", "test"])


@WORDS
def test_the_cpu_answers_where_nothing_is_typed(words: list[str], asking, command, capsys) -> None:
    command(*words, **asking(words[0]))
    assert capsys.readouterr().err.count(SAID) == 1
    command(*words, **asking(words[0]), num_gpus=0)
    assert SAID not in capsys.readouterr().err


@WORDS
def test_a_gpu_that_is_typed_is_refused(words: list[str], asking, refused) -> None:
    error = refused(*words, **asking(words[0]), num_gpus=1)
    assert REFUSED in error and SAID not in error


def test_the_doctor_lists_it_among_other_faults(asking, command, capsys) -> None:
    with pytest.raises(SystemExit):
        command("doctor", "with", **asking("doctor") | {"data_root": "nowhere"}, num_gpus=1)
    faults = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("  fault")]
    assert faults == ["devices", "tables"]


def test_a_training_stays_refused(tiny, refused) -> None:
    settings = tiny(BERT)
    del settings["num_gpus"]
    assert REFUSED in refused("with", BERT, **settings)
