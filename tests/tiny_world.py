"""Tiny random models, tokenizers and data, written as real folders and files."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import sentencepiece
import torch
from PIL import Image
from tokenizers import ByteLevelBPETokenizer
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from dvp.backbones import BACKBONES
from dvp.config import EXPERIMENTS
from dvp.families import FAMILIES
from dvp.tasks import TASKS

SENTENCES = [
    "what color is the left square", "is there a red circle", "how many blue triangles are there",
    "the small square is green", "what shape is above the red square", "no circle is yellow",
]  # fmt: skip
ANSWERS = ["yes", "no", "red", "two"]  # of tasks without a vocabulary of their own
PUBLISHED = ("vqa", "gqa", "snli_ve")  # the tasks of which the small real data has tables
# All splits of the tasks that classify; the others' worlds lie beside their tests.
SPLITS = {
    name: tuple(dict.fromkeys(task.train + task.validate + task.test))
    for name, task in TASKS.items()
    if task.kind == "classified"
}
SPLITS["vqa"] += ("test-dev",)  # test_split=test-dev
LAYERS, PIXELS = 3, 16  # layers of every language model in BACKBONES, pixels of CLIP


# Language models and CLIP


def _bert_tokenizer(folder: Path) -> dict[str, int]:
    words = sorted({word for sentence in SENTENCES for word in sentence.split()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    return {"vocab_size": len(vocabulary)}


def _sentencepiece(file: Path, **options: Any) -> int:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=(model := io.BytesIO()), minloglevel=2, **options
    )
    file.write_bytes(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).get_piece_size()


def _t5_tokenizer(folder: Path) -> dict[str, int]:
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    size = _sentencepiece(folder / "spiece.model", vocab_size=60, hard_vocab_limit=False, **ids)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}')
    return {"vocab_size": size + 100}  # T5's tokenizer adds 100 sentinels


def _llama_tokenizer(folder: Path) -> dict[str, int]:
    size = _sentencepiece(folder / "tokenizer.model", vocab_size=320, model_type="bpe", byte_fallback=True,
                          hard_vocab_limit=False)  # fmt: skip
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "LlamaTokenizer", "add_bos_token": true, "add_eos_token": false, "legacy": true}'
    )
    return {"vocab_size": size}


def _byte_level_tokenizer(folder: Path) -> dict[str, int]:
    tokenizer, special = ByteLevelBPETokenizer(), ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(SENTENCES, vocab_size=320, show_progress=False, special_tokens=special)
    tokenizer.save_model(str(folder))  # vocab.json and merges.txt
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "RobertaTokenizer"}')
    return {"vocab_size": tokenizer.get_vocab_size()}


def _tokenizer_json(folder: Path, **special: str) -> dict[str, int]:
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(SENTENCES, vocab_size=320, show_progress=False)
    tokenizer.add_special_tokens(list(special.values()))  # behind all words, as in the real ones
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(special), encoding="utf-8")
    return {"vocab_size": tokenizer.get_vocab_size()}


def _modernbert_tokenizer(folder: Path) -> dict[str, int]:
    return _tokenizer_json(folder, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")


def _gpt2_tokenizer(folder: Path) -> dict[str, int]:
    return _tokenizer_json(folder, eos_token="<|endoftext|>")


def _gemma_tokenizer(folder: Path) -> dict[str, int]:
    ids = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "eos_piece": "<eos>", "bos_piece": "<bos>"}
    size = _sentencepiece(folder / "tokenizer.model", vocab_size=320, model_type="bpe", byte_fallback=True,
                          hard_vocab_limit=False, add_dummy_prefix=False, **ids)  # fmt: skip
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GemmaTokenizer"}')
    return {"vocab_size": size}


TOKENIZERS: dict[str, Callable[[Path], dict[str, int]]] = {
    "BertTokenizer": _bert_tokenizer,
    "T5Tokenizer": _t5_tokenizer,
    "LlamaTokenizer": _llama_tokenizer,
    "RobertaTokenizer": _byte_level_tokenizer,
    "ModernBertTokenizer": _modernbert_tokenizer,
    "GPT2Tokenizer": _gpt2_tokenizer,
    "GemmaTokenizer": _gemma_tokenizer,
}
NAMED_FAMILIES = tuple(family for family in BACKBONES if f"dvp_search_{family}_vqa" in EXPERIMENTS)
# What holds the promises of a language model: every family, and its members of the same model_type. Family, config
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for family in BACKBONES},
    **{name: (family, changes) for family, row in FAMILIES.items() for name, changes in row.members.items()},
}


def shake(module: nn.Module, scale: float = 0.1) -> nn.Module:
    """The module with noise on every parameter, so that no bias or norm is trivially 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return module


