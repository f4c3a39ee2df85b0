"""The families' tokenizers, trained on the world's text: WordPiece, SentencePiece unigram, SentencePiece BPE."""

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import BertWordPieceTokenizer

from dvp.shapes.corpus import sentences


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
    _sentencepiece(folder / "tokenizer.model", [], model_type="bpe", vocab_size=600, **options)


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
