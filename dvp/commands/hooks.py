"""What happens before any verb: mistyped words and wrong values are refused, and the run is written down once."""

import os
from logging import Logger
from pathlib import Path
from typing import Any

from sacred.observers import FileStorageObserver

from dvp.config import check, check_command_line, ex, one_task
from dvp.files import require_writable


@ex.option_hook
def before_all(options: dict[str, Any]) -> None:
    """Refuse mistyped words before anything is loaded; let rank 0, and no other, write the run down."""
    updates = check_command_line(options["COMMAND"], options["UPDATE"] or [])
    if os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0":
        ex.observers[:] = [FileStorageObserver(os.path.join(updates.get("log_dir", "./result"), "sacred"))]


@ex.config_hook
def before_a_run(config: dict[str, Any], command_name: str, logger: Logger) -> dict[str, Any]:
    """Take from a published checkpoint what was not said otherwise; refuse wrong values before the run is written down.

    Of what this returns, Sacred takes what neither the command line nor an experiment nor a config file has set.
    """
    if command_name != "main":
        return {}
    known = _told_by_checkpoint(config)
    check(config | known)
    require_writable(Path(config["log_dir"]))
    return known


def _told_by_checkpoint(config: dict[str, Any]) -> dict[str, Any]:
    if not Path(str(config["load_path"])).is_file():  # ours are folders
        return {}
    from dvp.kinds import KINDS  # here, so that help and mistakes answer at once
    from dvp.tasks import TASKS

    known = KINDS[TASKS[one_task(config["datasets"])].kind].settings_in(str(config["load_path"]))
    return known | {"datasets": [known["datasets"]]} if "datasets" in known else known
