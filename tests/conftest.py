"""Tiny random models and data as folders, and the command line run in this process."""

import os
import socket

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the network; read at import

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_world import MODELS, PIXELS, SENTENCES, SPLITS, fit, write_clip, write_data, write_language_model
from torch import nn

from dvp.backbones import BACKBONES, load_backbone
from dvp.files import write_checksums
from dvp.search import KArmedBandit


@pytest.fixture(scope="session")
def make_language_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Makes a random model of MODELS with its tokenizer, `changes` going into its config.json; returns the folder."""

    def make(model: str, **changes: Any) -> str:
        folder = tmp_path_factory.mktemp(model.replace(" ", "-"))
        write_language_model(folder, model, **changes)
        return str(folder)

    return make


@pytest.fixture(scope="session")
def language_models(make_language_model: Callable[..., str]) -> dict[str, str]:
    """The folder of a tiny language model per name in MODELS, made when it is asked for."""

    class Made(dict):
        def __missing__(self, model: str) -> str:
            self[model] = make_language_model(model)
            return self[model]

    return Made()


@pytest.fixture(scope="session")
def settings_of(language_models: dict[str, str]) -> Callable[[str], dict[str, str]]:
    """Makes the settings that put a model of MODELS in the place of an experiment's own."""
    return lambda model: {"tokenizer": language_models[model], "language_model": MODELS[model][0].upper()}


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny CLIP."""
    folder = tmp_path_factory.mktemp("clip")
    write_clip(folder)
    return str(folder)


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the tables of all tasks."""
    folder = tmp_path_factory.mktemp("data")
    for task in SPLITS:
        write_data(folder, task)
    return str(folder)


# Runs


@pytest.fixture
def tiny(data_root: str, clip_folder: str, language_models: dict[str, str], tmp_path: Path) -> Callable[..., dict]:
    """The settings that turn an experiment into one of half a second on the tiny folders, with `changes`.

    Without a report, and without counted operations of a search, which take as long as all the rest.
    """

    def make(experiment: str, **changes: Any) -> dict[str, Any]:
        return {
            "data_root": data_root, "clip_model": clip_folder, "tokenizer": language_models[experiment.split("_")[2]],
            "log_dir": str(tmp_path / "result"), "image_size": PIXELS, "num_heads": 4, "num_gpus": 0, "num_workers": 0,
            "batch_size": 8, "per_gpu_batchsize": 4, "max_steps": 2, "image_tokens": "live",
            "report": False,
        } | changes  # fmt: skip

    return make


@pytest.fixture
def command() -> Callable[..., None]:
    """Runs `python run.py <words> key=value ...` in this process; SystemExit where it would end with an exit code."""
    import run

    def call(*words: str, **settings: Any) -> None:
        run.ex.observers.clear()
        run.ex.run_commandline(["run.py", *words, *(f"{key}={value}" for key, value in settings.items())])

    yield call
    run.ex.observers.clear()


