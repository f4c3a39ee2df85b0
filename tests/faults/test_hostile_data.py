"""Checkpoints, tables, pictures, texts and answers that are hostile or odd: each is right, or refused in a sentence."""

import io
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile import PICTURES, SHARES, cases, sound_pictures, taken_or_refused
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_world import rows_of, write_table

from dvp.backbones import BACKBONES
from dvp.checkpoints import load_trained, read_checkpoint
from dvp.data.arrow import check_answers, open_table, question_index, read_picture
from dvp.errors import UserError
from dvp.evaluation import vqa
from dvp.evaluation.answers import normalise_answer
from dvp.evaluation.submission import predictions
from dvp.files import check_checksums, write_checksums
from dvp.images import open_image, rgb, traits
from dvp.tasks import TASKS

# Checkpoints

OLD = Path(__file__).parents[1] / "golden" / "formats" / "unversioned" / "bert"


@pytest.fixture(scope="module")
def good(place: Path) -> Path:
    """A checkpoint folder with checksums."""
    folder = Path(shutil.copytree(OLD / "search.ckpt", place / "good.ckpt"))
    write_checksums(folder)
    return folder


FILES = ["weights.safetensors", "training.safetensors", "training.json", "description.json", "checksums.json"]


@cases(150)
@given(name=st.sampled_from(FILES), at=SHARES, bit=st.integers(0, 7), cut=st.booleans())
def test_a_flip_or_a_cut_anywhere_in_a_checkpoint_is_named_by_file(name, at, bit, cut, good: Path) -> None:
    path = good / name
    data = path.read_bytes()
    place = int(at * len(data))
    spoilt = data[:place] if cut else data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
    path.write_bytes(spoilt)
    try:
        with pytest.raises(UserError, match=name):
            check_checksums(good, *FILES[:-1])
    finally:
        path.write_bytes(data)


def test_without_checksums_a_flipped_bit_is_another_weight(good: Path, place: Path, monkeypatch) -> None:
    copy = Path(shutil.copytree(good, place / "flipped.ckpt"))
    weights = bytearray((copy / "weights.safetensors").read_bytes())
    weights[-2] ^= 1 << 3
    (copy / "weights.safetensors").write_bytes(weights)
    with pytest.raises(UserError, match="weights.safetensors is not as it was written"):
        read_checkpoint(str(copy))
    monkeypatch.setattr("dvp.checkpoints.folder.check_checksums", lambda folder, *names: None)
    found, right = read_checkpoint(str(copy))[0], read_checkpoint(str(good))[0]
    assert sum(not torch.equal(found[name], right[name]) for name in right) == 1


@st.composite
def safetensors(draw: Callable[..., Any]) -> bytes:
    """The bytes of a file of weights: damaged, or with another type, shape or place of a tensor."""
    data = bytearray((OLD / "adapters.ckpt" / "weights.safetensors").read_bytes())
    way = draw(st.sampled_from(["cut", "flip", "header", "length", "binary"]))
    size = struct.unpack("<Q", data[:8])[0]
    if way == "cut":
        return bytes(data[: draw(st.integers(0, len(data)))])
    if way == "flip":
        data[draw(st.integers(0, len(data) - 1))] ^= 1 << draw(st.integers(0, 7))
        return bytes(data)
    if way == "length":
        return struct.pack("<Q", draw(st.integers(0, 2**64 - 1))) + bytes(data[8:])
    if way == "binary":
        return draw(st.binary(max_size=64))
    header = json.loads(data[8 : 8 + size])
    name = draw(st.sampled_from([name for name in header if name != "__metadata__"]))
    field = draw(st.sampled_from(["dtype", "shape", "data_offsets"]))
    shapes = st.lists(st.integers(-1, 2**40), max_size=3)
    header[name][field] = draw(st.sampled_from(["F64", "I8", "BF16", "F8_E5M2", "X"]) if field == "dtype" else shapes)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data[8 + size :])


