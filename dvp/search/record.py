"""search.json, the record of a search: what was found, and with which settings."""

import json
from pathlib import Path
from typing import Any

from dvp.errors import UserError


def latest_search(log_dir: Path, config: dict[str, Any]) -> int:
    """K of the newest finished search of the same language model and task under `log_dir`; says which.

    Raises UserError with the command to run where there is none.
    """
    same = ("language_model", "tokenizer", "datasets")
    found = []
    for path in log_dir.rglob("search.json"):
        search = json.loads(path.read_text(encoding="utf-8"))
        if search["finished"] and all(search["config"][key] == config[key] for key in same):
            found.append((path.stat().st_mtime, path, search["insert_layer"]))
    if not found:
        task = {"scienceqa": "sqa"}.get(config["datasets"], config["datasets"])
        experiment = f"dvp_search_{config['language_model'].lower()}_{task}"
        raise UserError(
            f"insert_layer=auto found no finished search of {config['tokenizer']} on {config['datasets']} "
            f"in {log_dir}: run `python run.py with {experiment} ...` first, or give a layer."
        )
    _, path, layer = max(found)
    print(f"insert_layer=auto: K = {layer}, from {path}")
    return layer
