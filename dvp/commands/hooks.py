"""What happens before any verb: wrong values are refused, and the run is written down once."""

import shutil
import sys
from logging import Logger
from pathlib import Path
from typing import Any

from sacred.observers import FileStorageObserver
from sacred.run import Run

from dvp.commands.early import check_start
from dvp.commands.idle import idle, unread
from dvp.config import check, check_values, ex
from dvp.files import require_writable
from dvp.runs.folder import is_first_process


class Record(FileStorageObserver):
    """Sacred's record of a run under log_dir; a start that fails leaves none."""

    began = False

    def failed_event(self, fail_time: Any, fail_trace: Any) -> None:
        """Write down the failure of a run that had begun; remove the record of another."""
        super().failed_event(fail_time, fail_trace)
        if self.began:
            return
        shutil.rmtree(self.dir)
        if not any(path.name.isdigit() for path in Path(self.basedir).iterdir()):
            shutil.rmtree(self.source_dir)
            for folder in (Path(self.basedir), Path(self.basedir).parent):
                if not any(folder.iterdir()):
                    folder.rmdir()


@ex.config_hook
def before_a_run(config: dict[str, Any], command_name: str, logger: Logger) -> dict[str, Any]:
    """Refuse wrong values before anything is loaded or written; let rank 0, and no other, write the run down."""
    check_values(config)
    if command_name in ("main", "encode"):
        checked = check(config)
        check_start(checked)
    if command_name == "main":
        require_writable(Path(checked["log_dir"]))
        ex.observers[:] = [Record(Path(checked["log_dir"]) / "sacred")] if is_first_process() else []
    return {}


@ex.pre_run_hook
def say_what_is_idle(_run: Run, _config: dict[str, Any]) -> None:
    """Say on rank 0 which typed settings do nothing."""
    typed = _run.meta_info.get("config_updates", {})
    found = idle(typed, check(_config)) if _run.main_function.__name__ == "main" else unread(typed, _run)
    for key, why in found if is_first_process() else ():
        print(f"{key}={typed[key]} has no effect: {why}.", file=sys.stderr)