def write_language_model(folder: Path, model: str, **changes: Any) -> None:
    """Write a random model of MODELS with its tokenizer, `changes` going into its config.json."""
    family, own = MODELS[model]
    backbone, changes = BACKBONES[family], own | changes
    settings = TOKENIZERS[backbone.tiny_tokenizer](folder) | backbone.tiny | changes
    torch.manual_seed(0)
    shake(backbone.model_class(backbone.model_class.config_class(**settings))).save_pretrained(folder)


def deep(family: str, layers: int) -> dict[str, int]:
    """The settings of a family's config that make it so many layers deep."""
    counts = {name: layers for name in FAMILIES[family].tiny if name.endswith(("layers", "n_layer"))}
    return counts | ({"layer_types": None} if "layer_types" in FAMILIES[family].tiny else {})


def write_clip(folder: Path) -> None:
    """Write a random CLIP that takes pictures of 16 pixels: 4 patches and the class token, 24 wide."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    shake(CLIPVisionModel(CLIPVisionConfig(image_size=PIXELS, patch_size=8, **sizes))).save_pretrained(folder)


# Data in the published schema


def picture(seed: int) -> bytes:
    """The bytes of a random PNG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def rows_of(task: str, split: str, images: int = 4, questions: int = 2) -> list[dict[str, Any]]:
    """Rows as the published scripts write them: one image with its questions."""
    first, fixed = 1000 * SPLITS[task].index(split), TASKS[task].answers
    rows = []
    for image in range(images):
        ids = [first + 10 * image + number for number in range(questions)]
        row = {"image": picture(first + image), "questions": [SENTENCES[i % len(SENTENCES)] for i in ids]}
        if fixed:
            row |= {"answers": [fixed[i % len(fixed)] for i in ids], "identifier": first + image}
        else:
            labels = [i % len(ANSWERS) for i in ids]
            asked = task == "vqa" and split.startswith("test")  # the answers of these are the server's secret
            row |= {
                "answers": [] if asked else [[ANSWERS[label]] for label in labels],
                "answer_labels": [] if asked else [[label] for label in labels],
                "answer_scores": [] if asked else [[1.0] for _ in labels],
                "image_id": first + image if task == "vqa" else f"n{first + image}",
                "split": split,
            }
        if TASKS[task].submission:
            row["question_id"] = ids if task == "vqa" else [str(i) for i in ids]
        rows.append(row)
    return rows


def write_table(path: Path, rows: list[dict[str, Any]] | pa.Table) -> None:
    """Write rows as an Arrow file, of the types that pyarrow infers, as the published scripts do."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def write_data(folder: Path, task: str) -> None:
    """Write all tables of a task, small."""
    for split in SPLITS[task]:
        write_table(folder / f"{TASKS[task].files}_{split}.arrow", rows_of(task, split))


# Runs


def fit(config: dict[str, Any], *callbacks: Any) -> Any:
    """Builds and trains what a checked config says, with further callbacks; returns the trainer."""
    import pytorch_lightning as pl

    from dvp.build import build_data, build_module
    from dvp.runs.auto import settle_resume
    from dvp.runs.trainer import build_trainer

    config = settle_resume(config)
    pl.seed_everything(config["seed"], workers=True)
    data = build_data(config)
    module = build_module(config, data)
    trainer = build_trainer(config, module.monitor)
    trainer.callbacks += callbacks
    trainer.fit(module, datamodule=data, ckpt_path=config["resume_from"])
    return trainer
