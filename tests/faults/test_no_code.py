"""No code runs from data, whoever reads it: neither from files of settings nor from pickles. Unguarded it does."""

import json
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jsonpickle
import pytest
import torch
import yaml
from sacred.config.config_files import HANDLER_BY_EXT, Handler
from tiny_encoders import write_open_clip
from tiny_world import write_clip, write_language_model

import clip
from dvp.backbones import load_backbone
from dvp.commands import ex
from dvp.config import saved
from dvp.doctor.models import weight_shapes
from dvp.encoders.loading import load_encoder
from dvp.errors import UserError
from dvp.published.archive import Reader
from dvp.published.checkpoint import read_lightning
from dvp.published.scienceqa import read_published

EXPERIMENT = "dvp_search_bert_vqa"


class Code:
    """Unpickling it makes a folder."""

    def __init__(self, made: Path):
        self.made = str(made)

    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return os.mkdir, (self.made,)


class Way(NamedTuple):
    """How data comes in: what writes it into a folder, of which code would make the other, and returns what is given to
    `read`; and what takes the guard away.
    """

    write: Callable[[Path, Path], Path]
    read: Callable[[str], Any]
    off: Callable[[pytest.MonkeyPatch], None]


# Files of settings


def settings(name: str, content: str) -> Callable[[Path, Path], Path]:
    """Writes a file of settings, of which {made} is the folder that code would make."""

    def write(folder: Path, made: Path) -> Path:
        (folder / name).write_text(content.replace("{made}", str(made)))
        return folder / name

    return write


def pickled_settings(folder: Path, made: Path) -> Path:
    (folder / "evil.pickle").write_bytes(pickle.dumps({"seed": Code(made)}))
    return folder / "evil.pickle"


def typed(path: str) -> None:
    ex.run_commandline(["run.py", "print_config", "with", EXPERIMENT, path])


def past_the_command_line(path: str) -> None:
    with suppress(ValueError):  # Sacred's, of an ending that it does not know
        ex.run("print_config", named_configs=[path])


def restoring(ending: str, read: Callable[[str], Any]) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda monkeypatch: monkeypatch.setitem(saved.READERS, ending, read)


def sacreds_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HANDLER_BY_EXT, ".pickle", Handler(pickle.load, pickle.dump, "b"))


OBJECT = {"py/reduce": [{"py/function": "os.mkdir"}, {"py/tuple": ["{made}"]}]}

# Pickles


def archive(folder: Path, made: Path, name: str = "file.pt") -> Path:
    torch.save({"harm": Code(made), "state_dict": {"weight": torch.ones(2)}}, folder / name)
    return folder / name


def weights_of(write: Callable[[Path], None], name: str) -> Callable[[Path, Path], Path]:
    """Writes the folder of a model whose weights are such an archive."""

    def written(folder: Path, made: Path) -> Path:
        write(folder)
        for path in (*folder.glob("*.safetensors"), *folder.glob("*.bin")):
            path.unlink()
        archive(folder, made, name)
        return folder

    return written


def meta(folder: Path) -> None:
    write_language_model(folder, "llama")
    (folder / "config.json").unlink()
    (folder / "params.json").write_text(json.dumps({"n_heads": 4, "norm_eps": 1e-6}))


def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **options: load(*args, **options | {"weights_only": False}))


def finding_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Reader, "find_class")


def bert(folder: Path) -> None:
    write_language_model(folder, "bert")


WAYS = {
    "settings as JSON": Way(
        settings("evil.json", json.dumps({"seed": OBJECT})), typed, restoring(".json", jsonpickle.decode)
    ),
    "settings as YAML": Way(
        settings("evil.yaml", "seed: !!python/object/apply:os.mkdir ['{made}']"), typed,
        restoring(".yaml", yaml.unsafe_load),
    ),
    "settings as a pickle": Way(pickled_settings, past_the_command_line, sacreds_own),
    "OpenAI's archive": Way(archive, clip.load, trusting),
    "an image encoder": Way(weights_of(write_clip, "pytorch_model.bin"), load_encoder, trusting),
    "open_clip's folder": Way(
        weights_of(lambda folder: write_open_clip(folder, {}, {}, {}), "open_clip_pytorch_model.bin"), load_encoder,
        trusting,
    ),
    "a language model": Way(weights_of(bert, "pytorch_model.bin"), load_backbone, trusting),
    "a language model, by the doctor": Way(weights_of(bert, "pytorch_model.bin"), weight_shapes, trusting),
    "Meta's LLaMA": Way(weights_of(meta, "consolidated.00.pth"), load_backbone, trusting),
    "a published checkpoint": Way(archive, read_lightning, finding_classes),
    "ScienceQA's published checkpoint": Way(archive, read_published, finding_classes),
}  # fmt: skip


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_no_code_runs_from_data(way: str, guarded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, read, off = WAYS[way]
    (tmp_path / "data").mkdir()
    path = write(tmp_path / "data", tmp_path / "made")
    if not guarded:
        off(monkeypatch)
    with suppress(UserError, SystemExit) if guarded else suppress(Exception, SystemExit):  # code runs before that
        read(str(path))
    assert (tmp_path / "made").exists() != guarded
