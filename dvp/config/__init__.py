"""The settings: defaults with their meaning, the published experiments as a table, and the check before anything runs.

    python run.py with dvp_search_bert_vqa data_root=./datasets per_gpu_batchsize=256                    # find K
    python run.py with dvp_adaption_bert_vqa data_root=./datasets per_gpu_batchsize=256 insert_layer=K   # train
    python run.py print_config with dvp_search_t5_gqa shapes                                             # only look

Of two named configs the later wins, so `shapes` goes last; `key=value` beats both.
"""

from collections.abc import Sequence
from typing import Any

from dvp.config.contradictions import contradictions
from dvp.config.defaults import ex
from dvp.config.experiments import (
    EXPERIMENTS,
    NAMED,
    SCIENCE_QA_EXPERIMENTS,
    SHAPES,
    SHAPES_MODELS,
    TASK_NAMES,
    Shapes,
    shapes_settings,
)
from dvp.config.rules import RULES, check, check_values, fill, one_task, passes_of
from dvp.config.saved import is_saved, read_saved

__all__ = [
    "EXPERIMENTS",
    "NAMED",
    "RULES",
    "SCIENCE_QA_EXPERIMENTS",
    "SHAPES",
    "SHAPES_MODELS",
    "TASK_NAMES",
    "check",
    "check_command_line",
    "check_values",
    "contradictions",
    "ex",
    "fill",
    "is_saved",
    "one_task",
    "passes_of",
    "read_saved",
    "settle",
]

check_command_line = ex.check_command_line

for _name, _settings in NAMED.items():
    ex.add_named_config(_name, _settings)
    _stage = "Search K" if _settings.get("search_stage") else "Train at K"
    ex.named_configs[_name].__doc__ = f"{_stage}: {_settings['language_model']}, {_name.split('_', 3)[3]}."
ex.named_configs["shapes"] = Shapes()


def settle(named: Sequence[str], typed: dict[str, Any]) -> dict[str, Any]:
    """All settings as Sacred makes them of these named configs and files, the later winning, and of what is typed."""
    chosen: dict[str, Any] = {}
    for word in named:
        if is_saved(word):
            chosen |= read_saved(word)
        else:
            chosen |= NAMED[word] if word in NAMED else shapes_settings(chosen | typed)
    return dict(ex.settings) | chosen | typed
