"""The settings: defaults with their meaning, the published experiments as a table, and the check before anything runs.

    python run.py with dvp_search_bert_vqa data_root=./datasets per_gpu_batchsize=256                    # find K
    python run.py with dvp_adaption_bert_vqa data_root=./datasets per_gpu_batchsize=256 insert_layer=K   # train
    python run.py print_config with dvp_search_t5_gqa shapes                                             # only look

Of two named configs the later wins, so `shapes` goes last; `key=value` beats both.
"""

import ast
import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sacred import SETTINGS, Experiment
from sacred.config import ConfigDict

from dvp.errors import UserError

SETTINGS.CAPTURE_MODE = "sys"  # the default's helper processes would wait for the ranks that Lightning starts
ex = Experiment("DVP", save_git_info=False)


@ex.config
def defaults():
    # The experiment
    exp_name = "DVP"  # names the folder of the run under log_dir
    seed = 0
    datasets = ["vqa"]  # vqa, gqa, snli_ve or scienceqa; a name or a list of one
    as_published = False  # True: the published code's arithmetic and protocol, quirks included
    search_stage = False  # True: search K; False: train at insert_layer
    test_only = False  # True: evaluate load_path and, for VQA and GQA, write its predictions
    test_split = "test"  # VQA: test (all questions, as the server wants) or test-dev

    # Where things lie
    data_root = ""  # folder of the Arrow files, see DATA.md
    log_dir = "./result"  # runs, searches, submissions
    load_path = ""  # checkpoint to test, or to start training from
    resume_from = None  # checkpoint to go on from: weights, optimiser, epoch, search

    # Image
    clip_model = "ViT-B/16"  # ViT-B/16, ViT-B/32, ViT-L/14, an archive of OpenAI's, or a Hugging Face folder
    image_size = 224  # pixels
    image_tokens = "auto"  # live: always; cache: once, before training; auto: once, meanwhile, if faster; zero: blind
    image_tokens_on = "host"  # host: fetched batch by batch; device: all held there (VQAv2 train and val: 37 GB)

    # Text
    language_model = "BERT"  # BERT, T5 or LLAMA; must be what the tokenizer folder holds
    tokenizer = "bert-base-uncased"  # tokenizer and weights: a Hugging Face folder or hub name
    max_text_len = 16  # tokens; ScienceQA: positions, with those of image and prefix
    bucket_by_length = False  # True: texts of like length share a batch, for less padding; ScienceQA: always
    prompt_format = "QCM-ALE"  # ScienceQA: what is read and written, see dvp/scienceqa/text.py
    use_caption = False  # ScienceQA: True puts the image's caption after the hint
    answer_by = "generate"  # ScienceQA's test: generate a text and read it, or take the letter of largest likelihood
    max_new_tokens = 64  # ScienceQA: tokens generated at most

    # Model
    insert_layer = 0  # K, from 0; auto: what the newest search of this model and task found
    use_adapter = False  # True: the language model stays frozen but for adapters and norms
    num_heads = 12  # heads of the compressor
    drop_rate = 0.1  # dropout on the compressor's attention map

    # Search
    kab = "published"  # the rule: published (a policy moved by sampled scores) or mean (scores all, ends when decided)
    search_sample = 5  # kab=published: arms scored after each update, or all: every arm once, about as cheap
    search_warmup_steps = 0  # updates before the first scores count

    # Optimiser
    optim_type = "adamw"  # adamw, adam or sgd
    learning_rate = 1e-4  # ScienceQA: for 256 rows per update; it shrinks with fewer
    lr_mult = 1  # the answer head's rate, in learning rates
    weight_decay = 0.01
    decay_power = 1  # power of the polynomial decay, or "cosine" or "constant"
    end_lr = 0
    max_epoch = 10  # counts when max_steps is None
    max_steps = 2500  # optimiser updates, or None
    warmup_steps = 0.1  # optimiser updates, or as a float their share
    val_check_interval = 1.0  # share of an epoch between validations

    # Devices
    num_gpus = 1  # per node; 0: the CPU
    num_nodes = 1
    cpu_processes = 1  # with num_gpus=0: gloo processes, to try what several devices do
    strategy = "auto"  # of Lightning: auto, ddp, fsdp, deepspeed_stage_2, ...
    precision = "auto"  # 16, 32, bf16 or auto: 32 on a CPU, bf16 where the GPU has it; else 32 for T5, 16 for others
    backbone_dtype = (
        "auto"  # of frozen weights: float32, bfloat16 or auto: bfloat16 for LLaMA where precision is 16 bit
    )
    quantize = None  # 8bit or 4bit: a frozen language model through bitsandbytes, on a GPU
    gradient_checkpointing = False  # True: layers are computed again in the backward pass; less memory, more time
    compile = False  # True: torch.compile the language model's layers and the image encoder
    num_workers = 8  # processes that load data, per device
    batch_size = 256  # rows per optimiser update, all devices and accumulation together
    per_gpu_batchsize = 0  # rows per device and pass; you choose what fits
    fast_dev_run = False  # True: one batch of everything

    # convert: raw data to Arrow files
    raw_root = ""  # folder of the raw data, see DATA.md
    min_answer_count = 9  # VQA: how often an answer must be the majority's to enter the vocabulary
    rest_val_images = 1000  # VQA: images of val that are held out of training
    allow_missing_images = False  # True: go on when more than 1 % of the images are missing

    # score, check_submission: the official evaluation
    task = "vqa"  # vqa or gqa
    predictions = ""  # JSON file of predictions
    annotations = ""  # JSON file of official annotations
    questions = ""  # JSON file of official questions


