"""Files that come into place together: made in a folder beside, which then is complete at one stroke, and moved.

A kill before that stroke leaves what was there; one behind it is made good by whoever comes next.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from dvp.errors import UserError
from dvp.files import locked, remove

LOCK = ".converting.lock"
PATIENCE = 10  # seconds that a reader waits for files that are being moved


@contextmanager
def alone_in(root: Path) -> Iterator[None]:
    """Keep other conversions out of a folder. What killed ones left is removed, what they completed put in place.

    Raises UserError where another is at work there.
    """
    with _alone(root):
        for left in root.glob(".*.converting-*"):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
        for ready in root.glob(".*.converted"):
            _move(ready, root)
        yield


@contextmanager
def staged(root: Path, files: str) -> Iterator[Path]:
    """A new folder in `root`, nobody else's, for the files of one conversion; it is gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix=f".{files}.converting-", dir=root))
    try:
        yield folder
    finally:
        remove(folder)


def put_in_place(folder: Path, root: Path, files: str) -> None:
    """Nothing; the synced files of a `staged` folder take their places in `root`, the manifest last.

    Raises UserError where a folder stands in a file's place.
    """
    for path in folder.iterdir():
        if (root / path.name).is_dir():
            raise UserError(f"{root / path.name} is a folder where a table goes: move it, and convert again.")
    _sync(folder)
    ready = _ready(root, files)
    folder.rename(ready)
    _sync(root)
    _move(ready, root)


def finish(root: Path, files: str) -> None:
    """Nothing; a conversion that was stopped while its files were put in place is finished.

    Raises UserError where that is not possible.
    """
    ready, until = _ready(root, files), time.monotonic() + PATIENCE
    while ready.is_dir():
        try:
            with _alone(root):
                _move(ready, root)
        except OSError as error:
            raise _stuck(root, error) from error
        except UserError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def _ready(root: Path, files: str) -> Path:
    return root / f".{files}.converted"


def _move(ready: Path, root: Path) -> None:
    """Move the files of a complete folder that are still there, by a rename each; the manifest comes last."""
    if ready.is_symlink() or not ready.is_dir():
        return
    try:
        for path in sorted(ready.iterdir(), key=lambda path: (path.name.endswith("_manifest.json"), path.name)):
            path.replace(root / path.name)
        _sync(root)
        ready.rmdir()
    except OSError as error:
        raise _stuck(root, error) from error


def _stuck(root: Path, error: OSError) -> UserError:
    return UserError(
        f"A conversion into {root} was stopped while its files were put in place, and they cannot be moved "
        f"({error.strerror}): start again once they can, it goes on there."
    )


def _alone(root: Path) -> AbstractContextManager[None]:
    busy = UserError(f"Another conversion writes into {root}: wait until it has ended, or choose another data_root.")
    return locked(root / LOCK, busy)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
