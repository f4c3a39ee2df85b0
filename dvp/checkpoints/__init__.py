"""Our checkpoints: the folder they are (folder.py), and what of a model goes in and comes out (weights.py)."""

from dvp.checkpoints.folder import TrainedOnly, digest, read_checkpoint, read_description, read_progress
from dvp.checkpoints.weights import FORMAT, fingerprint, load_trained, refuse_other, trained_state

__all__ = [
    "FORMAT",
    "TrainedOnly",
    "digest",
    "fingerprint",
    "load_trained",
    "read_checkpoint",
    "read_description",
    "read_progress",
    "refuse_other",
    "trained_state",
]