@pytest.fixture
def refused(command: Callable[..., None], capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Runs a command that has to be refused with a sentence and without a traceback; returns the sentence."""

    def call(*words: str, **settings: Any) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            command(*words, **settings)
        error = capsys.readouterr().err
        assert exit_.value.code not in (0, None)
        assert "Traceback" not in error
        return error

    return call


@pytest.fixture
def free_port() -> int:
    """A port of this machine at which nothing is served."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


# Checkpoints


@pytest.fixture(scope="session")
def science(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """ScienceQA's tables, and the settings of its tiny models."""
    import sqa_worlds

    from dvp.prepare import convert

    root = tmp_path_factory.mktemp("science")
    sqa_worlds.write_raw(root, {"train": 8, "val": 2, "test": 9})
    convert("scienceqa", str(root), str(root / "arrow"))
    clip, llama = map(str, sqa_worlds.write_models(root))
    sizes = {"image_size": 32, "max_text_len": 64, "data_root": str(root / "arrow")}
    return root / "arrow", {"clip_model": clip, "tokenizer": llama} | sizes


@pytest.fixture(scope="session")
def checkpoint(
    data_root: str, clip_folder: str, language_models: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Makes, once, the checkpoint of an experiment with `changes`: an update, and a head whose answers differ."""
    made: dict[str, Path] = {}

    def make(experiment: str, **changes: Any) -> Path:
        key = f"{experiment} {sorted(changes.items())}"
        if key not in made:
            from dvp.config import check, ex

            settings = ex.settings | ex.named_configs[experiment]() | {
                "data_root": data_root, "clip_model": clip_folder, "image_size": PIXELS, "insert_layer": 1,
                "tokenizer": language_models[experiment.split("_")[2]], "num_heads": 4, "num_gpus": 0,
                "num_workers": 0, "batch_size": 8, "per_gpu_batchsize": 4, "max_steps": 1, "image_tokens": "live",
                "log_dir": str(tmp_path_factory.mktemp("trained")),
            } | changes  # fmt: skip
            (made[key],) = Path(fit(check(settings)).log_dir).rglob("last.ckpt")
            _mix(made[key])
        return made[key]

    return make


def _mix(folder: Path) -> None:
    """Draw the answer head of a checkpoint anew, so large that the answers differ."""
    weights = load_file(folder / "weights.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name, tensor in weights.items():
        if ".head." in name or ".compressors." in name:
            weights[name] = torch.randn(tensor.shape, generator=generator)
    save_file(weights, folder / "weights.safetensors")
    write_checksums(folder)


# Settings and models


@pytest.fixture
def arm_one_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that begins with what a longer search would find."""
    began = KArmedBandit.__init__

    def begin(bandit: KArmedBandit, *args: Any, **options: Any) -> None:
        began(bandit, *args, **options)
        bandit.preferences[1] = 9.0
        bandit.counts += 9

    monkeypatch.setattr(KArmedBandit, "__init__", begin)


@pytest.fixture
def configure(tiny: Callable[..., dict]) -> Callable[..., dict[str, Any]]:
    """The checked config of an experiment on the tiny folders, with `changes`, answers kept, which no `fit` draws."""
    from dvp.config import check, ex

    def make(experiment: str, **changes: Any) -> dict[str, Any]:
        named = ex.named_configs[experiment]()
        return check(
            dict(ex.configurations[0](preset={})) | dict(named) | tiny(experiment, **{"report": True} | changes)
        )

    return make


@pytest.fixture
def real_data() -> Callable[[], Path]:
    """The folder of the small real data; skips where it is not at hand."""

    def find() -> Path:
        if "DVP_REAL_DATA" not in os.environ:
            pytest.skip("DVP_REAL_DATA does not name the folder of the small real data")
        return Path(os.environ["DVP_REAL_DATA"])

    return find


@pytest.fixture
def make_dvp(language_models: dict[str, str], clip_folder: str) -> Callable[..., nn.Module]:
    """Makes a DVP model of one of MODELS with 7 answers, in training mode; its vision takes 16 x 16 pixels."""
    from dvp.encoders.loading import load_encoder
    from dvp.model import DVP, adapt_language_model
    from dvp.vision import Vision

    def make(language_model: str, use_adapter: bool | str = False, **options: Any) -> nn.Module:
        torch.manual_seed(1)
        vision = Vision(load_encoder(clip_folder))
        model = DVP(
            vision, vision.width, load_backbone(language_models[language_model]), 7, **{"num_heads": 4} | options
        )
        if use_adapter:
            adapt_language_model(model.backbone, kind=use_adapter)
        return model

    return make


@pytest.fixture
def batch_of(language_models: dict[str, str]) -> Callable[[str], dict[str, torch.Tensor]]:
    """Makes a batch of three questions, tokenised for one of MODELS, with random pictures."""

    def make(model: str) -> dict[str, torch.Tensor]:
        tokenizer = BACKBONES[MODELS[model][0]].tokenizer(language_models[model])
        text = tokenizer(SENTENCES[:3], padding="max_length", max_length=16, truncation=True, return_tensors="pt")
        pixels = torch.randn(3, 3, PIXELS, PIXELS, generator=torch.Generator().manual_seed(2))
        return {"input_ids": text["input_ids"], "attention_mask": text["attention_mask"], "pixel_values": pixels}

    return make
