"""How a task is read, answered and written down: a file a kind, in which build.py finds the same names.

OFFERED               settings that it restricts, with the values that it takes
DESCRIBED             settings that a checkpoint of it must agree on
SUBMISSION            the name of its file of answers, of settings and {checkpoint}
ALWAYS_BY_LENGTH      whether its batches are always of texts of like length
SHARDED               whether its frozen weights may lie in pieces on several devices (strategy=fsdp)
SOME_UNUSED           whether a pass may leave trained parameters without a gradient
prepared              what is known of the encoder -> how its pictures are made ready, at any size
columns               task -> the columns that its tables must have
read                  config, task, transform of pictures -> what makes datasets and batches of its tables
build_model           config, data, vision, options of the language model, the compressors' -> DVP
answer                config, data -> what answers a batch while validating and in the test
submit                config, task -> what makes a file of the answers to the test, or None
settings_in           path -> the settings that a published checkpoint tells itself
load_published        path, module -> nothing; the module has the weights of a published checkpoint
"""

from types import ModuleType
from typing import Any

from dvp.encoders import Preprocessing
from dvp.encoders.loading import find_encoder
from dvp.kinds import classified, written
from dvp.tasks import TASKS

KINDS: dict[str, ModuleType] = {"classified": classified, "written": written}


def preprocessing_of(config: dict[str, Any]) -> Preprocessing:
    """How a run with these settings makes pictures ready: of `datasets`, `clip_model` and `image_size`."""
    kind = KINDS[TASKS[config["datasets"]].kind]
    return kind.prepared(find_encoder(config["clip_model"])).at(config["image_size"])
