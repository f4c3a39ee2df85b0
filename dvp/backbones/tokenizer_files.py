"""The tokenizers of folders and hub names as they lie on disks, checked.

The family's own vocabulary file decides alone; a folder without it has tokenizer.json, or files that transformers puts
together. tokenizer_config.json, about which public folders disagree, is asked only for what those files do not hold.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import tokenizers
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError
from sentencepiece import SentencePieceProcessor
from tokenizers import models, normalizers, pre_tokenizers
from transformers import AutoTokenizer

from dvp.backbones.tokenizer import Tokenizer
from dvp.errors import UserError
from dvp.families import Vocabulary
from dvp.files import read_json

FALLBACK, SETTINGS = "tokenizer.json", "tokenizer_config.json"
OTHERS = ("vocab.json", "vocab.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model")  # of relatives
WORDPIECE = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")  # in tokenizer_config.json
# In a text these are words; the last is a character that hardly any vocabulary knows.
TYPED = (
    "<s> </s> <pad> <unk> [CLS] [SEP] [PAD] <bos> <eos> <|begin_of_text|> <|end_of_text|> <|eot_id|> <|endoftext|> "
    "<|im_end|> \ue000"
).split()


def load_tokenizer(name_or_path: str, vocabulary: Vocabulary, pad_token_id: int = 0) -> Tokenizer:
    """The tokenizer of a folder in the Hugging Face or Meta's layout, or of a hub name.

    Raises UserError where it is not there, cannot be read, or makes other ids of a text than the family's should.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # workers fork after the tokenizer was used
    file, settings = vocabulary_file(name_or_path, vocabulary), find_file(name_or_path, SETTINGS)
    reader = READERS[file.suffix] if file.name in (vocabulary.file, FALLBACK) else _put_together
    tokenizer = reader(file, settings, vocabulary)
    _check(tokenizer)
    return replace(tokenizer, pad_token_id=pad_token_id)


def find_file(name_or_path: str, file: str) -> Path | None:
    """Where a file of a folder or hub name lies; None where there is no such file, or none is at hand."""
    folder = Path(name_or_path)
    if folder.is_dir():
        return folder / file if (folder / file).is_file() else None
    try:
        return Path(hf_hub_download(name_or_path, file))
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise UserError(
            f"The tokenizer of {name_or_path!r} could not be read ({str(error).splitlines()[0]}): give a folder that "
            "is here, or the name of a model on the hub."
        ) from error


def vocabulary_file(name_or_path: str, vocabulary: Vocabulary) -> Path:
    """The file that decides about a folder's or hub name's tokens; raises UserError where there is none."""
    above = Path(name_or_path).parent / vocabulary.file  # Meta's layout: beside the folders of all sizes
    for name in dict.fromkeys((vocabulary.file, FALLBACK, *OTHERS)):
        if found := find_file(name_or_path, name):
            return found
    if vocabulary.file.endswith(".model") and Path(name_or_path).is_dir() and above.is_file():
        return above
    raise UserError(f"{name_or_path} holds no tokenizer ({vocabulary.file} or {FALLBACK}): put it beside the weights.")


# One reader per kind of file


def _sentencepiece(file: Path, settings: Path | None, vocabulary: Vocabulary) -> Tokenizer:
    try:
        model = SentencePieceProcessor(str(file))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{file} is not a SentencePiece model ({error}): copy it again; in a folder whose own vocabulary is "
            f"{FALLBACK}, as LLaMA 3's in the Hugging Face format, remove it."
        ) from error
    for name, token, found in (
        (*(vocabulary.begin or (None, None)), model.bos_id()),
        (*vocabulary.end, model.eos_id()),
    ):
        if name and found < 0:
            raise UserError(f"{file} has no {name} ({token}): it is another model's; put this model's there.")
    return Tokenizer(
        file,
        partial(_pieces, model),
        model.decode,
        model.id_to_piece,
        model.get_piece_size(),
        model.bos_id() if vocabulary.begin else None,
        model.eos_id(),
    )


def _wordpiece(file: Path, settings: Path | None, vocabulary: Vocabulary) -> Tokenizer:
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text ({error}): copy it again.") from error
    ids = {token: number for number, line in enumerate(lines) if (token := line.rstrip())}
    lower, strip, chinese = map((read_json(settings) if settings else {}).get, WORDPIECE)
    if lower is None:
        lower = not any(re.fullmatch("(##)?[a-z]*[A-Z]+[a-z]*", token) for token in ids)
    begin, end, _ = (_id_of(token, ids, file, name) for name, token in (*_tokens(vocabulary), ("unk_token", "[UNK]")))
    model = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    model.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=chinese is not False, strip_accents=strip, lowercase=lower
    )
    model.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return _of_words(file, model, 1 + max(ids.values()), begin, end)


def _json(file: Path, settings: Path | None, vocabulary: Vocabulary) -> Tokenizer:
    return _of_content(file, read_json(file), read_json(settings) if settings else {}, vocabulary)


def _put_together(file: Path, settings: Path | None, vocabulary: Vocabulary) -> Tokenizer:
    try:
        found = AutoTokenizer.from_pretrained(file.parent)
        content = json.loads(found.backend_tokenizer.to_str())
    except Exception as error:  # whatever a foreign file makes transformers raise
        raise UserError(
            f"transformers cannot read the tokenizer of {file} ({str(error).partition(chr(10))[0]}): put the model's "
            f"{vocabulary.file} or {FALLBACK} beside it."
        ) from error
    return _of_content(file, content, found.special_tokens_map, vocabulary)


