"""Language model, tokenizer, image encoder and checkpoint: whether they are whole and belong together."""

import io
import pickle
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from dvp.backbones import BACKBONES, WEIGHT_FILES, family_of
from dvp.backbones.tokenizer_files import find_file
from dvp.build import build_empty, insert_layer, load_vision, searched
from dvp.checkpoints import TrainedOnly, is_adapter, read_checkpoint
from dvp.doctor.findings import FAULT, NOTE, OK
from dvp.errors import UserError
from dvp.files import RESUME_WORDS, is_published, read_json
from dvp.kinds import KINDS
from dvp.runs.resume import check_resume
from dvp.tasks import TASKS

EMBEDDINGS = (  # in files
    "embed_tokens.weight", "word_embeddings.weight", "shared.weight", "tok_embeddings.weight", "wte.weight",
)  # fmt: skip
HELD_BY_ALL = 0.99  # of what config.json asks for; heads, which are not read, make files larger, not smaller


def look_at_language_model(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Whether weights are whole and all there, and the tokenizer's ids have embeddings."""
    name = config["tokenizer"]
    family = family_of(name)
    tokenizer = BACKBONES[family].tokenizer(name)
    shapes = weight_shapes(name)
    if shapes is None:
        yield NOTE, f"{name} is a name on a hub, whose weights are not at hand: they are downloaded at the start"
        return
    rows = next((shape[0] for key, shape in shapes.items() if key.endswith(EMBEDDINGS)), None)
    if rows is None:
        raise UserError(f"The weights in {name} have no embeddings of tokens: copy them again.")
    tokenizer.require_fit(rows, name)
    held = sum(torch.Size(shape).numel() for shape in shapes.values())
    yield OK, f"{name}: {family.upper()}, {held:,} parameters in its files, {tokenizer.size:,} tokens of {rows:,}"


def look_at_image_encoder(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Whether the image encoder can be loaded."""
    vision = load_vision(config)
    yield OK, f"{config['clip_model']}: {count(vision)[1]:,} parameters, pictures of {config['image_size']} pixels"


def look_at_layers(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Whether K is one of the model's layers, and the weights cover these."""
    config, said = _settled(config)
    yield from ((OK, line) for line in said)
    model = build_empty(config)
    layers = model.num_layers
    if config["search_stage"]:
        yield OK, f"a search over {layers} layers"
    else:
        yield OK, f"K = {insert_layer(config, layers)} of {layers} layers"
    asked = sum(one.numel() for name, one in model.backbone.named_parameters() if not is_adapter(name))
    shapes = weight_shapes(config["tokenizer"])
    held = sum(torch.Size(shape).numel() for shape in shapes.values()) if shapes else asked
    if held < HELD_BY_ALL * asked:
        told = f"{config['tokenizer']} holds {held:,} parameters, its config.json asks for {asked:,}"
        yield FAULT, f"{told}: copy weights and config.json again."


def look_at_checkpoint(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Whether the checkpoint to load or to go on from is whole."""
    load, resume = config["load_path"], config["resume_from"]
    if is_published(load):
        KINDS[TASKS[config["datasets"]].kind].settings_in(load)
        yield OK, f"{load} is of the published code"
    elif load:
        weights, description = read_checkpoint(load)
        yield OK, f"{load}: {description['task']}, {sum(one.numel() for one in weights.values()):,} trained parameters"
    if resume and resume not in RESUME_WORDS and not config["test_only"]:
        TrainedOnly().load_checkpoint(resume)
        check_resume(config)
        yield OK, f"goes on from {resume}"


def known(config: dict[str, Any]) -> dict[str, Any]:
    """The config with the K that it asks a search for, and 16 bit where only a GPU could tell that it has them."""
    return _settled(config)[0]


def _settled(config: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The same, and what is said of the search."""
    untold = config["num_gpus"] and config["precision"] == "auto"
    with redirect_stdout(io.StringIO()) as said:  # several looks ask
        found = searched(config)
    return found | ({"precision": "bf16"} if untold else {}), said.getvalue().splitlines()


def count(module: torch.nn.Module) -> tuple[int, int]:
    """Trained and all parameters."""
    counts = [(one.numel(), one.requires_grad) for one in module.parameters()]
    return sum(number for number, trained in counts if trained), sum(number for number, _ in counts)


def weight_shapes(name_or_path: str) -> dict[str, list[int]] | None:
    """The shape of every tensor in the files of a language model, of which no tensor is read; None where none is here.

    Raises UserError for a file that is damaged or missing.
    """
    folder = Path(name_or_path)
    if not folder.is_dir():
        config = find_file(name_or_path, "config.json")
        folder = config.parent if config else folder
    for listing in folder.glob("*.index.json"):
        named = set(read_json(listing, remedy="copy the model again").get("weight_map", {}).values())
        if lacking := sorted(name for name in named if not (folder / name).is_file()):
            raise UserError(f"{listing} names {lacking[0]}, which is not there: copy the weights again.")
    for pattern, read in zip((*WEIGHT_FILES, "consolidated.*.pth"), (_safe, _pickled, _pickled), strict=True):
        if files := sorted(folder.glob(pattern)):
            return {name: shape for file in files for name, shape in read(file).items()}
    return None


def _safe(file: Path) -> dict[str, list[int]]:
    try:
        with safe_open(file, "pt") as tensors:
            return {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is damaged ({error}): copy the weights again.") from error


def _pickled(file: Path) -> dict[str, list[int]]:
    try:
        tensors = torch.load(file, map_location="meta", weights_only=True, mmap=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(f"{file} is damaged ({str(error).splitlines()[0]}): copy the weights again.") from error
    return {name: list(tensor.shape) for name, tensor in tensors.items()}
