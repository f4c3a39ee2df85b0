"""Our checkpoints: the folder they are, what of a model (weights.py) and of a run (standing.py) goes in, older ones."""

from dvp.checkpoints.folder import (
    TrainedOnly,
    digest,
    newest,
    read_checkpoint,
    read_progress,
    read_scores,
    save_tensors,
)
from dvp.checkpoints.from_search import at_layer, is_adapter, taken_parts, without_adapters
from dvp.checkpoints.older import current_generators, name_then, refuse_to_go_on
from dvp.checkpoints.standing import (
    accumulated,
    begin_streams,
    generator_states,
    moments,
    progress_of,
    reopen_epoch,
    take_up,
)
from dvp.checkpoints.weights import (
    fingerprint,
    load_trained,
    not_finite,
    refuse_other,
    require_finite,
    trained_state,
)
from dvp.files import FORMAT, read_description

__all__ = [
    "FORMAT",
    "TrainedOnly",
    "at_layer",
    "accumulated",
    "begin_streams",
    "current_generators",
    "digest",
    "fingerprint",
    "generator_states",
    "is_adapter",
    "load_trained",
    "moments",
    "name_then",
    "newest",
    "not_finite",
    "progress_of",
    "read_checkpoint",
    "read_description",
    "read_progress",
    "read_scores",
    "refuse_other",
    "refuse_to_go_on",
    "require_finite",
    "save_tensors",
    "taken_parts",
    "reopen_epoch",
    "take_up",
    "trained_state",
    "without_adapters",
]
