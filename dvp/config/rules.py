"""The rules: what each setting may be by itself (RULES), and what a run makes of all of them (check)."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from dvp.config.contradictions import contradictions
from dvp.config.experiments import TASK_NAMES
from dvp.config.near import MANY, near
from dvp.config.targets import WORDS, is_targets, targets_in
from dvp.errors import UserError
from dvp.families import LANGUAGE_MODELS, tokenizer_of
from dvp.scienceqa.text import FORMATS


class Rule(NamedTuple):
    """Whether a value may stand, and how a message goes on after "it must be"."""

    holds: Callable[[Any], bool]
    what: str


REPOSITORY = r"\w[\w.-]*/\w[\w.-]*"
MINUTES = r"(?!0+(\.0*)?\b)\d{1,6}(\.\d{1,6})? minutes?"
LOGGERS = ("wandb", "mlflow", "trackio")  # those of runs/loggers.py, which loads torch
PEFT = ("lora", "dora", "ia3")  # with True and frozen those of adapters/, which loads torch
SEARCH_RULES = ("published", "mean")  # those of search/, which loads torch
# Of Lightning's, those that one program per device can be trained with.
STRATEGIES = (
    "auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false", "fsdp",
    "deepspeed", "deepspeed_stage_1", "deepspeed_stage_2", "deepspeed_stage_2_offload", "deepspeed_stage_3",
    "deepspeed_stage_3_offload",
)  # fmt: skip


def _one_of(*choices: Any) -> Rule:
    # By type, too: True is 1 and 16.0 is 16 to Python, but not to what reads the setting.
    allowed = {(type(choice), choice) for choice in choices}
    plain = (str, int, float, bool, type(None))
    return Rule(
        lambda value: isinstance(value, plain) and (type(value), value) in allowed,
        "one of " + ", ".join(map(str, choices)),
    )


def _whole(low: int, high: int = MANY, what: str = "") -> Rule:
    upto = f"of at least {low}" if high == MANY else f"from {low} to {high}"
    return Rule(lambda value: type(value) is int and low <= value <= high, what or f"a whole number {upto}")


def _number(high: int, what: str = "") -> Rule:
    def holds(value: Any) -> bool:
        return type(value) in (int, float) and 0 <= value <= high  # NaN is in no range

    return Rule(holds, what or f"a number from 0 to {high}")


def _or(rule: Rule, *words: Any) -> Rule:
    others = _one_of(*words)
    listed = ", ".join(map(str, words[:-1])) + (" or " if words[1:] else "") + str(words[-1])
    return Rule(lambda value: rule.holds(value) or others.holds(value), f"{rule.what}, or {listed}")


def _is_path(value: Any) -> bool:
    if type(value) is int:  # a folder may be named 2014
        return 0 <= value <= MANY
    return type(value) is str and "\0" not in value


def _is_name(value: Any) -> bool:
    return _is_path(value) and str(value) not in ("", ".", "..") and not set("/\\") & set(str(value))


def _is_task(value: Any) -> bool:
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return isinstance(value, str) and value in TASK_NAMES


def _many(rule: Rule, plural: str, *words: Any) -> Rule:
    """One of what the rule takes, or several of them, none twice."""

    def holds(value: Any) -> bool:
        values = value if isinstance(value, list | tuple) else [value]
        return bool(values) and all(map(rule.holds, values)) and len(set(values)) == len(values)

    several = Rule(holds, f"{rule.what}, or several {plural}")
    return _or(several, *words) if words else several


_COUNT, _FROM_0 = _whole(1), _whole(0)
_FLAG = _one_of(True, False)
_NAME = Rule(_is_name, "a name for a folder, without slashes")
_PATH = Rule(lambda value: _is_path(value) and value != "", "a path or a name")
_ANY_PATH = Rule(_is_path, "a path, or empty")
_NO_PATH = Rule(lambda value: value is None or _is_path(value), "a path, or None")
_TEXT = Rule(lambda value: type(value) is str or _is_path(value), "a text")
_RATE = _number(1_000_000)
_SHARE = Rule(lambda value: _RATE.holds(value) and value < 1, "a share from 0 to below 1")

RULES: dict[str, Rule] = {
    "exp_name": _NAME,
    "seed": _whole(0, 2**32 - 1),
    "datasets": Rule(_is_task, f"one of {', '.join(TASK_NAMES)}; a run takes one data set"),
    "test_split": _one_of("test", "test-dev"),
    **dict.fromkeys(("log_dir", "clip_model", "tokenizer"), _PATH),
    **dict.fromkeys(("data_root", "raw_root", "predictions", "annotations", "questions"), _ANY_PATH),
    **dict.fromkeys(("image", "ask_from", "to", "heatmap"), _ANY_PATH),
    **dict.fromkeys(("question", "choices", "hint"), _TEXT),
    **dict.fromkeys(("json", "merge", "with_base", "overwrite", "private"), _FLAG),
    "push_to": Rule(
        lambda value: value == "" or type(value) is str and bool(re.fullmatch(REPOSITORY, value)),
        "the name of a repository on the hub, as in push_to=user/name",
    ),
    "license": Rule(
        lambda value: type(value) is str and bool(re.fullmatch("[a-z0-9][a-z0-9.-]*", value)),
        "a licence as the hub names it, such as apache-2.0, mit or other",
    ),
    "host": Rule(lambda value: type(value) is str and _is_name(value), "an address of this machine, such as 127.0.0.1"),
    "port": _whole(1, 65535),
    **dict.fromkeys(("load_path", "resume_from"), _NO_PATH),
    **dict.fromkeys(("as_published", "search_stage", "test_only", "fast_dev_run", "report"), _FLAG),
    **dict.fromkeys(("bucket_by_length", "use_caption", "gradient_checkpointing", "compile", "turn_pictures"), _FLAG),
    "allow_missing_images": _FLAG,
    "image_tokens": _one_of("live", "cache", "auto", "zero"),
    "image_tokens_on": _one_of("host", "device"),
    "language_model": _one_of(*LANGUAGE_MODELS),
    # [CLS] and [SEP], or <s> and </s>, would fill a text of two
    "max_text_len": _whole(3, MANY, "a number of tokens, at least 3: one beside those that begin and end a text"),
    "prompt_format": _one_of(*FORMATS),
    "logger": _one_of(None, *LOGGERS),
    "answer_by": _one_of("generate", "likelihood"),
    "save_every": Rule(
        lambda value: _COUNT.holds(value) or isinstance(value, str) and bool(re.fullmatch(MINUTES, value)),
        'a number of updates, at least 1, or minutes, as in save_every="10 minutes"',
    ),
    "start_from": _one_of(None, "search"),
    "layers": _many(_whole(0, MANY, "a layer counted from 0"), "as in layers=1,2", "all"),
    "seeds": _many(_whole(0, 2**32 - 1), "as in seeds=0,1,2"),
    "metric": _one_of("score", "speed"),
    "runs": _or(_many(_PATH, "as in runs=result/a_seed0,result/b_seed0"), ""),
    "level": _or(_number(100, "a score in percent, from 0 to 100"), None),
    "insert_layer": _many(_whole(0, MANY, "a layer counted from 0"), "as in insert_layer=[1,2]", "auto"),
    **dict.fromkeys(("drop_rate", "lora_dropout"), _SHARE),
    # prefix is refused with the reason.
    "use_adapter": _one_of(True, False, *PEFT, "frozen", "prefix")._replace(
        what=_one_of(True, False, *PEFT, "frozen").what
    ),
    "adapter_targets": _many(Rule(is_targets, "ends of modules' names"), "as in q_proj,v_proj", *WORDS),
    "lora_alpha": Rule(lambda value: _RATE.holds(value) and value > 0, "a number above 0"),
    "search_sample": _or(_COUNT, "all"),
    "kab": _one_of(*SEARCH_RULES),
    "optim_type": _one_of("adamw", "adam", "sgd"),
    **dict.fromkeys(("learning_rate", "lr_mult", "weight_decay", "end_lr"), _RATE),
    "decay_power": _or(_number(100, "a power from 0 to 100"), "cosine", "constant"),
    "max_steps": _or(_whole(1, MANY, "a number of updates, at least 1"), None),
    "warmup_steps": Rule(
        lambda value: _FROM_0.holds(value) or type(value) is float and 0 <= value <= 1,
        "a whole number of updates, or as a float their share from 0.0 to 1.0",
    ),
    "val_check_interval": Rule(
        lambda value: type(value) is float and 0 < value <= 1, "a share of an epoch, such as 0.5 or 1.0"
    ),
    **dict.fromkeys(("image_size", "prompt_tokens", "max_new_tokens", "num_heads", "max_epoch"), _COUNT),
    **dict.fromkeys(("batch_size", "top", "adapter_rank"), _COUNT),
    **dict.fromkeys(("per_gpu_batchsize", "search_warmup_steps", "rest_val_images"), _FROM_0),
    "min_answer_count": _COUNT,
    **dict.fromkeys(("num_nodes", "cpu_processes"), _whole(1, 1024)),
    **dict.fromkeys(("num_gpus", "num_workers"), _whole(0, 1024)),
    "strategy": _one_of(*STRATEGIES),
    "precision": _one_of("auto", "bf16", 16, 32),
    "backbone_dtype": _one_of("auto", "float32", "bfloat16"),
    "quantize": _one_of(None, "8bit", "4bit"),
    "task": _one_of("vqa", "gqa", "scienceqa"),
}

# Settings that are words, not values: raw_root=2014 is a folder.
PATHS = frozenset(key for key, rule in RULES.items() if rule in (_PATH, _ANY_PATH, _NO_PATH))
TEXTS = PATHS | {key for key, rule in RULES.items() if rule in (_NAME, _TEXT)}
SENTENCES = frozenset(key for key, rule in RULES.items() if rule is _TEXT)  # of several words, mostly


def check_value(key: str, value: Any, source: str = "") -> None:
    """Raise UserError, with a nearby value that would do, where a value, of the file `source`, breaks its rule."""
    rule = RULES[key]
    if not rule.holds(value):
        hint = next((f" (write {other!r})" for other in near(value) if rule.holds(other)), "")
        where = f" in {source}" if source else ""
        raise UserError(f"{key}={value!r}{where} is wrong: it must be {rule.what}{hint}.")


def check_values(config: Mapping[str, Any]) -> None:
    """Raise UserError where a setting breaks its rule."""
    for key in RULES:
        check_value(key, config[key])


def one_task(datasets: str | Sequence[str]) -> str:
    """The one task that `datasets`, of which its rule holds, names, itself or as a list of one."""
    return datasets if isinstance(datasets, str) else datasets[0]


def check(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a run with `datasets` as one name and placeholders filled in; raises UserError at a wrong value."""
    config = fill(config)
    testing = config["test_only"] and config["per_gpu_batchsize"]  # without updates
    passes = 1 if testing else passes_of(config)
    for sentence in contradictions(config):
        raise UserError(sentence)
    return config | {"accumulate": passes}


