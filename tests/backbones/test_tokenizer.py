"""Texts to ids: what SentencePiece and WordPiece demand, whatever else a folder says, and a refusal for all else."""

import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
import torch
from tiny_world import TOKENIZERS
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, BertTokenizer

from dvp.backbones import BACKBONES, family_of, load_backbone, load_with_head
from dvp.backbones.tokenizer import Tokenizer
from dvp.backbones.tokenizer_files import TYPED, load_tokenizer
from dvp.errors import UserError

SHAPES = Path(__file__).parents[2] / "dvp" / "shapes" / "models"
REAL = {"bert": "bert-base-uncased", "t5": "t5-base", "llama": "llama-7b"}
OWN_FILE = {family: BACKBONES[family].vocabulary.file for family in REAL}
ORDINARY = ["is it red ?", "What is left of the circle?", "is there a square", "no", ""]
ODD = ["  is  it", " is", "is it  red ", "café 😀", "a\nb", "a </s> b <s> <unk> <pad> [CLS] [SEP]", *TYPED]
LONG = " ".join(["is the square left of the red circle ?"] * 4)
FAMILIES = pytest.mark.parametrize("family", REAL)


@pytest.fixture
def folder_of(real_data: Callable[[], Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of a family's folder: the embedded model's, or the real tokenizer's."""

    def make(family: str, kind: str = "shapes") -> Path:
        source = SHAPES / family if kind == "shapes" else real_data() / "tokenizers" / REAL[family]
        return Path(shutil.copytree(source, tmp_path / "models" / family))

    return make


def load(family: str, folder: Path) -> Tokenizer:
    return BACKBONES[family].tokenizer(str(folder))


def write(folder: Path, name: str, **content: Any) -> None:
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def edit(folder: Path, name: str, change: Callable[[dict], Any]) -> None:
    content = json.loads((folder / name).read_text(encoding="utf-8"))
    change(content)
    write(folder, name, **content)


def demanded(family: str, folder: Path, text: str) -> list[int]:
    """The ids by the family's own program and special tokens."""
    if family == "bert":
        own = BertTokenizer.from_pretrained(folder)
        words = own.backend_tokenizer
        words.encode_special_tokens = True
        return [own.cls_token_id, *words.encode(text, add_special_tokens=False).ids, own.sep_token_id]
    pieces = sentencepiece.SentencePieceProcessor(str(folder / OWN_FILE[family]))
    return [*([pieces.bos_id()] if family == "llama" else []), *pieces.encode(text), pieces.eos_id()]


# What a text becomes


@FAMILIES
@pytest.mark.parametrize("kind", ["shapes", "real"])
def test_ids_are_those_of_the_familys_own_program(family: str, kind: str, folder_of: Callable) -> None:
    folder = folder_of(family, kind)
    tokenizer, texts = load(family, folder), [*ORDINARY, *ODD, LONG]
    expected = [demanded(family, folder, text) for text in texts]
    assert tokenizer(texts)["input_ids"] == expected
    assert [tokenizer(text)["input_ids"] for text in texts] == expected
    assert tokenizer.lengths(texts).tolist() == [len(ids) for ids in expected]


def test_llamas_spaces_are_cut_as_by_sentencepiece(folder_of: Callable) -> None:
    tokenizer = load("llama", folder_of("llama", "real"))
    texts = {" is": [29871, 338], "is  it red": [338, 29871, 372, 2654], "a </s> b": [263, 1533, 29879, 29958, 289]}
    assert tokenizer(list(texts))["input_ids"] == [[1, *ids, 2] for ids in texts.values()]


@FAMILIES
@pytest.mark.parametrize("padding", ["longest", "max_length"])
@pytest.mark.parametrize("max_length", [3, 5, 16, 200])
def test_every_row_ends_with_the_end_token_and_has_no_other(
    family: str, padding: str, max_length: int, folder_of: Callable
) -> None:
    tokenizer, texts = load(family, folder_of(family)), [*ORDINARY, *ODD, LONG]
    options = {"padding": padding, "truncation": True, "max_length": max_length, "return_tensors": "pt"}
    ids, keep = (tokenizer(texts, **options)[name] for name in ("input_ids", "attention_mask"))
    assert ids.shape == keep.shape == (len(texts), max_length if padding == "max_length" else keep.sum(1).max())
    for row, kept, whole in zip(ids, keep.bool(), tokenizer(texts)["input_ids"], strict=True):
        length = min(len(whole), max_length)
        assert row[kept].tolist() == [*whole[: length - 1], tokenizer.eos_token_id]
        assert kept[:length].all() and not kept[length:].any() and not row[length:].any()
        assert (row[kept] == tokenizer.eos_token_id).sum() == 1
        assert tokenizer.bos_token_id is None or (row[kept] == tokenizer.bos_token_id).nonzero().tolist() == [[0]]


@FAMILIES
@pytest.mark.parametrize("saved", [False, True])
def test_a_tokenizer_travels_to_workers(family: str, saved: bool, folder_of: Callable) -> None:
    folder = folder_of(family)
    if saved:
        save_by_transformers(folder)
    tokenizer = load(family, folder)
    shutil.rmtree(folder)
    assert pickle.loads(pickle.dumps(tokenizer))([*ORDINARY, *ODD]) == tokenizer([*ORDINARY, *ODD])


def test_pieces_become_text_again(folder_of: Callable) -> None:
    tokenizer = load("llama", folder_of("llama", "real"))
    assert tokenizer.decode(tokenizer.encode("The answer is (A).")) == "The answer is (A)."


# Folders as they lie on disks


def save_by_transformers(folder: Path) -> None:
    """Leave of the tokenizer what save_pretrained writes."""
    loaded = AutoTokenizer.from_pretrained(folder)
    for file in (*OWN_FILE.values(), "tokenizer_config.json"):
        (folder / file).unlink(missing_ok=True)
    loaded.save_pretrained(folder)


def _bare(folder: Path) -> None:
    save_by_transformers(folder)
    (folder / "tokenizer_config.json").unlink()


def _put_above(folder: Path) -> None:
    for file in folder.glob("*.model"):
        file.rename(folder.parent / file.name)


EMPTY = {"bos_token": "", "eos_token": "", "unk_token": "", "tokenizer_class": "LLaMATokenizer"}
AS_THEY_LIE: dict[str, Callable[[Path], Any]] = {
    "no tokenizer_config.json": lambda folder: (folder / "tokenizer_config.json").unlink(),
    "the class alone": lambda folder: write(folder, "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast"),
    "empty special tokens": lambda folder: write(folder, "tokenizer_config.json", **EMPTY),
    "other special tokens": lambda folder: write(folder, "special_tokens_map.json", bos_token="a", eos_token="b"),
    "one more token": lambda folder: write(folder, "added_tokens.json", **{"[PAD]": 32000}),
    "another end in config.json": lambda folder: edit(folder, "config.json", lambda c: c.update(eos_token_id=1)),
    "saved by transformers": save_by_transformers,
    "tokenizer.json alone": _bare,
    "above the folder": _put_above,
}


@FAMILIES
@pytest.mark.parametrize("kind", ["shapes", "real"])
@pytest.mark.parametrize("way", AS_THEY_LIE)
def test_ids_are_the_same_however_a_folder_lies(way: str, kind: str, family: str, folder_of: Callable) -> None:
    if kind == "real" and way == "another end in config.json":
        pytest.skip("the real tokenizers have no model")
    folder = folder_of(family, kind)
    # Without its own file LLaMA's spaces are cut as tokenizer.json says.
    odd = [text for text in ODD if text.split(" ") == text.split()]
    expected = load(family, folder)([*ORDINARY, *odd])
    AS_THEY_LIE[way](folder)
    assert load(family, folder)([*ORDINARY, *odd]) == expected


@torch.no_grad()
@pytest.mark.parametrize("key, value", [("eos", 1), ("eos", [5, 7]), ("eos", None), ("pad", -1), ("pad", 32000)])
def test_llama_reads_the_last_token_whatever_its_config_says(key: str, value: Any, folder_of: Callable) -> None:
    folder = folder_of("llama")
    batch = load("llama", folder)(["is it red ?", "is it left of the circle ?"], "longest", return_tensors="pt")

    def read() -> torch.Tensor:
        backbone = load_backbone(str(folder)).eval()
        state = backbone.embed(batch)
        for layer in range(len(backbone.layers)):
            state = backbone.run_layer(layer, state)
        assert state.read[1].tolist() == (batch["attention_mask"].sum(1) - 1).tolist()
        return backbone.read_out(state)

    expected = read()
    edit(folder, "config.json", lambda config: config.update({f"{key}_token_id": value}))
    changed = read()
    assert torch.equal(changed, expected) and not torch.equal(*changed)
    assert load_with_head(str(folder))[0].model.get_input_embeddings().padding_idx is None


@pytest.mark.parametrize("cased", [False, True])
def test_bert_without_settings_lowers_what_its_vocabulary_lowers(cased: bool, tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "is", "it", "red", *(["Is", "It"] if cased else [])]
    (tmp_path / "vocab.txt").write_text("\r\n".join(words) + "\r\n", encoding="utf-8", newline="")
    assert load("bert", tmp_path)("Is it red")["input_ids"] == [2, 7 if cased else 4, 5, 6, 3]


# LLaMA 3: byte-level BPE, special tokens of other names, neither <unk> nor padding

LLAMA3 = {"bos_token": "<|begin_of_text|>", "eos_token": {"content": "<|end_of_text|>", "special": True}}


def write_llama3(folder: Path) -> None:
    """Replace the folder's tokenizer by one of LLaMA 3's kind."""
    tokenizer = tokenizers.Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*ORDINARY, LONG, "what colour is the small triangle"] * 3, trainer)
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    tokenizer.add_special_tokens(special)
    begin = (special[0], tokenizer.token_to_id(special[0]))
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{special[0]} $A", special_tokens=[begin])
    (folder / "tokenizer.model").unlink()
    tokenizer.save(str(folder / "tokenizer.json"))
    write(folder, "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", **LLAMA3)