def _of_content(file: Path, content: dict[str, Any], named: dict[str, Any], vocabulary: Vocabulary) -> Tokenizer:
    """The tokenizer of what tokenizer.json holds, whose special tokens are `named` in tokenizer_config.json."""
    added, model = content.get("added_tokens") or [], content.get("model") or {}
    listed = model.get("vocab") or {}
    ids = dict(listed) if isinstance(listed, dict) else {token: number for number, (token, _) in enumerate(listed)}
    ids |= {token["content"]: token["id"] for token in added}
    around = [name and (_written(named.get(name)) or usual) for name, usual in _tokens(vocabulary)]
    begin, end = (
        name and _id_of(token, ids, file, name) for token, (name, _) in zip(around, _tokens(vocabulary), strict=True)
    )
    special = {*around, *(_written(value) for name, value in named.items() if name.endswith("_token"))}
    special |= {token["content"] for token in added if token["special"]}
    kept = [token for token in added if token["content"] not in special]
    # What stands around a text is put there by this class, so that what is typed into one can only be words.
    content |= {"added_tokens": kept, "model": _without(special, model)}
    content |= dict.fromkeys(("post_processor", "truncation", "padding"))
    try:
        reader = tokenizers.Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # tokenizers raises no narrower one
        raise UserError(f"{file} is not a tokenizer that can be read ({error}): copy it again.") from error
    made = [number for token, number in ids.items() if token not in special]
    size = 1 + max(*made, end, -1 if begin is None else begin)
    return _of_words(file, reader, size, begin, end)


READERS = {".model": _sentencepiece, ".txt": _wordpiece, ".json": _json}


def _tokens(vocabulary: Vocabulary) -> list[tuple[str | None, str | None]]:
    return [vocabulary.begin or (None, None), vocabulary.end]


def _written(token: Any) -> str:
    """How tokenizer_config.json writes a token: as it is, or in an object that says more."""
    return (token.get("content") if isinstance(token, dict) else token) or ""


def _id_of(token: str, ids: dict[str, int], file: Path, name: str) -> int:
    if token not in ids:
        raise UserError(f"{file} lacks {token!r}: name its {name} in {SETTINGS} beside it, or copy the file again.")
    return ids[token]


def _without(special: set[str], model: dict[str, Any]) -> dict[str, Any]:
    """The model with special tokens under names that no text holds and no merge makes; the ids stay."""

    def hidden(token: str) -> str:
        return f"\U0010ffff{token}" if token in special and token != model.get("unk_token") else token

    changed = dict(model)
    if isinstance(vocab := model.get("vocab"), dict):
        changed["vocab"] = {hidden(token): number for token, number in vocab.items()}
    elif vocab:
        changed["vocab"] = [[hidden(token), score] for token, score in vocab]
    if merges := model.get("merges"):
        parts = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
        changed["merges"] = [pair for pair in parts if not special & {*pair, "".join(pair)}]
    return changed


def _of_words(file: Path, model: tokenizers.Tokenizer, size: int, begin: int | None, end: int) -> Tokenizer:
    decode = partial(model.decode, skip_special_tokens=False)
    return Tokenizer(file, partial(_ids, model), decode, model.id_to_token, size, begin, end)


def _ids(model: tokenizers.Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [found.ids for found in model.encode_batch_fast(_whole(texts), add_special_tokens=False)]


def _pieces(model: SentencePieceProcessor, texts: Sequence[str]) -> list[list[int]]:
    return model.encode(_whole(texts), num_threads=1)


def _whole(texts: Sequence[str]) -> list[str]:
    """The texts with a ? for each half of a character, which JSON and a command line can hold, and UTF-8 can't."""
    return [text.encode("utf-8", "replace").decode() for text in texts]


# The check


def _check(tokenizer: Tokenizer) -> None:
    """Raises UserError where words of the vocabulary are not cut as its kind cuts, or a special token can be typed."""
    pieces = [piece for number in range(tokenizer.size) if (piece := tokenizer.piece(number))]
    for mark in ("▁", "Ġ", ""):  # of a word's beginning in SentencePiece, in byte-level BPE; WordPiece marks the rest
        if words := [found[1] for piece in pieces if (found := re.fullmatch(f"{mark}([A-Za-z]{{2,}})", piece))]:
            break
    else:  # transformers makes do with a few special tokens where it does not find what it looks for
        raise UserError(f"{tokenizer.file} gives a vocabulary without words: put this model's own file there.")
    cased = [word for word in words if word != word.lower()]
    words = (cased or words)[:8]
    text = " ".join(words if cased or mark else [word.upper() for word in words])
    made = [tokenizer.piece(number) for number in tokenizer.encode(text)]
    # SentencePiece's own files say whether the first word is marked; byte-level BPE marks it or not.
    firsts = (mark, "") if mark == "Ġ" or tokenizer.file.suffix == ".model" else (mark,)
    if "".join(map(str, made)) not in [first + mark.join(words) for first in firsts]:
        remedy = "copy the model's own vocabulary file" if mark else f"mend do_lower_case in the {SETTINGS}"
        raise UserError(
            f"{tokenizer.file} cuts {text!r} into {' '.join(map(str, made))}, not into its own words: {remedy} "
            "beside it."
        )
    ends = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    for typed, ids in zip(TYPED, tokenizer.encode_all(TYPED), strict=True):
        if ends & set(ids):
            raise UserError(
                f"{tokenizer.file} takes {typed!r} in a text for the text's beginning or end: copy this model's own "
                "files again."
            )
