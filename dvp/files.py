"""Files that are either whole or not there: written beside their place, synced, and renamed.

And a checkpoint's description, which is read before torch is imported.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dvp.errors import UserError

RESUME_WORDS = ("auto", "last")  # of resume_from, in a path's place: the newest checkpoint of the experiment


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make a file or folder under a temporary name, sync it, and rename it to `path`.

    Raises UserError when the place is not writable or full; nothing half-written stays.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        for file in [temporary] if temporary.is_file() else sorted(temporary.iterdir()):
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
        if path.is_dir():  # a folder can't be replaced in one step: the old one makes room first
            replaced = path.with_name(f".{path.name}.{os.getpid()}.old")
            path.rename(replaced)
            temporary.rename(path)
            remove(replaced)  # a link alone, where it was one
        else:
            temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"{path} could not be written ({error.strerror or error}): free the place or choose another."
        ) from error
    finally:
        remove(temporary)


def write_link(path: Path, target: str) -> None:
    """Let `path` be a link to `target` beside it, in one step: it is never missing, and always of something whole.

    Raises UserError when the place is not writable or full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        if path.is_dir() and not path.is_symlink():  # as it once was
            shutil.rmtree(path)
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"{path} could not be written ({error.strerror or error}): free the place or choose another."
        ) from error


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder in which none writes now.

    A folder that had made room for one that did not come is put back.
    """
    for path in sorted(folder.glob(".*.*.old")):
        place = path.with_name(path.name[1:].rpartition(".")[0].rpartition(".")[0])
        remove(path) if place.exists() else path.rename(place)
    for path in folder.glob(".*.*.tmp"):
        remove(path)


def require_writable(folder: Path) -> None:
    """Make a folder if it is not there; raises UserError when nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"{folder} is not a folder to write in ({error.strerror}): choose another log_dir.") from error


def is_published(checkpoint: str | None) -> bool:
    """Whether a checkpoint's path is of one of the published code: theirs are files, ours folders."""
    return bool(checkpoint) and Path(checkpoint).is_file()


def remove(path: Path) -> None:
    """Remove a file or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.exists() or path.is_symlink():
        path.unlink()


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole; fails on what JSON cannot hold."""
    write_whole(path, lambda place: place.write_text(json.dumps(content, indent=1), encoding="utf-8"))


def read_description(path: str) -> dict[str, Any]:
    """The description of a checkpoint folder. Raises UserError when it is missing, no checkpoint, or damaged."""
    folder = Path(path)
    if not folder.exists():
        raise UserError(
            f"There is no checkpoint {path}: give the path of its folder (result/.../checkpoints/<name>.ckpt)."
        )
    if not (folder / "description.json").is_file():
        raise UserError(f"{path} is no checkpoint of this project, it has no description.json: give another folder.")
    try:
        return dict(json.loads((folder / "description.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"The checkpoint {folder} is damaged ({error}): take another one.") from error
