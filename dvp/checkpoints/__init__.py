"""Our checkpoints: the folder they are (folder.py), and what of a model goes in and comes out (weights.py)."""

from dvp.checkpoints.folder import TrainedOnly, read_checkpoint
from dvp.checkpoints.weights import fingerprint, load_trained, refuse_other, trained_state

__all__ = ["TrainedOnly", "fingerprint", "load_trained", "read_checkpoint", "refuse_other", "trained_state"]
