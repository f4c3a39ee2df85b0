"""A checkpoint for others: a folder under the field's names, its model card, and the way to the hub."""

from dvp.sharing.folder import write_export
from dvp.sharing.hub import push

__all__ = ["push", "write_export"]
