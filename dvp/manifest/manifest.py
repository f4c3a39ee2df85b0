"""The manifest of a conversion: which files belong together. It is written last and looked at first.

Tables of the published scripts have none. A table's pictures are by far the most of it: they have hashes of their own,
in a listing beside it, so that all that is not a picture is checked whenever the table is opened.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from dvp.errors import UserError
from dvp.manifest.hashes import hash_of
from dvp.manifest.placing import finish

VERSION = 1
MANIFEST, PICTURES = "_manifest.json", "_pictures.json"  # behind what the names of a task's tables begin with


class Manifest(NamedTuple):
    """What a conversion made; `files`: by name bytes and hash, of a table also rows, where its pictures lie, and the
    hash of the rest.
    """

    path: Path
    files: dict[str, dict[str, Any]]
    options: dict[str, Any]

    def check(self, path: Path) -> None:
        """Nothing, or UserError where a file is not the one that was converted; of a table without its pictures."""
        about = self.files.get(path.name)
        if about is None:
            raise UserError(
                f"{path} is not of the conversion that {self.path.name} beside it tells of: move one of the two to a "
                f"folder of its own, or convert the raw data again."
            )
        if not path.is_file():
            raise UserError(f"{path} is missing, though {self.path.name} tells of it: convert the raw data again.")
        whole = "pictures" not in about
        if path.stat().st_size != about["bytes"] or about["hash" if whole else "rest"] != hash_of(
            path, about.get("pictures", ())
        ):
            raise UserError(
                f"{path} is damaged or of another conversion than {self.path.name} beside it: put back the file that "
                f"was made with it, or convert the raw data again."
            )

    def pictures(self) -> dict[str, list[str]]:
        """By table the hash of every row's picture, empty where it has none.

        Raises UserError where the listing is missing, damaged or another conversion's.
        """
        path = self.path.with_name(self.path.name.removesuffix(MANIFEST) + PICTURES)
        self.check(path)
        return json.loads(path.read_text(encoding="utf-8"))


def manifest_name(files: str) -> str:
    """The name of the manifest of the tables whose names begin with `files`."""
    return files + MANIFEST


def listing_name(files: str) -> str:
    """The name of the listing of these tables' picture hashes."""
    return files + PICTURES


def read_manifest(data_root: str | Path, files: str) -> Manifest | None:
    """The manifest of the tables whose names begin with `files`; None where there is none.

    A conversion that was stopped while its files were put in place is finished first. Raises UserError for a manifest
    that is damaged or of a newer format, and where finishing is not possible.
    """
    finish(Path(data_root), files)
    path = Path(data_root) / manifest_name(files)
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["version"]
        if version > VERSION:
            raise UserError(
                f"{path} has format {version}, this code reads up to {VERSION}: take the code that wrote it."
            )
        manifest = Manifest(path, {name: _sound(about) for name, about in content["files"].items()}, content["options"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}): convert the raw data again.") from error
    return manifest


def manifest_beside(table: Path) -> Manifest | None:
    """The manifest that a table has beside it; None where there is none. Raises UserError as `read_manifest` does."""
    prefixes = (path.name.removesuffix(MANIFEST) for path in table.parent.glob(f"*{MANIFEST}"))
    fitting = [files for files in prefixes if table.name.startswith(f"{files}_")]
    return read_manifest(table.parent, max(fitting, key=len)) if fitting else None


def _sound(about: dict[str, Any]) -> dict[str, Any]:
    """The entry of a file; raises KeyError, TypeError or ValueError for one that is damaged."""
    marks = [mark for start, size in about.get("pictures", ()) for mark in (start, start + size)]
    if sorted([0, *marks, about["bytes"]]) != [0, *marks, about["bytes"]] or not isinstance(about["hash"], str):
        raise ValueError("an entry that fits no file")
    if "pictures" in about:
        _ = about["rest"], about["rows"]
    return about
