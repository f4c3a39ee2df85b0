"""Make of a checkpoint what others can open, and put it on the hub."""

import tempfile
from pathlib import Path
from typing import Any

from dvp.commands.predict import require_checkpoint
from dvp.config import ex
from dvp.config.rules import PEFT
from dvp.errors import UserError
from dvp.files import EXPORTED, description_name, read_description
from dvp.runs.told import base_of, require_base

BESIDE = (
    " beside the language model and image encoder that it was trained with; where these have moved, say "
    "tokenizer=<folder> and clip_model=<folder>, or export with with_base=True, which puts them in."
)


@ex.command(unobserved=True)
def export(load_path, to, push_to, tokenizer, clip_model, merge, with_base, overwrite, license, private):
    """Write a checkpoint as a folder that dvp.load opens, with its model card; push_to puts it on the hub.

    Of a search it is the compressor of K. with_base=True puts the frozen language model and image encoder in, too;
    merge=True a language model that lora, dora or ia3 have become a part of.
    """
    checkpoint, place = _check(load_path, to, push_to, overwrite)
    if merge:
        _check_merge(checkpoint)
    base = base_of(str(checkpoint), tokenizer, clip_model)
    if not _is_exported(checkpoint):
        require_base(str(checkpoint), base)

    from dvp.answering import load  # here, so that help and mistakes answer at once
    from dvp.sharing import push, write_export

    with tempfile.TemporaryDirectory() as passing:
        folder = place or Path(passing) / "export"
        if _is_exported(checkpoint):
            folder = checkpoint
        else:
            options = {"with_base": with_base, "license": str(license)}
            write_export(checkpoint, folder, base, **options, merging=load(checkpoint, **base).model if merge else None)
        if place:
            print(
                f"{checkpoint} is exported to {place}: dvp.load({str(place)!r}) opens it{'.' if with_base else BESIDE}"
            )
        if push_to:
            print(f"It is on the hub: {push(folder, str(push_to), private=private, overwrite=overwrite)}")


def _check(load_path: Any, to: Any, push_to: Any, overwrite: bool) -> tuple[Path, Path | None]:
    """The checkpoint and the folder that it goes to, if any; raises UserError before torch is imported."""
    require_checkpoint("export", load_path)
    checkpoint, place = Path(str(load_path)), Path(str(to)).expanduser() if to else None
    if checkpoint.is_file():
        raise UserError(f"{checkpoint} is a file, as the published code's are: give a checkpoint folder of this code.")
    read_description(str(checkpoint))
    if not (place or push_to):
        raise UserError("export needs a place: give to=<folder>, push_to=<user>/<name>, or both.")
    if place and _is_exported(checkpoint):
        raise UserError(f"{checkpoint} is exported already: copy the folder, or give push_to=<user>/<name>.")
    if place and (place.is_file() or place.is_dir() and any(place.iterdir())):
        if not _is_exported(place):
            raise UserError(f"to={place} is there and is no export, and stays as it is: give another place.")
        if not overwrite:
            raise UserError(f"to={place} is an export already: add overwrite=True, or give another place.")
    return checkpoint, place


def _check_merge(checkpoint: Path) -> None:
    """Raise UserError where a checkpoint has no adapters that could become part of its language model."""
    description = read_description(str(checkpoint))
    if description.get("use_adapter") not in PEFT:
        has = "none" if description.get("use_adapter") in (False, "frozen") else "published ones, which are layers more"
        raise UserError(
            f"merge=True needs adapters that weights can take in, lora, dora or ia3, and {checkpoint} has {has}: leave "
            "merge out."
        )
    if _is_exported(checkpoint):
        raise UserError(f"{checkpoint} is exported already: merge the checkpoint that it was made of; give that.")
    if description["quantize"]:
        raise UserError(
            f"merge=True is not for {checkpoint}, trained with quantize={description['quantize']}: what was learnt "
            "beside rounded weights would be rounded with them; leave merge out."
        )


def _is_exported(folder: Path) -> bool:
    return description_name(folder) == EXPORTED
