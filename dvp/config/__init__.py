"""The settings: defaults with their meaning, the published experiments as a table, and the check before anything runs.

    python run.py with dvp_search_bert_vqa data_root=./datasets per_gpu_batchsize=256                    # find K
    python run.py with dvp_adaption_bert_vqa data_root=./datasets per_gpu_batchsize=256 insert_layer=K   # train
    python run.py print_config with dvp_search_t5_gqa shapes                                             # only look

Of two named configs the later wins, so `shapes` goes last; `key=value` beats both.
"""

from dvp.config.defaults import ex
from dvp.config.experiments import EXPERIMENTS, SCIENCE_QA_EXPERIMENTS, SHAPES, SHAPES_MODELS
from dvp.config.rules import LANGUAGE_MODELS, RULES, TASK_NAMES, check, check_values, one_task

__all__ = [
    "EXPERIMENTS",
    "LANGUAGE_MODELS",
    "RULES",
    "SCIENCE_QA_EXPERIMENTS",
    "SHAPES",
    "SHAPES_MODELS",
    "TASK_NAMES",
    "check",
    "check_command_line",
    "check_values",
    "ex",
    "one_task",
]

check_command_line = ex.check_command_line