@cases(200)
@given(data=safetensors())
def test_weights_are_whole_or_refused(data: bytes, place: Path, answering_model: torch.nn.Module) -> None:
    folder = place / "weights.ckpt"  # of before there were checksums
    folder.mkdir(exist_ok=True)
    shutil.copy(OLD / "adapters.ckpt" / "description.json", folder)
    (folder / "weights.safetensors").write_bytes(data)
    found = taken_or_refused(lambda: read_checkpoint(str(folder)), "weights.safetensors")
    if found:
        taken_or_refused(lambda: load_trained(answering_model, found[0]))
        assert all(parameter.isfinite().all() for parameter in answering_model.parameters())


@pytest.fixture(scope="module")
def answering_model() -> torch.nn.Module:
    """A module with parameters of the names and shapes of the weights."""
    weights = read_checkpoint(str(OLD / "adapters.ckpt"))[0]
    module = torch.nn.Module()
    for name, weight in weights.items():
        *path, last = name.split(".")
        inner = module
        for part in path:
            if part not in inner._modules:
                inner.add_module(part, torch.nn.Module())
            inner = inner._modules[part]
        inner.register_parameter(last, torch.nn.Parameter(torch.zeros_like(weight)))
    return module


# Tables


@pytest.fixture(scope="module")
def arrow(place: Path) -> bytes:
    write_table(place / "good.arrow", rows_of("vqa", "train"))
    return (place / "good.arrow").read_bytes()


@cases(250)
@given(flips=st.lists(st.tuples(SHARES, st.integers(0, 255)), max_size=4), end=st.floats(0, 1))
def test_a_table_opened_from_bytes(flips: list[tuple[float, int]], end: float, arrow: bytes, place: Path) -> None:
    data = bytearray(arrow)
    for at, value in flips:
        data[int(at * len(data))] = value
    path = place / "tables" / "vqav2_train.arrow"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)  # another file: this one may be mapped
    path.write_bytes(data if flips else data[: int(end * len(data))])
    task = TASKS["vqa"]

    def read() -> None:
        table = open_table(str(path.parent), task.files, "train", task.columns)
        check_answers([table], ["yes", "no", "red", "two"])
        for row in range(len(table)):
            read_picture(table, row, np.asarray)
        question_index(table)
        [one.as_py() for name in task.columns for one in table[name]]

    taken_or_refused(read, "vqav2_train.arrow")


# Pictures


@cases(100)
@given(sound=sound_pictures())
def test_a_picture_of_any_mode_and_size(sound: tuple[bytes, tuple[int, int]]) -> None:
    data, size = sound
    found, again = open_image(data, "in row 3"), Image.open(io.BytesIO(data))
    traits(data, "in row 3")
    assert found.mode == "RGB" and found.size == size
    assert np.array_equal(np.asarray(found), np.asarray(rgb(again)))
    if again.mode in ("RGB", "L", "1", "CMYK"):
        assert np.array_equal(np.asarray(found), np.asarray(again.convert("RGB")))


@cases(200)
@given(data=PICTURES)
def test_a_damaged_picture(data: bytes) -> None:
    found = taken_or_refused(lambda: open_image(data, "in row 3"), "in row 3")
    assert found is None or found.mode == "RGB"
    taken_or_refused(lambda: traits(data, "in row 3"), "in row 3")


# Texts


TEXTS = st.text(max_size=40) | st.text(st.characters(categories=["Cs", "Cc", "Mn", "So", "Lu"]), max_size=20)
TEXTS |= st.builds(lambda text, times: text * times, st.text(min_size=1, max_size=4), st.just(2500))


@pytest.fixture(scope="module")
def tokenizers(language_models: dict[str, str]) -> dict[str, Any]:
    return {family: BACKBONES[family].tokenizer(language_models[family]) for family in BACKBONES}


