"""Where torch keeps what it compiles: with a run's results, and no empty folder anywhere."""

import atexit
import os
from contextlib import suppress
from pathlib import Path

PLACE = "TORCHINDUCTOR_CACHE_DIR"  # torch sets it, to a folder in /tmp that it makes, when it is imported


def place_compiled(log_dir: Path | None) -> None:
    """Nothing; torch keeps what it compiles in `log_dir`, if given and the user chose no place.

    A folder that is empty in the end, as it is where nothing was compiled, is removed.
    """
    if PLACE in os.environ:
        return
    if log_dir:
        os.environ[PLACE] = str(log_dir.absolute() / "compiled")
    atexit.register(_remove_empty)


def _remove_empty() -> None:
    with suppress(OSError):  # not empty, or not there
        os.rmdir(os.environ.get(PLACE, ""))