def test_a_llama_3_begins_ends_and_pads_its_texts(folder_of: Callable) -> None:
    folder = folder_of("llama")
    write_llama3(folder)
    own = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    begin, end = (own.token_to_id(token) for token in ("<|begin_of_text|>", "<|end_of_text|>"))
    tokenizer, texts = load("llama", folder), [*ORDINARY, *ODD, LONG]
    batch = tokenizer(texts, padding="longest", truncation=True, max_length=16, return_tensors="pt")
    own.encode_special_tokens = True
    for text, ids, keep in zip(texts, *batch.values(), strict=True):
        words = own.encode(text, add_special_tokens=False).ids
        assert ids[keep.bool()].tolist() == [begin, *words[:14], end]
        assert not ids[~keep.bool()].any()
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert pickle.loads(pickle.dumps(tokenizer))(texts) == tokenizer(texts)
    backbone = load_backbone(str(folder)).eval()
    assert backbone.embed(batch).read[1].tolist() == (batch["attention_mask"].sum(1) - 1).tolist()


@pytest.mark.parametrize("listed", [False, True])
def test_a_tokenizer_json_that_could_write_its_special_tokens_does_not(listed: bool, tmp_path: Path) -> None:
    """Its merges make them of a text, and they are listed as ordinary tokens, or not at all."""
    merges = [("</", "s>"), ("<", "s>"), ("<", "/"), ("s", ">"), ("▁", "is"), ("i", "s")]
    pieces = ["<unk>", "<s>", "</s>", *"▁<>/isrd", "</", "s>", "is", "▁is"]
    order = [2, 3, 0, 1, 5, 4]
    model = models.BPE({piece: number for number, piece in enumerate(pieces)}, [merges[place] for place in order])
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    if listed:
        tokenizer.add_tokens(["<s>", "</s>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert {1, 2} & {number for text in ("</s>", "<s>") for number in tokenizer.encode(text).ids}
    found = load("llama", tmp_path)
    assert (found.bos_token_id, found.eos_token_id) == (1, 2)
    for text in ("is</s>", "<s>is", "</s>", "<s>"):
        assert not {1, 2} & set(found.encode(text))
    assert found("is")["input_ids"] == [1, pieces.index("▁is"), 2]


def test_a_folder_with_vocab_json_alone_is_put_together_by_transformers(tmp_path: Path) -> None:
    TOKENIZERS["RobertaTokenizer"](tmp_path)
    tokenizer = load_tokenizer(str(tmp_path), BACKBONES["bert"].vocabulary, pad_token_id=1)
    own = AutoTokenizer.from_pretrained(tmp_path)
    texts = [text for text in [*ORDINARY, *ODD] if "<" not in text]
    assert tokenizer(texts, padding="longest") == dict(own(texts, padding="longest"))
    assert not {tokenizer.bos_token_id, tokenizer.eos_token_id} & set(tokenizer.encode("<s> is </s>"))


# What is refused


def _sentencepiece(folder: Path, **options: Any) -> None:
    model = io.BytesIO()
    texts = iter([LONG, *ORDINARY[:4]] * 3)
    sizes = {"vocab_size": 300, "hard_vocab_limit": False, "model_type": "bpe", "byte_fallback": True, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=texts, model_writer=model, **sizes | options)
    (folder / "tokenizer.model").write_bytes(model.getvalue())


def _json(change: Callable[[dict], Any]) -> Callable[[Path], None]:
    """tokenizer.json, as transformers saves it, with a change."""

    def spoil(folder: Path) -> None:
        save_by_transformers(folder)
        edit(folder, "tokenizer.json", change)

    return spoil


def _llama3(**settings: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        write_llama3(folder)
        write(folder, "tokenizer_config.json", **settings)

    return spoil


def _text(name: str, content: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(content, encoding="utf-8")


def _other(family: str) -> Callable[[Path], Any]:
    return lambda folder: shutil.copy(SHAPES / family / OWN_FILE[family], folder / OWN_FILE["llama"])


def _instead(name: str, family: str) -> Callable[[Path], Any]:
    """A file of another family's, under a name, in the place of the own one."""

    def spoil(folder: Path) -> None:
        (folder / "vocab.txt").unlink()
        write(folder, "tokenizer_config.json", tokenizer_class="RobertaTokenizer" if name == "vocab.json" else None)
        shutil.copy(SHAPES / family / OWN_FILE[family], folder / name)

    return spoil


TIKTOKEN = "IQ== 0\nIg== 1\nIw== 2\n"
REFUSED: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "no tokenizer": ("llama", lambda f: (f / "tokenizer.model").unlink(), "holds no tokenizer .tokenizer.model or tok"),
    "tiktoken": ("llama", _text("tokenizer.model", TIKTOKEN), "tokenizer.model is not a SentencePiece model.*LLaMA 3"),
    "a relative's": ("bert", _instead("spiece.model", "t5"), "spiece.model gives a vocabulary without words: put this"),
    "a relative's, damaged": ("bert", _instead("vocab.json", "bert"), "cannot read the tokenizer of .*put the model's"),
    "a pointer": ("t5", _text("spiece.model", "version https://git-lfs\n"), "spiece.model is not a .*copy it again"),
    "empty": ("llama", _text("tokenizer.model", ""), "tokenizer.model is not a SentencePiece model"),
    "T5's": ("llama", _other("t5"), "tokenizer.model has no bos_token .<s>.: it is another model's"),
    "no end": ("llama", lambda f: _sentencepiece(f, eos_id=-1), "tokenizer.model has no eos_token .</s>."),
    "unknown words end": (
        "llama",
        _json(lambda c: c["model"].update(unk_token="</s>", byte_fallback=False, fuse_unk=False)),
        "tokenizer.json takes '.*' in a text for the text's beginning or end",
    ),
    "not lowered": (
        "bert",
        lambda f: write(f, "tokenizer_config.json", do_lower_case=False),
        "vocab.txt cuts .* into \\[UNK\\].*mend do_lower_case in the tokenizer_config.json beside it",
    ),
    "no [SEP]": ("bert", _text("vocab.txt", "[PAD]\n[UNK]\n[CLS]\nis\nit"), r"vocab.txt lacks '\[SEP\]': name its sep"),
    "settings": ("bert", _text("tokenizer_config.json", "{"), "tokenizer_config.json is not whole JSON.*copy it again"),
    "no object": ("bert", _text("tokenizer_config.json", "[]"), "tokenizer_config.json holds a list, not an object"),
    "first word": (
        "llama",
        _json(lambda c: c["pre_tokenizer"].update(prepend_scheme="never")),
        "tokenizer.json cuts .* not into its own words: copy",
    ),
    "no spaces": ("t5", _json(lambda c: c.update(pre_tokenizer=None)), "tokenizer.json cuts .* not into its own words"),
    "no model": ("t5", _json(lambda c: c.pop("model")), "tokenizer.json is not a tokenizer that can"),
    "no kind": ("t5", _json(lambda c: c["model"].update(type="?")), "tokenizer.json is not a tokenizer that can"),
    "LLaMA 3, bare": ("llama", _llama3(), "tokenizer.json lacks '<s>': name its bos_token in tokenizer_config.json"),
    "LLaMA 3, endless": ("llama", _llama3(bos_token="<|begin_of_text|>"), "lacks '</s>': name its eos_token in"),
    "too many ids": (
        "llama",
        lambda f: edit(f, "config.json", lambda config: config.update(vocab_size=599)),
        "tokenizer.model makes ids up to 599, but the vocabulary of .*config.json ends at 598",
    ),
    "too many words": (
        "bert",
        lambda f: edit(f, "config.json", lambda config: config.update(vocab_size=100)),
        "vocab.txt makes ids up to .*config.json ends at 99",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_other_ids_are_refused_and_the_file_is_named(fault: str, folder_of: Callable) -> None:
    family, spoil, sentence = REFUSED[fault]
    folder = folder_of(family)
    load(family, folder)
    spoil(folder)
    with pytest.raises(UserError, match=sentence) as refusal:
        load(family, folder)
    assert "\n" not in str(refusal.value)


@FAMILIES
def test_a_name_that_is_nowhere_is_refused(family: str) -> None:
    for name in ("./nowhere/model", "nobody/nothing-of-the-kind"):
        with pytest.raises(UserError, match="nowhere|nothing-of-the-kind"):
            load(family, Path(name))


def test_a_model_of_meta_s_folder_has_a_tokenizer(folder_of: Callable) -> None:
    folder = folder_of("llama")
    _put_above(folder)
    assert family_of(str(folder)) == "llama"
    (folder.parent / "tokenizer.model").unlink()
    with pytest.raises(UserError, match="holds no tokenizer"):
        family_of(str(folder))