@cases(300)
@given(family=st.sampled_from(sorted(BACKBONES)), texts=st.lists(TEXTS, min_size=1, max_size=3))
def test_any_text_is_tokenised_alone_as_among_others(family: str, texts: list[str], tokenizers) -> None:
    tokenizer = tokenizers[family]
    batch = tokenizer(texts, padding="max_length", truncation=True, max_length=16, return_tensors="pt")
    assert batch["input_ids"].shape == (len(texts), 16) and 0 <= int(batch["input_ids"].max()) < tokenizer.size
    for text, row, kept in zip(texts, batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True):
        front = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        pieces = tokenizer.encode(text)[: 15 - len(front)]
        assert row[: sum(kept)] == [*front, *pieces, tokenizer.eos_token_id]
        assert tokenizer.encode(text.encode("utf-8", "replace").decode()) == tokenizer.encode(text)
        assert not {tokenizer.bos_token_id, tokenizer.eos_token_id} & set(pieces)


# Scores and answers


def reading(answer: str, given: list[str]) -> float:
    """The accuracy of an answer by the rule of VQA: the mean over the annotators of what the others agree on."""
    if len(set(given)) > 1:
        answer, given = normalise_answer(answer), [normalise_answer(one) for one in given]
    hits = [one.lower() == answer.lower() for one in given]
    return sum(min(1, (sum(hits) - hit) / 3) for hit in hits) / len(given)


ODD = ["yes", "no", "2", "two", "Two.", "a red", "red", "don't", "1,000", "İ", "\ud800"]
ANSWERS = st.sampled_from(ODD) | st.text(max_size=6)


@cases(200)
@given(answer=ANSWERS, given_=st.lists(ANSWERS, min_size=1, max_size=10))
def test_an_answer_scores_as_the_rule_reads(answer: str, given_: list[str]) -> None:
    line = [" ".join(one.replace("\t", "\n").split("\n")).strip() for one in given_]
    annotators = [{"answer": one, "answer_id": number} for number, one in enumerate(given_)]
    wanted = reading(" ".join(answer.replace("\t", "\n").split("\n")).strip(), line)
    assert vqa.answer_accuracy(answer, annotators) == pytest.approx(wanted)


IDS = st.integers(0, 5) | st.sampled_from(["1", "x", None, True, 1.0])
ROWS = st.lists(st.fixed_dictionaries({"question_id": IDS, "answer": ANSWERS | st.none() | st.integers()}), max_size=4)


@cases(200)
@given(rows=ROWS, asked=st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True))
def test_a_file_of_predictions_is_scored_or_refused(rows: list[dict[str, Any]], asked: list[int], place: Path) -> None:
    told = {"question_type": "what", "answer_type": "other", "answers": [{"answer": "yes", "answer_id": 1}]}
    files = {
        "predictions": rows,
        "questions": {"questions": [{"question_id": one} for one in asked]},
        "annotations": {"annotations": [told | {"question_id": one} for one in asked]},
    }
    for name, content in files.items():
        (place / f"{name}.json").write_text(json.dumps(content))
    paths = (str(place / f"{name}.json") for name in ("predictions", "annotations", "questions"))
    scores = taken_or_refused(lambda: vqa.score_files(*paths), "redictions")
    right = sorted(str(row["question_id"]) for row in rows) == sorted(map(str, asked))
    right = right and all(type(row["question_id"]) is int and isinstance(row["answer"], str) for row in rows)
    assert (scores is not None) == right and (not right or set(scores["perQuestion"]) == set(asked))


@cases(200)
@given(
    answered=st.lists(st.tuples(st.integers(0, 5), ANSWERS), max_size=6), asked=st.lists(st.integers(0, 5), max_size=6)
)
def test_every_question_is_answered_once_or_nothing_is_written(answered, asked) -> None:
    made = taken_or_refused(lambda: predictions(answered, asked, ("question_id", "answer")))
    whole = sorted(asked) == sorted(one for one, _ in answered) and len(set(asked)) == len(asked)
    assert (made is not None) == whole
    if made:
        assert {row["question_id"]: row["answer"] for row in made.content} == dict(answered)