def fill(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with `datasets` as one name, placeholders filled in and `devices` counted; raises UserError at a wrong
    value, but for what values must be to each other.
    """
    check_values(config)
    config = dict(config) | {key: str(config[key]) for key in TEXTS if config[key] is not None}
    config |= {key: os.path.expanduser(config[key]) for key in PATHS if config[key] is not None}
    config["datasets"] = one_task(config["datasets"])
    if isinstance(layers := config["insert_layer"], list | tuple):
        config["insert_layer"] = sorted(layers) if layers[1:] else layers[0]
    config["load_path"], config["resume_from"] = config["load_path"] or "", config["resume_from"] or None
    config["adapter_targets"] = targets_in(config["adapter_targets"])
    config["tokenizer"] = tokenizer_of(config["tokenizer"], config["language_model"])
    return config | {"devices": (config["num_gpus"] or config["cpu_processes"]) * config["num_nodes"]}


def passes_of(config: dict[str, Any]) -> int:
    """Passes per update on each device of a filled config; raises UserError where the rows cannot be split so."""
    batch_size, per_gpu_batchsize, devices = (config[key] for key in ("batch_size", "per_gpu_batchsize", "devices"))
    if not per_gpu_batchsize:
        raise UserError("per_gpu_batchsize=0 is wrong: say how many rows fit on one device, at least 1.")
    passes, left = divmod(batch_size, per_gpu_batchsize * devices)
    if left or not passes:
        raise UserError(
            f"batch_size={batch_size} is not a multiple of per_gpu_batchsize={per_gpu_batchsize} x "
            f"{devices} device(s): change one so that the updates accumulate a whole number of passes."
        )
    return passes
