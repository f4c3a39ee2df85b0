"""What the files of an image encoder say of it, in a folder of transformers' or of open_clip's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from dvp.encoders.open_clip import OPEN_CLIP, read_open_clip
from dvp.encoders.preprocessing import Preprocessing, read_preprocessing
from dvp.encoders.rows import ENCODERS, NAMES, REFUSED, TAKE, Encoder
from dvp.errors import UserError
from dvp.files import read_json

Find = Callable[[str], Path | None]  # from the name of a file to where it lies
REMEDY = "copy the model again"


class Told(NamedTuple):
    """What is known of an encoder before its weights are read.

    settings: those of its image half that its files name. prepared: how its pictures are made ready, at the size that
    they name. open_clip: whether its weights are in open_clip's layout.
    """

    row: Encoder
    settings: dict[str, Any]
    prepared: Preprocessing
    open_clip: bool = False


def read_folder(place: str, find: Find | None = None) -> Told | None:
    """What the files of the encoder at `place` say; None where there are neither config.json nor open_clip's.

    find: where they lie, if not in the folder `place`. Raises UserError for an encoder that has no row, and files that
    are damaged.
    """
    find = find or (lambda file: path if (path := Path(place).expanduser() / file).is_file() else None)
    if path := find("config.json"):
        row, settings = _row_of(place, read_json(path, remedy=REMEDY))
        told = Told(row, settings, _prepared(find, row))
    elif path := find(OPEN_CLIP):
        settings, content = read_open_clip(path, read_json(path, remedy=REMEDY))
        row = ENCODERS["clip_vision_model"]
        told = Told(row, settings, read_preprocessing(path, content, row.prepared), open_clip=True)
    else:
        return None
    patch = told.settings.get("patch_size")
    if patch is not None and (type(patch) is not int or patch <= 0):
        raise UserError(f"{place} cuts pictures into patches of {str(patch)[:40]} pixels, which is no size: {REMEDY}.")
    size = told.settings.get("image_size")
    if size is None or told.row.any_size:
        return told
    if type(size) is not int or size <= 0:
        raise UserError(f"{place} takes pictures of {str(size)[:40]} pixels, which is no square: {REMEDY}.")
    return told._replace(prepared=told.prepared.at(size))


def require_size(place: str, row: Encoder, image_size: int, takes: int | None, patch: int | None) -> None:
    """Raise UserError where an encoder that takes so many pixels, or so many a patch, is to be given `image_size`."""
    if row.any_size:
        if patch and (image_size % patch or not image_size):
            near = max(1, round(image_size / patch)) * patch
            raise UserError(
                f"image_size={image_size} but {place} takes whole patches of {patch} pixels: set image_size={near}."
            )
    elif takes not in (None, image_size):
        raise UserError(f"image_size={image_size} but {place} takes {takes} pixels: set image_size={takes}.")


def unknown(place: str, model_type: str | None) -> UserError:
    """What to tell of an encoder that has no row."""
    if model_type in REFUSED:
        return UserError(f"{place} is a {model_type}, which {REFUSED[model_type]}: take another, such as {TAKE}.")
    return UserError(
        f"{place} has no config.json of an image encoder that is known here (model_type: {model_type}): take one of "
        f'{NAMES}, or give it a row, see "Add an image encoder" in CONTRIBUTING.md.'
    )


def _row_of(place: str, config: dict[str, Any]) -> tuple[Encoder, dict[str, Any]]:
    """The row of a config.json and the settings of the image half in it."""
    found = config.get("model_type")
    for model_type, row in ENCODERS.items():
        if found == model_type:
            return row, config
        if found and found == row.whole:
            inner = config.get("vision_config")
            return row, inner if isinstance(inner, dict) else {}
    raise unknown(place, found)


def _prepared(find: Find, row: Encoder) -> Preprocessing:
    """What the files beside the weights say, in transformers' order; where there are none, the family's way."""
    for file, key in (("processor_config.json", "image_processor"), ("preprocessor_config.json", None)):
        path = find(file)
        content = read_json(path, remedy=REMEDY) if path else None
        if content and key:
            content = content.get(key)  # a file of other processors has none
        if content is not None and not isinstance(content, dict):
            raise UserError(f"{path} has {key}={str(content)[:40]}, which is no object: {REMEDY}.")
        if content is not None:
            return read_preprocessing(path, content, row.prepared)
    return row.prepared
