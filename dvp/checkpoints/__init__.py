"""Our checkpoints: the folder they are, what of a model goes in and comes out (weights.py), and older formats."""

from dvp.checkpoints.folder import TrainedOnly, digest, read_checkpoint, read_progress
from dvp.checkpoints.older import name_then, refuse_to_go_on
from dvp.checkpoints.weights import FORMAT, fingerprint, load_trained, refuse_other, trained_state
from dvp.files import read_description

__all__ = [
    "FORMAT",
    "TrainedOnly",
    "digest",
    "fingerprint",
    "load_trained",
    "name_then",
    "read_checkpoint",
    "read_description",
    "read_progress",
    "refuse_other",
    "refuse_to_go_on",
    "trained_state",
]
