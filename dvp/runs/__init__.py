"""What runs a module: its devices and its trainer. With build.py the only place that reads config keys."""

from dvp.runs.devices import precision_of, prepare_devices, strategy_of
from dvp.runs.trainer import build_trainer, cached_tokens

__all__ = ["build_trainer", "cached_tokens", "precision_of", "prepare_devices", "strategy_of"]
