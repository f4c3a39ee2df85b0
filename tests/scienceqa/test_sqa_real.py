"""Real problems and the real tokenizer, with a small random model."""

import hashlib
import json
import os
from functools import partial
from pathlib import Path

import pytest
import sqa_worlds as worlds
import torch
from PIL import Image

from dvp.backbones import BACKBONES
from dvp.data import QuestionData
from dvp.encoders.transform import prepare
from dvp.prepare import convert
from dvp.scienceqa.data import SQUEEZED, ProblemReader
from dvp.scienceqa.generate import generate
from dvp.scienceqa.text import write_example
from dvp.scienceqa.tokens import IGNORED, Layout, encode_row
from dvp.tasks import TASKS

REAL, GOLDEN = os.environ.get("DVP_REAL_DATA"), os.environ.get("DVP_GOLDEN_SQA")
HASHES = json.loads((Path(__file__).parents[1] / "golden/sqa/prompts.json").read_text())
pytestmark = pytest.mark.skipif(not REAL, reason="needs DVP_REAL_DATA, real problems and LLaMA's tokenizer")
needs_golden = pytest.mark.skipif(
    not GOLDEN, reason="needs DVP_GOLDEN_SQA, prompts and token ids of the published code"
)


@pytest.fixture(scope="module")
def problems():
    folder = Path(REAL) / "mini_scienceqa"
    captions = json.loads((folder / "captions.json").read_text())["captions"]
    found = json.loads((folder / "problems.json").read_text())
    return {pid: problem | {"caption": captions.get(pid, "")} for pid, problem in found.items()}


@pytest.fixture(scope="module")
def tokens():
    return BACKBONES["llama"].tokenizer(str(Path(REAL) / "tokenizers" / "llama-7b"))


@pytest.fixture(scope="module")
def layout(tokens):
    return Layout(tuple(tokens.encode("Image: ")), tuple(tokens.encode("Image: N/A")), class_tokens=2)


@pytest.fixture(scope="module")
def data(tokens, layout, tmp_path_factory):
    root = str(tmp_path_factory.mktemp("real"))
    convert("scienceqa", str(Path(REAL) / "mini_scienceqa"), root)
    transform = partial(prepare, how=SQUEEZED.at(32))
    reader = ProblemReader(tokens, layout, transform, prompt_format="QCM-ALE", use_caption=False)
    sizes = {"batch_size": 8, "search_batch_size": 16, "by_length": True, "num_workers": 0}
    return QuestionData(TASKS["scienceqa"], root, reader, pick=("val",), test=("test",), **sizes)


@pytest.mark.parametrize("golden", HASHES, ids=lambda golden: f"{golden['pid']}-{golden['format']}")
def test_prompts_have_the_stored_hashes(golden, problems):
    written = write_example(problems[golden["pid"]], golden["format"], golden["use_caption"])
    assert [hashlib.sha256(text.encode()).hexdigest() for text in written] == [golden["input"], golden["output"]]


@needs_golden
def test_all_prompts_equal_the_published_ones(problems):
    published = json.loads((Path(GOLDEN) / "prompts/prompts.json").read_text())
    assert len(published) >= 96
    for one in published:
        written = write_example(problems[one["pid"]], one["format"], one["use_caption"])
        assert written == (one["input"], one["output"])


@needs_golden
def test_token_ids_equal_the_published_ones(problems, tokens, layout):
    published = json.loads((Path(GOLDEN) / "prompts/token_ids.json").read_text())
    assert (tokens.bos_token_id, tokens.eos_token_id) == (published["bos"], published["eos"])
    assert list(layout.image_prefix) == published["prefix_img_ids"]
    assert list(layout.text_prefix) == published["prefix_nonimg_ids"]
    for one in published["rows"]:
        row = encode_row(tokens, *write_example(problems[one["pid"]], one["format"], one["use_caption"]), False)
        assert row.ids.tolist() == one["example_ids"] and row.prompt_length == one["prompt_len"]
        assert [tokens.bos_token_id, *row.ids[1 : 1 + row.prompt_length].tolist()] == one["prompt_ids"]
        assert row.labels.tolist() == [IGNORED] * (1 + row.prompt_length) + row.ids[1 + row.prompt_length :].tolist()


def test_all_problems_convert_and_44_examples_are_too_long(data):
    # 512 positions with six class tokens, as with CLIP ViT-L/14.
    layout = Layout(data.reader.layout.image_prefix, data.reader.layout.text_prefix, class_tokens=6)
    reader = ProblemReader(data.reader.tokens, layout, None, prompt_format="QCM-ALE", use_caption=False)
    reader.transform = data.reader.transform
    found = {split: reader.dataset({split: data.tables[split]}, "train") for split in ("train", "val", "test")}
    assert {split: len(rows) for split, rows in found.items()} == {"train": 60, "val": 32, "test": 314}
    assert sum(map(reader.count_cut, found.values())) == 44


def test_rows_of_like_length_share_a_batch(data):
    for loader in (data.train_dataloader(), *data.val_dataloader(), *data.test_dataloader()):
        batches = list(loader)
        taken = sum(batch["input_ids"].numel() for batch in batches)
        assert taken <= 1.3 * sum(batch["length"].sum().item() for batch in batches)


def test_generation_runs_on_real_problems(data, tokens):
    torch.manual_seed(0)
    model = worlds.build(worlds.clip_model(), worlds.llama_model(32000), data.reader.layout).eval()
    batch = next(iter(data.test_dataloader()[0]))
    answers = generate(model, batch, 1, tokens.eos_token_id, data.reader.layout.max_length, max_new_tokens=3)
    assert len(answers) == 8 and all(isinstance(tokens.decode(ids), str) for ids in answers)


def test_pictures_are_squeezed_to_a_square():
    picture = Image.open(next((Path(REAL) / "mini_scienceqa/images").rglob("*.png")))
    assert picture.size[0] != picture.size[1]
    pixels = prepare(picture, SQUEEZED)
    assert pixels.shape == (3, 224, 224)
    plain = torch.tensor(list(picture.convert("RGB").resize((224, 224), Image.BICUBIC).getdata())).T / 255
    expected = (plain - torch.tensor([[0.485], [0.456], [0.406]])) / torch.tensor([[0.229], [0.224], [0.225]])
    torch.testing.assert_close(pixels.flatten(1), expected, atol=1e-5, rtol=0)
