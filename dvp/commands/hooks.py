"""What happens before any verb: mistyped words and wrong values are refused, and the run is written down once."""

import os
from logging import Logger
from pathlib import Path
from typing import Any

from sacred.observers import FileStorageObserver

from dvp.config import check, check_command_line, ex
from dvp.files import require_writable
from dvp.runs.folder import is_first_process


@ex.option_hook
def before_all(options: dict[str, Any]) -> None:
    """Refuse mistyped words before anything is loaded; let rank 0, and no other, write the run down."""
    updates = check_command_line(options["COMMAND"], options["UPDATE"] or [])
    if is_first_process():
        ex.observers[:] = [FileStorageObserver(os.path.join(updates.get("log_dir", "./result"), "sacred"))]


@ex.config_hook
def before_a_run(config: dict[str, Any], command_name: str, logger: Logger) -> dict[str, Any]:
    """Refuse wrong values before the run is written down."""
    if command_name == "main":
        check(config)
        require_writable(Path(config["log_dir"]))
    return {}
