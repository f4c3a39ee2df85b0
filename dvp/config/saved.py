"""Settings saved in a file and given after `with`: read as plain values, so that no code runs from data."""

import json
from pathlib import Path
from typing import Any

import yaml
from sacred.config.config_files import HANDLER_BY_EXT, Handler

from dvp.config.rules import RULES, TEXTS, check_value
from dvp.errors import UserError

READERS = {".json": json.loads, ".yaml": yaml.safe_load, ".yml": yaml.safe_load}


def is_saved(word: str) -> bool:
    """Whether a word after `with` names a file of settings."""
    return Path(word).suffix in READERS


def read_saved(path: str) -> dict[str, Any]:
    """The settings in a JSON or YAML file; numbers that name a folder as strings.

    Raises UserError for a file that cannot be read, and for what is no setting or breaks its rule.
    """
    try:
        saved = READERS[Path(path).suffix](Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give a file of saved settings.") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is no {Path(path).suffix[1:].upper()} ({reason}): save the settings again.") from error
    if not isinstance(saved, dict) or not saved:
        raise UserError(f"{path} holds no settings: write a list of names with their values.")
    if {"job", "config"} <= saved.keys():
        raise UserError(f"{path} says whose a run's folder is: give sacred/<n>/config.json, its settings alone.")
    for key, value in saved.items():
        if key not in RULES:
            raise UserError(f"{path} has {key!r}, which is no setting: take it out (`python run.py help` lists them).")
        check_value(key, value, path)
    return {key: str(value) if key in TEXTS and value is not None else value for key, value in saved.items()}


# Sacred's own readers restore objects, and with them run code: from JSON through jsonpickle, from .pickle openly.
del HANDLER_BY_EXT[".pickle"]
for _ending in READERS:
    HANDLER_BY_EXT[_ending] = Handler(lambda file: read_saved(file.name), HANDLER_BY_EXT[_ending].dump, "")