SEARCH = {"search_stage": True, "max_epoch": 2, "max_steps": None, "warmup_steps": 0, "decay_power": "constant"}
ADAPTION = {"max_steps": None}
VQA = {"lr_mult": 10}
GQA = {"datasets": ["gqa"], "lr_mult": 10}
SNLI_VE = {"datasets": ["snli_ve"]}
BERT: dict[str, Any] = {}
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
}
SCIENCE_QA_EXPERIMENTS = {
    "dvp_search_llama_sqa": (SEARCH, LLAMA, SCIENCE_QA, SCIENCE_QA_SEARCH),
    "dvp_adaption_llama_sqa": (ADAPTION, LLAMA, SCIENCE_QA),
}

SHAPES_MODELS = Path(__file__).parent / "shapes" / "models"  # wherever a command is run

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
# What it gives on top: to a search, which wants adapters, small batches and an early end; to adapters; to ScienceQA.
SHAPES_SEARCH = {
    "kab": "mean", "use_adapter": True, "batch_size": 32, "per_gpu_batchsize": 32, "max_epoch": 4, "learning_rate": 2e-3
}  # fmt: skip
SHAPES_ADAPTERS = {"learning_rate": 4e-3}
SHAPES_SCIENCE_QA = {"learning_rate": 1.6e-2, "warmup_steps": 0.1, "max_epoch": 2}
SHAPES_SCIENCE_QA_SEARCH = {"learning_rate": 3.2e-2}  # the same per row


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
    if science_qa:
        settings |= SHAPES_SCIENCE_QA | (SHAPES_SCIENCE_QA_SEARCH if search else {})
    return settings


for _name, _parts in (EXPERIMENTS | SCIENCE_QA_EXPERIMENTS).items():
    _merged: dict[str, Any] = {"exp_name": _name}
    for _part in _parts:
        _merged |= _part
    ex.add_named_config(_name, _merged)
    _stage = "Search K" if _merged.get("search_stage") else "Train at K"
    ex.named_configs[_name].__doc__ = f"{_stage}: {_merged.get('language_model', 'BERT')}, {_name.split('_', 3)[3]}."
ex.named_configs["shapes"] = Shapes()


def check_command_line(command: str | None, words: Sequence[str]) -> dict[str, Any]:
    """The `key=value` updates among the words after `with`; refuses unknown names and keys before anything is loaded.

    Raises UserError with the nearest right name.
    """
    if command:
        _known("command", command, list(ex.commands))
    settings = list(ex.configurations[0](preset={}))
    updates: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if equals:
            _known("setting", key, settings)
            updates[key] = _literal(value)
        elif not word.endswith((".json", ".yaml")):  # a saved config
            _known("experiment", word, list(ex.named_configs))
    return updates


def _known(kind: str, word: str, choices: list[str]) -> None:
    if word not in choices:
        nearest = difflib.get_close_matches(word, choices, 1, cutoff=0.4)
        hint = f"did you mean {nearest[0]}?" if nearest else "`python run.py help` lists what there is."
        raise UserError(f"There is no {kind} {word!r}: {hint}")


def _literal(value: str) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):  # a bare word is a string, as Sacred has it
        return value


def _one_of(*choices: Any) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value in choices, "one of " + ", ".join(map(str, choices))


def _number(low: float, what: str, kind: tuple[type, ...] = (int, float)) -> tuple[Callable[[Any], bool], str]:
    return lambda value: isinstance(value, kind) and not isinstance(value, bool) and value >= low, what


_COUNT = _number(1, "a number of at least 1", (int,))
_AMOUNT = _number(0, "a number of at least 0")
_FLAG = _one_of(True, False)

# What tasks.py, backbones/ and search/ hold; named here so that a look at the settings need not import torch.
TASK_NAMES = ("vqa", "gqa", "snli_ve", "scienceqa")
LANGUAGE_MODELS = ("BERT", "T5", "LLAMA")
SEARCH_RULES = ("published", "mean")

RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "datasets": _one_of(*TASK_NAMES),
    "language_model": _one_of(*LANGUAGE_MODELS),
    "optim_type": _one_of("adamw", "adam", "sgd"),
    "precision": _one_of("auto", "bf16", 16, 32),
    "image_tokens": _one_of("live", "cache", "auto", "zero"),
    "image_tokens_on": _one_of("host", "device"),
    "kab": _one_of(*SEARCH_RULES),
    "search_sample": (lambda v: v == "all" or isinstance(v, int) and v >= 1, "a number of at least 1, or all"),
    "backbone_dtype": _one_of("auto", "float32", "bfloat16"),
    "quantize": _one_of(None, "8bit", "4bit"),
    "test_split": _one_of("test", "test-dev"),
    "answer_by": _one_of("generate", "likelihood"),
    "insert_layer": (lambda v: v == "auto" or isinstance(v, int) and v >= 0, "a layer counted from 0, or auto"),
    "decay_power": (lambda v: v in ("cosine", "constant") or isinstance(v, int | float), "a power, cosine or constant"),
    "max_steps": (lambda v: v is None or isinstance(v, int) and v > 0, "a number of updates, or None"),
    "per_gpu_batchsize": _number(1, "the number of rows that fit on one device, at least 1", (int,)),
    **dict.fromkeys(("batch_size", "max_epoch", "num_nodes", "cpu_processes", "num_heads"), _COUNT),
    **dict.fromkeys(("image_size", "max_text_len", "max_new_tokens"), _COUNT),
    **dict.fromkeys(("num_gpus", "num_workers", "search_warmup_steps"), _number(0, "a number of at least 0", (int,))),
    **dict.fromkeys(("learning_rate", "lr_mult", "weight_decay", "end_lr", "warmup_steps", "drop_rate"), _AMOUNT),
    "val_check_interval": (lambda v: isinstance(v, float) and 0 < v <= 1, "a share of an epoch, such as 0.5 or 1.0"),
    **dict.fromkeys(("search_stage", "use_adapter", "test_only", "as_published", "fast_dev_run", "use_caption"), _FLAG),
    **dict.fromkeys(("gradient_checkpointing", "compile", "bucket_by_length"), _FLAG),
}


def one_task(datasets: str | Sequence[str]) -> str:
    """The one task that `datasets` names, itself or as a list of one."""
    names = [datasets] if isinstance(datasets, str) else list(datasets)
    if len(names) != 1:
        raise UserError(f"datasets={names} is wrong: a run takes one data set, {', '.join(TASK_NAMES)}.")
    return names[0]


def check(config: dict[str, Any]) -> dict[str, Any]:
    """The config of a run with `datasets` as one name and placeholders filled in; raises UserError at a wrong value."""
    config = config | {"datasets": one_task(config["datasets"])}
    config["tokenizer"] = str(config["tokenizer"]).replace("{language_model}", str(config["language_model"]).lower())
    for key, (holds, what) in RULES.items():
        if not holds(config[key]):
            raise UserError(f"{key}={config[key]!r} is wrong: it must be {what}.")
    devices = (config["num_gpus"] or config["cpu_processes"]) * config["num_nodes"]
    passes, left = divmod(config["batch_size"], config["per_gpu_batchsize"] * devices)
    if left or not passes:
        raise UserError(
            f"batch_size={config['batch_size']} is not a multiple of per_gpu_batchsize={config['per_gpu_batchsize']} x "
            f"{devices} device(s): change one so that the updates accumulate a whole number of passes."
        )
    if config["precision"] == 16 and config["language_model"] == "T5":
        raise UserError("precision=16 makes T5's activations overflow: use precision=bf16 or 32.")
    if config["precision"] == 16 and not config["num_gpus"]:
        raise UserError("precision=16 needs a GPU: on the CPU use precision=32 or bf16.")
    if not isinstance(config["decay_power"], str) and config["end_lr"] >= config["learning_rate"]:
        raise UserError(
            f"learning_rate={config['learning_rate']} cannot decay to end_lr={config['end_lr']}: make it larger, "
            "or take decay_power=constant."
        )
    if config["quantize"] and not (config["num_gpus"] and config["use_adapter"]):
        raise UserError(
            f"quantize={config['quantize']} needs a GPU and a frozen language model: add num_gpus=1 and "
            "use_adapter=True, or leave quantize out."
        )
    if config["test_only"] and not config["load_path"]:
        raise UserError("test_only=True needs load_path=<checkpoint>: say which checkpoint to test.")
    if config["resume_from"] and config["load_path"]:
        raise UserError("load_path and resume_from are both set: give the one to start from.")
    return config | {"accumulate": passes, "devices": devices}
