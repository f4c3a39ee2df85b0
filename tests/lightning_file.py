"""Checkpoint files as Lightning 1.1.4 and the published code write them, without having either."""

import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from dvp.module import DVPModule
from dvp.published.classification import published_names

# OpenAI's names of CLIP's parts, from those of transformers
VISUAL = {
    "embeddings.class_embedding": "class_embedding", "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.patch_embedding.": "conv1.", "pre_layrnorm.": "ln_pre.", "post_layernorm.": "ln_post.",
    "encoder.layers.": "transformer.resblocks.", ".layer_norm": ".ln_", ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.", ".self_attn.": ".attn.",
}  # fmt: skip


@contextmanager
def gone_classes() -> Iterator[dict[str, type]]:
    """Classes of packages that are there in the `with` block only: what is pickled in it cannot be imported after."""
    places = {
        "ModelCheckpoint": "gone_lightning", "AttributeDict": "gone_lightning", "MiniVal": "gone_dvp",
        "ReadOnlyDict": "gone_sacred",
    }  # fmt: skip
    bases = {"AttributeDict": (dict,), "ReadOnlyDict": (dict,)}
    classes = {}
    for name, place in places.items():
        classes[name] = type(name, bases.get(name, ()), {"__module__": place})
        setattr(sys.modules.setdefault(place, ModuleType(place)), name, classes[name])
    # as Sacred's: the pickle calls the class with a plain copy
    classes["ReadOnlyDict"].__reduce__ = lambda self: (classes["ReadOnlyDict"], (dict(self),))
    try:
        yield classes
    finally:
        for place in set(places.values()):
            del sys.modules[place]


HYPER_PARAMETERS = {
    "config": lambda config, classes: {"config": config},
    "_config": lambda config, classes: {"_config": config},
    "flat": lambda config, classes: dict(config),
    "of Lightning's class": lambda config, classes: classes["AttributeDict"](config=config),
    "of Sacred's class": lambda config, classes: {"config": classes["ReadOnlyDict"](config)},
    "of both, flat": lambda config, classes: classes["AttributeDict"](classes["ReadOnlyDict"](config)),
}


def write_lightning(
    path: Path,
    state: Mapping[str, Tensor],
    config: Mapping[str, Any] | None,
    *,
    form: str = "of Sacred's class",
    zipped: bool = True,
    **more: Any,
) -> str:
    """Write what Lightning 1.1.4 saved after ten epochs: all that was pickled beside the weights, too."""
    with gone_classes() as classes:
        hyper_parameters = HYPER_PARAMETERS[form](config, classes) if config else {}
        if config and config.get("search_stage") and form != "flat":  # a search was given the set that scores its arms
            hyper_parameters["minival"] = mini_val = classes["MiniVal"]()
            mini_val.table, mini_val.rows = torch.arange(6).reshape(2, 3), [{"text": "is it red", "image": b"\x89PNG"}]
        kept = {
            "monitor": "val/the_metric",
            "best_model_score": torch.tensor(0.5),
            "best_model_path": "",
            "dirpath": "",
        }
        moments = {"step": 1000, "exp_avg": torch.zeros(3, dtype=torch.bfloat16), "exp_avg_sq": torch.zeros(3).half()}
        checkpoint = {
            "epoch": 10,
            "global_step": 1000,
            "pytorch-lightning_version": "1.1.4",
            "state_dict": OrderedDict(state),
            "callbacks": {classes["ModelCheckpoint"]: kept},
            "optimizer_states": [{"state": {0: moments}, "param_groups": [{"lr": 1e-4, "params": [0]}]}],
            "lr_schedulers": [{"base_lrs": [1e-4], "_step_count": 1001}],
            "hparams_name": "kwargs",
            "hyper_parameters": hyper_parameters,
        }
        checkpoint["state_dict"]._metadata = OrderedDict([("", {"version": 1})])
        torch.save(checkpoint | more, path, _use_new_zipfile_serialization=zipped)
    return str(path)


def published_state(module: DVPModule) -> dict[str, Tensor]:
    """The weights of a module under the published names, second names and unused ones left out."""
    search, parameters = module.bandit is not None, dict(module.model.named_parameters())
    names = published_names(module.model, module.task_name, search)
    state = {theirs: parameters[ours].detach() for ours, theirs in names.items()}
    vision = {name: tensor.detach() for name, tensor in module.model.vision.encoder.named_parameters()}
    for name, tensor in vision.items():
        if ".k_proj." in name or ".v_proj." in name:
            continue
        if ".q_proj." in name:
            tensor = torch.cat([vision[name.replace("q_proj", f"{part}_proj")] for part in "qkv"])
            name = name.replace("q_proj.", "in_proj_")
        name = name.removeprefix("vision_model.")
        for theirs, openai in VISUAL.items():
            name = name.replace(theirs, openai)
        state[f"visumodel.{name}"] = tensor
    if search:
        state["layer_alphas"] = module.bandit.preferences.float()
    return state
