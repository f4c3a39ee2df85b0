"""An exported checkpoint: a folder that `dvp.load` opens anywhere, under the names that the field's tools look for.

model.safetensors           exactly the trained weights, of a search those of its K
config.json                 what a checkpoint's description says, without the places of the machine that trained it
preprocessor_config.json    how a picture is prepared
vocab.txt, ...              the tokenizer's files, where its licence lets anyone hand them on
language_model/, image_encoder/    the frozen base, if it is included; or the language model with its adapters merged
adapter/                    adapters of PEFT's, as its tools open them
README.md                   the model card
checksums.json              the sha256 of each of these
"""

import json
from pathlib import Path
from typing import Any

from dvp.build import load_vision
from dvp.checkpoints import at_layer, read_checkpoint, save_tensors
from dvp.encoders.loading import find_encoder
from dvp.files import EXPORTED, WEIGHTS, write_checksums, write_whole
from dvp.kinds import preprocessing_of
from dvp.model import DVP
from dvp.runs.told import AGREED, PLACES, TAKEN, place_named
from dvp.sharing.card import write_card
from dvp.sharing.known import look_up
from dvp.sharing.language_model import copy_language_model, copy_tokenizer, merge, write_adapter, write_merged

PROCESSOR = "preprocessor_config.json"
BASE = {"tokenizer": "language_model", "clip_model": "image_encoder"}
# Settings that say how the model works and how it was trained; the others speak of a machine and of its folders.
KEPT = (
    *AGREED, *TAKEN, "datasets", "backbone_dtype", "drop_rate", "search_sample", "search_warmup_steps", "optim_type",
    "learning_rate", "lr_mult", "weight_decay", "decay_power", "end_lr", "warmup_steps", "batch_size", "max_epoch",
    "max_steps", "start_from",
)  # fmt: skip


def write_export(
    checkpoint: Path, to: Path, base: dict[str, str], *, with_base: bool, license: str, merging: DVP | None = None
) -> None:
    """Write the export of a checkpoint folder to `to`, whole or not at all.

    base: where language model and image encoder lie now, by PLACES. with_base: put them in, too. merging: the model of
    the checkpoint, whose adapters become part of its language model. Raises UserError for a damaged checkpoint, one of
    a search that found no K, a base that cannot be read, and a place without room.
    """
    known = look_up(checkpoint)
    weights, description = read_checkpoint(str(checkpoint))
    if description["search_stage"]:
        weights, description = at_layer(weights, description, known.search["insert_layer"])
    parameters = sum(one.numel() for one in weights.values())
    if merging:
        weights, description = merge(merging, weights, description)
    included = BASE if with_base else {"tokenizer": BASE["tokenizer"]} if merging else {}
    config = _described(description, base, included)

    pictures = {"datasets": description["task"], "clip_model": base["clip_model"]}
    pictures |= {"image_size": known.config.get("image_size", 224)}

    def write(folder: Path) -> None:
        folder.mkdir()
        save_tensors(weights, folder / WEIGHTS[EXPORTED])
        _write_json(folder / EXPORTED, config)
        _write_json(folder / PROCESSOR, preprocessing_of(pictures).as_processor())
        _write_base(folder, base, known.config, included, merging)
        write_adapter(folder / "adapter", weights, description, base["tokenizer"], config["config"]["tokenizer"])
        write_card(folder / "README.md", known._replace(description=config, parameters=parameters), license)
        for path in folder.rglob("*.safetensors"):  # which safetensors keeps to their owner
            path.chmod((folder / EXPORTED).stat().st_mode)
        write_checksums(folder)

    write_whole(to, write)


def _described(description: dict[str, Any], base: dict[str, str], included: dict[str, str]) -> dict[str, Any]:
    """The description as others may read it: settings that hold anywhere, and the base by its name."""
    settings = description.get("config") or {}
    kept = {key: settings[key] for key in KEPT if key in settings} | {key: place_named(base[key]) for key in PLACES}
    there = {"base_included": included} if included else {}
    return {"model_type": "dvp", "architectures": ["DVP"]} | description | {"config": kept} | there


def _write_base(
    folder: Path, base: dict[str, str], config: dict[str, Any], included: dict[str, str], merging: DVP | None
) -> None:
    if merging:
        write_merged(folder / BASE["tokenizer"], merging, base["tokenizer"])
    elif "tokenizer" in included:
        copy_language_model(folder / BASE["tokenizer"], base["tokenizer"])
    else:
        copy_tokenizer(folder, base["tokenizer"])
    if "clip_model" in included:
        place = folder / BASE["clip_model"]
        load_vision(config | {"clip_model": base["clip_model"]}).encoder.save_pretrained(place)
        own = find_encoder(base["clip_model"]).prepared.at(config["image_size"])
        _write_json(place / PROCESSOR, own.as_processor())


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
