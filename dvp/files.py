"""Files that are either whole or not there: written beside their place, synced, and renamed.

And what is read before torch is imported: JSON, and the description of a checkpoint, by its checksums.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            for file in files_in(temporary) if temporary.is_dir() else [temporary]:
                with open(file, "rb") as handle:
                    os.fsync(handle.fileno())
            if path.is_dir():  # a folder can't be replaced in one step: the old one makes room first
                replaced = path.with_name(f".{path.name}.{os.getpid()}.old")
                path.rename(replaced)
                temporary.rename(path)
                remove(replaced)  # a link alone, where it was one
            else:
                temporary.replace(path)
    finally:
        remove(temporary)


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turns what the disk says inside into a UserError that names the path."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} could not be written ({error.strerror or error}): free the place or choose another."
        ) from error


def files_in(folder: Path) -> list[Path]:
    """All files in a folder and in the folders of it, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def write_link(path: Path, target: str) -> None:
    """Let `path` be a link to `target` beside it, in one step: it is never missing, and always of something whole.

    Raises UserError when the place is not writable or full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing_to(path):
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        if path.is_dir() and not path.is_symlink():  # as it once was
            shutil.rmtree(path)
        temporary.replace(path)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder in which none writes now.

    A folder that had made room for one that did not come is put back.
    """
    for path in sorted(folder.glob(".*.*.old")):
        place = path.with_name(path.name[1:].rpartition(".")[0].rpartition(".")[0])
        remove(path) if place.exists() else path.rename(place)
    for path in folder.glob(".*.*.tmp"):
        remove(path)


@contextmanager
def locked(path: Path, busy: UserError | None = None) -> Iterator[None]:
    """Hold the lock of this path, a file that is there meanwhile; where another holds it, wait.

    With `busy`, that is raised then. On a disk without locks it is trusted that there is no other.
    """
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            os.close(lock)
            raise busy from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
        if _same(lock, path):
            break
        os.close(lock)  # of one that has ended meanwhile and removed it
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


def _same(lock: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def require_writable(folder: Path) -> None:
    """Make a folder if it is not there; raises UserError when nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"{folder} is not a folder to write in ({error.strerror}): choose another log_dir.") from error


def is_path(place: str) -> bool:
    """Whether a place is written as a path, not as a name on a hub."""
    return place.startswith((".", "/", "~")) or place.count("/") > 1


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


def read_json(path: Path, kind: type = dict, remedy: str = "copy it again") -> Any:
    """The content of a JSON file, of this kind (`object`: any).

    Raises UserError, with the remedy, for one that cannot be read, is damaged or of another kind, and for NaN.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"), parse_constant=_refuse_constant)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}): {remedy}.") from error
    except (ValueError, RecursionError) as error:  # of JSON or of UTF-8
        raise UserError(f"{path} is not whole JSON ({' '.join(str(error).split())}): {remedy}.") from error
    if not isinstance(content, kind):
        raise UserError(f"{path} holds {KINDS_OF_JSON[type(content)]}, not {KINDS_OF_JSON[kind]}: {remedy}.")
    return content


KINDS_OF_JSON = {
    dict: "an object", list: "a list", str: "a text", int: "a number", float: "a number", bool: "a truth value",
    type(None): "nothing",
}  # fmt: skip


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def require_fields(path: Path, content: dict[str, Any], fields: dict[str, Any], remedy: str) -> None:
    """Raise UserError where an object of a JSON file lacks a field, or has one of another type than `fields` says."""
    for name, kind in fields.items():
        wrong = isinstance(content.get(name), bool) and kind is not bool  # to Python, also a number
        if name not in content or wrong or not isinstance(content[name], kind):
            value = f"{name}={str(content[name])[:40]!r}" if name in content else f"no {name}"
            raise UserError(f"{path} has {value}, which nothing of ours wrote: {remedy}.")


# Checksums of the files of a folder


def write_checksums(folder: Path) -> None:
    """Write down the sha256 of each file in a folder, and of that list itself."""
    named = {path.relative_to(folder).as_posix(): path for path in files_in(folder) if path.name != CHECKSUMS}
    files = {name: _digest(path) for name, path in named.items()}
    listed = {"format": 1, "sha256": files, "of_these": _digest_of(files)}
    (folder / CHECKSUMS).write_text(json.dumps(listed, indent=1), encoding="utf-8")


def check_checksums(folder: Path, *names: str) -> None:
    """Raise UserError, with its name, for a file of a checkpoint folder that is not as it was written.

    Folders of before there were checksums are taken as they are.
    """
    path = folder / CHECKSUMS
    if not path.is_file():
        return
    listed = read_json(path, remedy=ANOTHER)
    files = listed.get("sha256")
    if not isinstance(files, dict) or listed.get("of_these") != _digest_of(files):
        raise UserError(f"{path} is damaged: {ANOTHER}.")
    for name in names:
        if not (folder / name).is_file():
            raise UserError(f"The checkpoint {folder} is damaged, {name} is missing: {ANOTHER}.")
        if _digest(folder / name) != files.get(name):
            raise UserError(f"The checkpoint {folder} is damaged, {name} is not as it was written: {ANOTHER}.")


CHECKSUMS = "checksums.json"
ANOTHER = "take another one"


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of(files: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


FORMAT = 1  # of description.json
# What describes a checkpoint, and what holds its weights: of a run's, and of an exported one, as the field names them.
DESCRIPTION, EXPORTED = "description.json", "config.json"
WEIGHTS = {DESCRIPTION: "weights.safetensors", EXPORTED: "model.safetensors"}
# What every one says; of before format 1 it may have no config, and ScienceQA's no answers.
DESCRIBED = {"task": str, "language_model": str, "search_stage": bool, "frozen": str}
DESCRIBED_LATER = {"answers": list | None, "config": dict | None}


def description_name(folder: Path) -> str | None:
    """The file that describes the checkpoint of a folder, a key of WEIGHTS; None where the folder is none."""
    if (folder / DESCRIPTION).is_file():
        return DESCRIPTION
    # A base model, too, has a config.json.
    return EXPORTED if (folder / EXPORTED).is_file() and (folder / CHECKSUMS).is_file() else None


def read_description(path: str) -> dict[str, Any]:
    """The description of a checkpoint folder. Raises UserError when it is missing, no checkpoint, or damaged."""
    folder = Path(path)
    if not folder.exists():
        raise UserError(
            f"There is no checkpoint {path}: give the path of its folder (result/.../checkpoints/<name>.ckpt)."
        )
    name = description_name(folder)
    if name is None:
        if (folder / WEIGHTS[EXPORTED]).is_file():
            check_checksums(folder, EXPORTED)  # which an export has lost
        raise UserError(f"{path} is no checkpoint of this project, it has no description.json: give another folder.")
    check_checksums(folder, name)
    description = read_json(folder / name, remedy=ANOTHER)
    require_fields(folder / name, description, DESCRIBED, ANOTHER)
    require_fields(folder / name, dict.fromkeys(DESCRIBED_LATER) | description, DESCRIBED_LATER, ANOTHER)
    format_ = description.get("format", 0)
    if type(format_) is not int or format_ > FORMAT:
        raise UserError(
            f"The checkpoint {folder} has format {str(format_)[:20]}, this code reads up to {FORMAT}: take the code "
            "that wrote it."
        )
    return description
