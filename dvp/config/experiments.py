"""The published experiments as a table of differences to the defaults, and the embedded world's settings."""

from collections import ChainMap
from pathlib import Path
from typing import Any

from sacred.config import ConfigDict

SEARCH = {"search_stage": True, "max_epoch": 2, "max_steps": None, "warmup_steps": 0, "decay_power": "constant"}
ADAPTION = {"search_stage": False, "max_steps": None}
VQA = {"datasets": ["vqa"], "lr_mult": 10}
GQA = {"datasets": ["gqa"], "lr_mult": 10}
SNLI_VE = {"datasets": ["snli_ve"]}
CUSTOM = {"datasets": ["custom"], "lr_mult": 10}
BERT = {"language_model": "BERT"}
T5 = {"language_model": "T5", "tokenizer": "t5-base", "learning_rate": 2e-4}
LLAMA = {
    "language_model": "LLAMA", "tokenizer": "./llama_7b_weights_hf", "num_heads": 16, "use_adapter": True,
    "weight_decay": 0.2, "lr_mult": 1,
}  # fmt: skip
LLAMA_SEARCH = {"search_sample": 10, "batch_size": 128}
SHORT = {"max_epoch": 5, "warmup_steps": 0.2}
SCIENCE_QA = {
    "datasets": ["scienceqa"], "clip_model": "ViT-L/14", "image_tokens": "live", "max_text_len": 512, "batch_size": 32,
    "learning_rate": 1e-2, "decay_power": "cosine", "max_epoch": 20, "weight_decay": 0.05, "warmup_steps": 0.1,
}  # fmt: skip
SCIENCE_QA_SEARCH = {"search_sample": 10, "max_epoch": 2, "weight_decay": 0.04, "warmup_steps": 0.5}

EXPERIMENTS: dict[str, tuple[dict[str, Any], ...]] = {
    "dvp_search_bert_vqa": (SEARCH, VQA, BERT),
    "dvp_search_bert_gqa": (SEARCH, GQA, BERT),
    "dvp_search_bert_snli_ve": (SEARCH, SNLI_VE, BERT, {"max_epoch": 1}),
    "dvp_search_t5_vqa": (SEARCH, VQA, T5),
    "dvp_search_t5_gqa": (SEARCH, GQA, T5),
    "dvp_search_t5_snli_ve": (SEARCH, SNLI_VE, T5, {"max_epoch": 1}),
    "dvp_search_llama_vqa": (SEARCH, VQA, LLAMA, LLAMA_SEARCH),
    "dvp_search_llama_gqa": (SEARCH, GQA, LLAMA, LLAMA_SEARCH),
    "dvp_search_llama_snli_ve": (SEARCH, SNLI_VE, LLAMA, LLAMA_SEARCH, {"batch_size": 64}),
    "dvp_adaption_bert_vqa": (ADAPTION, VQA, BERT),
    "dvp_adaption_bert_gqa": (ADAPTION, GQA, BERT),
    "dvp_adaption_bert_snli_ve": (ADAPTION, SNLI_VE, BERT, SHORT),
    "dvp_adaption_t5_vqa": (ADAPTION, VQA, T5),
    "dvp_adaption_t5_gqa": (ADAPTION, GQA, T5),
    "dvp_adaption_t5_snli_ve": (ADAPTION, SNLI_VE, T5, SHORT),
    "dvp_adaption_llama_vqa": (ADAPTION, VQA, LLAMA, {"learning_rate": 5e-4}),
    "dvp_adaption_llama_gqa": (ADAPTION, GQA, LLAMA, {"learning_rate": 5e-4}),
    "dvp_adaption_llama_snli_ve": (ADAPTION, SNLI_VE, LLAMA, {"learning_rate": 5e-4, "batch_size": 128}),
    # On data of one's own: VQA's settings
    "dvp_search_bert_custom": (SEARCH, CUSTOM, BERT),
    "dvp_search_t5_custom": (SEARCH, CUSTOM, T5),
    "dvp_search_llama_custom": (SEARCH, CUSTOM, LLAMA, LLAMA_SEARCH),
    "dvp_adaption_bert_custom": (ADAPTION, CUSTOM, BERT),
    "dvp_adaption_t5_custom": (ADAPTION, CUSTOM, T5),
    "dvp_adaption_llama_custom": (ADAPTION, CUSTOM, LLAMA, {"learning_rate": 5e-4}),
}
SCIENCE_QA_EXPERIMENTS = {
    "dvp_search_llama_sqa": (SEARCH, LLAMA, SCIENCE_QA, SCIENCE_QA_SEARCH),
    "dvp_adaption_llama_sqa": (ADAPTION, LLAMA, SCIENCE_QA),
}

