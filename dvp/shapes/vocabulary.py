"""The families' tokenizers, trained on the world's text: WordPiece, SentencePiece unigram, SentencePiece BPE."""

import io
import json
import random
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import BertWordPieceTokenizer

from dvp.scienceqa.text import LETTERS, write_example
from dvp.shapes.corpus import sentences
from dvp.shapes.scienceqa import problem
from dvp.shapes.world import scenes


def write_tokenizer(family: str, folder: Path) -> None:
    """The family's own files, as its real tokenizer has them, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    config, write = FAMILIES[family]
    write(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def _wordpiece(folder: Path) -> None:
    tokenizer = BertWordPieceTokenizer(lowercase=True)
    tokenizer.train_from_iterator(sentences(), vocab_size=400, show_progress=False)
    tokenizer.save_model(str(folder))


def _unigram(folder: Path) -> None:
    options = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    # A piece must be shared by several words, punctuation included; this world has too few words for that to happen.
    words = sorted({word.strip(".,?") for text in sentences() for word in text.split()})
    extra = [word + mark for word in words for mark in ".,?"]
    _sentencepiece(folder / "spiece.model", extra, model_type="unigram", vocab_size=400, **options)


def _bpe(folder: Path) -> None:
    options = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1, "byte_fallback": True}
    rng = random.Random(0)
    examples = [write_example(problem(scene, rng.random() < 0.5, rng)) for scene in scenes("pretrain", 1000)]
    lines = [line for prompt, target in examples for line in ("Image: N/A", *(prompt + target).splitlines())]
    # A choice's letter is one piece with its brackets, so that what stands before a choice is one token away. The
    # others begin lines, where no space goes before them; cut up, they would be half of a prompt.
    whole = [*(f"▁({letter})" for letter in LETTERS), "Context", "Options", "Response"]
    path = folder / "tokenizer.model"
    _sentencepiece(path, lines, model_type="bpe", vocab_size=600, user_defined_symbols=whole, **options)


def _sentencepiece(path: Path, extra: list[str], **options: Any) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences() + extra),
        model_writer=model,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="identity",
        num_threads=1,
        minloglevel=2,
        **options,
    )
    path.write_bytes(model.getvalue())


FAMILIES = {
    "bert": ({"tokenizer_class": "BertTokenizer", "do_lower_case": True}, _wordpiece),
    "t5": ({"tokenizer_class": "T5Tokenizer"}, _unigram),
    "llama": (
        {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, "legacy": True},
        _bpe,
    ),
}