SHAPES_MODELS = Path(__file__).parents[1] / "shapes" / "models"  # wherever a command is run

# Any experiment on the embedded world: tiny pre-trained models, CPU, small batches. {language_model} is filled in.
SHAPES = {
    "data_root": "./datasets/shapes",
    "clip_model": f"{SHAPES_MODELS}/clip",
    "tokenizer": f"{SHAPES_MODELS}/{{language_model}}",
    "image_size": 60,
    "num_heads": 4,
    "num_gpus": 0,
    "num_workers": 0,
    "batch_size": 64,
    "per_gpu_batchsize": 64,
    "learning_rate": 1e-3,
    "lr_mult": 1,
    "drop_rate": 0.0,
    "max_epoch": 3,
}

# What it gives on top: to a search, which wants adapters, small batches and an early end, and to VQA's; to adapters;
# to ScienceQA.
SHAPES_SEARCH = {
    "kab": "mean", "use_adapter": True, "batch_size": 32, "per_gpu_batchsize": 32, "max_epoch": 4, "learning_rate": 2e-3
}  # fmt: skip
SHAPES_VQA_SEARCH = {"learning_rate": 1e-3}  # at 2e-3 its arms stay blind for longer
SHAPES_ADAPTERS = {"learning_rate": 4e-3}
# At twice the rate some seeds stay blind.
SHAPES_SCIENCE_QA = {"learning_rate": 8e-3, "warmup_steps": 0.1, "max_epoch": 3}
SHAPES_SCIENCE_QA_SEARCH = {"learning_rate": 3.2e-2, "max_epoch": 4}


class Shapes:
    """Any experiment on the embedded world, on a laptop; goes last."""

    def __call__(
        self, fixed: dict[str, Any] | None = None, preset: dict[str, Any] | None = None, fallback: Any = None
    ) -> dict[str, Any]:
        """What Sacred asks a named config for; fixed: the command line, preset: the named configs before this one."""
        return ConfigDict(shapes_settings((preset or {}) | (fixed or {})))(fixed, preset, fallback)


def shapes_settings(chosen: dict[str, Any]) -> dict[str, Any]:
    """The settings that `shapes` adds to those that were chosen before it."""
    search, science_qa = chosen.get("search_stage", False), "scienceqa" in chosen.get("datasets", ())
    settings = SHAPES | (SHAPES_SEARCH if search else SHAPES_ADAPTERS if chosen.get("use_adapter") else {})
    if search and "vqa" in chosen.get("datasets", ()):
        settings |= SHAPES_VQA_SEARCH
    if science_qa:
        settings |= SHAPES_SCIENCE_QA | (SHAPES_SCIENCE_QA_SEARCH if search else {})
    return settings


_ALL = EXPERIMENTS | SCIENCE_QA_EXPERIMENTS
NAMED = {name: {"exp_name": name} | dict(ChainMap(*reversed(parts))) for name, parts in _ALL.items()}  # the later wins
# Those that there are; the table in tasks.py tells more of them.
TASK_NAMES = tuple(dict.fromkeys(settings["datasets"][0] for settings in NAMED.values()))


def search_of(config: dict[str, Any]) -> str:
    """The experiment that searches K on the task of a checked config; of its language model, if there is one."""
    searches = [name for name, one in NAMED.items() if one["search_stage"] and one["datasets"] == [config["datasets"]]]
    return max(searches, key=lambda name: NAMED[name]["language_model"] == config["language_model"])
