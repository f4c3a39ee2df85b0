"""A checkpoint answers as `test_only` does on the same rows, whatever a picture comes as, and needs nothing else."""

import io
import json
import shutil
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_world import NAMED_FAMILIES, picture, rows_of

import dvp
from dvp.config import SHAPES_MODELS
from dvp.data.arrow import open_table
from dvp.errors import UserError
from dvp.files import write_checksums
from dvp.scienceqa.data import COLUMNS
from dvp.scienceqa.text import read_answer
from dvp.tasks import TASKS

BERT = "dvp_adaption_bert_vqa"
EMBEDDED = {"clip_model": str(SHAPES_MODELS / "clip"), "image_size": 60, "tokenizer": str(SHAPES_MODELS / "bert")}
CASES = {f"{family}": (f"dvp_adaption_{family}_vqa", {}) for family in NAMED_FAMILIES} | {
    "adapters": ("dvp_adaption_bert_gqa", {"use_adapter": True}),
    "as published": ("dvp_adaption_t5_gqa", {"as_published": True}),
    "blind": ("dvp_adaption_bert_gqa", {"image_tokens": "zero"}),
    "the embedded world's": ("dvp_adaption_bert_gqa", EMBEDDED),
    "a search": ("dvp_search_bert_gqa", {"search_sample": "all"}),
}


@pytest.mark.parametrize("case", CASES)
def test_answers_are_those_of_a_test_on_the_same_rows(case: str, checkpoint, command, data_root, tmp_path) -> None:
    experiment, changes = CASES[case]
    task = experiment.rpartition("_")[2]
    rows = rows_of(task, TASKS[task].test[0])
    asked = [(row["image"], *pair) for row in rows for pair in zip(row["questions"], row["question_id"], strict=True)]
    last = levelled(checkpoint(experiment, **changes), asked, tmp_path / "last.ckpt")
    command("with", test_only=True, load_path=last, data_root=data_root, log_dir=tmp_path, num_gpus=0, num_workers=0)
    names = TASKS[task].submission
    expected = {row[names[0]]: row[names[1]] for row in json.loads(next(tmp_path.glob("*_last.json")).read_text())}
    answers = dvp.load(last).answer([row[0] for row in asked], [row[1] for row in asked], batch_size=3)
    assert {number: answer.text for (_, _, number), answer in zip(asked, answers, strict=True)} == expected
    assert len(set(expected.values())) > 1


def levelled(checkpoint: Path, asked: list[tuple[bytes, str, Any]], to: Path) -> Path:
    """A copy of a checkpoint in which no answer is likelier than others over these questions, so that they differ."""
    model = dvp.load(shutil.copytree(checkpoint, to))
    batch = model.reader.collate([model.prepare(image, question).row for image, question, _ in asked])
    weights = load_file(to / "weights.safetensors")
    weights["model.head.answer.bias"] -= model.model(batch, model.insert_layer).mean(0)
    save_file(weights, to / "weights.safetensors")
    write_checksums(to)
    return to


@pytest.mark.parametrize("answer_by, prompt_format", [("generate", "QCM-ALE"), ("likelihood", "QCM-ALE"), ("generate", "QCM-LEA")])  # fmt: skip  # noqa: E501
def test_science_qa_writes_what_its_test_writes(
    answer_by: str, prompt_format: str, science, checkpoint, command, tmp_path
) -> None:
    tables, settings = science
    last = checkpoint("dvp_adaption_llama_sqa", prompt_format=prompt_format, **settings)
    options = {"answer_by": answer_by, "max_new_tokens": 12}
    command("with", test_only=True, load_path=last, data_root=tables, log_dir=tmp_path, num_gpus=0, num_workers=0, **options)  # fmt: skip  # noqa: E501
    tested = json.loads((tmp_path / "sqa_last.json").read_text())
    rows = open_table(str(tables), "scienceqa", "test", COLUMNS).to_pylist()
    columns = [[row[name] or None if name == "image" else row[name] for row in rows] for name in ("image", "question", "choices", "hint")]  # fmt: skip  # noqa: E501
    answers = dvp.load(last, **options).answer(*columns, batch_size=4)
    for row, answer in zip(rows, answers, strict=True):
        assert answer.written == tested["outputs"][row["question_id"]]
        named = read_answer(answer.written, len(row["choices"]))
        assert (-1 if named is None else named) == tested["results"][row["question_id"]]
        assert answer.text == ("" if named is None else row["choices"][named])
        assert {one.text[4:] for one in answer.candidates} == set(row["choices"])
        assert sum(one.probability for one in answer.candidates) == pytest.approx(1)
        if answer_by == "likelihood":
            assert answer.text == answer.candidates[0].text[4:]


@pytest.fixture
def model(checkpoint):
    return dvp.load(checkpoint(BERT))


def test_a_picture_is_a_path_bytes_or_pils(model, tmp_path: Path) -> None:
    data = picture(5)
    (tmp_path / "a.png").write_bytes(data)
    images = [tmp_path / "a.png", str(tmp_path / "a.png"), data, Image.open(io.BytesIO(data))]
    one, *others = [model.answer(image, "is there a red circle") for image in images]
    assert others == [one] * 3
    assert (
        model.answer(images, "is there a red circle") == [pytest.approx(one)] * 4
        or [answer.text for answer in model.answer(images, "is there a red circle")] == [one.text] * 4
    )


def test_candidates_are_the_likeliest_and_probabilities_the_tasks(model, checkpoint) -> None:
    answer = model.answer(picture(5), "is there a red circle", top=3)
    chances = [one.probability for one in answer.candidates]
    assert len(chances) == 3 and chances == sorted(chances, reverse=True)
    assert (answer.text, answer.probability) == answer.candidates[0]
    gqa = dvp.load(checkpoint("dvp_adaption_bert_gqa"))
    answer = gqa.answer(picture(5), "is there a red circle", top=1000)
    assert sum(one.probability for one in answer.candidates) == pytest.approx(1)
    prepared = model.prepare(picture(5), "is there a red circle")
    logits = model.model(model.reader.collate([prepared.row]), 1)
    whole = model.answer(picture(5), "is there a red circle", top=1000)
    assert {one.text: one.probability for one in whole.candidates} == pytest.approx(
        dict(zip(model.reader.answers, logits.sigmoid()[0].tolist(), strict=True))
    )


def test_it_is_a_module_in_eval_mode_that_leaves_the_generator_alone(checkpoint) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    model = dvp.load(checkpoint(BERT))
    assert torch.equal(torch.rand(2), expected)
    assert isinstance(model, torch.nn.Module) and not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.to("cpu").device.type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_gpu_answers_alike(device: str, checkpoint) -> None:
    questions = ["is there a red circle", "no circle is yellow"]
    here = dvp.load(checkpoint(BERT)).answer(picture(5), questions)
    there = dvp.load(checkpoint(BERT), device=device, precision=32).to("cuda").answer(picture(5), questions)
    assert [one.text for one in there] == [one.text for one in here]


def test_another_layer_and_lists_of_other_lengths(model) -> None:
    at = [model.answer(picture(5), "no circle is yellow", insert_layer=layer).probability for layer in range(3)]
    assert len(set(at)) == 3 and at[1] == model.answer(picture(5), "no circle is yellow").probability
    with pytest.raises(UserError, match="give one from 0 to 2"):
        model.answer(picture(5), "no circle is yellow", insert_layer=3)
    with pytest.raises(UserError, match="2 of image, 3 of question"):
        model.answer([picture(5)] * 2, ["a", "b", "c"])
    with pytest.raises(UserError, match="leave choices"):
        model.answer(picture(5), "what", ["red", "blue"])


def test_import_is_cheap() -> None:
    script = "import sys, dvp; dvp.load; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", script]).returncode == 0


# Base weights


def test_base_weights_that_moved_are_named_and_found(checkpoint, tmp_path: Path, refused) -> None:
    base = shutil.copytree(json.loads((checkpoint(BERT) / "description.json").read_text())["config"]["tokenizer"], tmp_path / "base")  # fmt: skip  # noqa: E501
    moved = Path(shutil.copytree(checkpoint(BERT), tmp_path / "moved.ckpt"))
    text = (moved / "description.json").read_text()
    where = json.loads(text)["config"]["tokenizer"]
    (moved / "description.json").write_text(text.replace(where, str(tmp_path / "gone")))
    write_checksums(moved)
    with pytest.raises(UserError, match="gone, where no model is: say with tokenizer= where"):
        dvp.load(moved)
    gone = tmp_path / "no encoder"
    said = refused("predict", "with", load_path=moved, clip_model=gone, image="", question="is there a red circle")
    assert f"needs tokenizer={tmp_path / 'gone'} and clip_model={gone}, where no model is" in said
    with pytest.raises(UserError, match="tokenizer=bert-base-nowhere is no folder here, and .* cannot be reached"):
        dvp.load(moved, tokenizer="bert-base-nowhere")
    expected = dvp.load(checkpoint(BERT)).answer(picture(5), "is there a red circle")
    assert dvp.load(moved, tokenizer=base).answer(picture(5), "is there a red circle") == expected


@pytest.mark.parametrize("which", ["tokenizer", "clip_model"])
def test_another_base_is_refused_in_a_sentence(which: str, checkpoint, make_language_model, tmp_path: Path) -> None:
    if which == "tokenizer":
        with pytest.raises(UserError, match="language_model=BERT but .* holds a T5 model"):
            dvp.load(checkpoint(BERT), tokenizer=make_language_model("t5"))
        other = make_language_model("bert", intermediate_size=40)
        with pytest.raises(UserError, match="frozen weights are others"):
            dvp.load(checkpoint("dvp_adaption_bert_gqa", use_adapter=True), tokenizer=other)
        return
    with pytest.raises(UserError, match="image_size=16 but .* takes 60 pixels"):
        dvp.load(checkpoint(BERT), clip_model=EMBEDDED["clip_model"])


def test_what_is_no_checkpoint_of_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file.ckpt").write_bytes(b"a")
    for path, message in (("nowhere", "no checkpoint"), ("file.ckpt", "is a file"), (".", "no description.json")):
        with pytest.raises(UserError, match=message):
            dvp.load(tmp_path / path)


# Pictures and questions


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    image.save(buffer := io.BytesIO(), kind, **options)
    return buffer.getvalue()


TURNED = Image.Exif()
TURNED[0x0112] = 6
FRAMES = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
PICTURES: dict[str, tuple[bytes, str]] = {
    "one pixel": (file_of(Image.new("RGB", (1, 1))), ""),
    "20,000 wide": (file_of(Image.new("L", (20_000, 3))), ""),
    "CMYK": (file_of(Image.new("CMYK", (9, 9)), "JPEG"), ""),
    "turned": (file_of(Image.effect_noise((9, 6), 50), "JPEG", exif=TURNED), "lies on its side"),
    "animated": (file_of(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), "its first frame"),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_odd_pictures_are_answered_and_what_is_odd_is_said(kind: str, model) -> None:
    data, said = PICTURES[kind]
    answer = model.answer(data, "is there a red circle")
    assert answer.candidates and [note for note in answer.notes if said in note] == list(answer.notes)
    assert bool(answer.notes) == bool(said)


def test_the_first_frame_is_looked_at(model) -> None:
    first = model.answer(PICTURES["animated"][0], "is there a red circle")
    assert first.probability == pytest.approx(model.answer(FRAMES[0], "is there a red circle").probability, abs=1e-4)
    assert first.probability != pytest.approx(model.answer(FRAMES[1], "is there a red circle").probability, abs=1e-4)


def test_pictures_are_turned_where_those_of_the_training_were(checkpoint) -> None:
    model = dvp.load(checkpoint(BERT, turn_pictures=True))
    assert model.answer(PICTURES["turned"][0], "is there a red circle").notes == ()
    turned = model.prepare(PICTURES["turned"][0], "is there a red circle").asked.picture
    assert turned.size == (6, 9)


def no_picture(path: Path) -> Any:
    path.write_bytes(b"hello")
    return path


def over_100_mb(path: Path) -> Any:
    with open(path, "wb") as file:
        file.truncate(10**12)  # takes no room on the disk, and has none in memory
    return path


REFUSED = {
    "none": (lambda path: None, "picture is missing"),
    "no picture": (no_picture, "a.png is truncated or no picture"),
    "empty": (lambda path: b"", "empty"),
    "cut": (lambda path: picture(1)[:200], "truncated"),
    "cut, of PIL's": (lambda path: Image.open(io.BytesIO(picture(1)[:200])), "truncated"),
    "not there": (lambda path: path, "a.png cannot be read"),
    "a folder": (lambda path: path.parent, "cannot be read"),
    "a number": (lambda path: 7, "picture 7 is none"),
    "over 100 MB": (over_100_mb, "a.png is too large: it has 1,000,000 MB"),
    "too many pixels": (lambda path: file_of(Image.new("1", (20_000, 20_000))), "over .* pixels"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_picture_is_refused_in_a_sentence(kind: str, model, tmp_path: Path) -> None:
    make, message = REFUSED[kind]
    with pytest.raises(UserError, match=message) as refusal:
        model.answer(make(tmp_path / "a.png"), "is there a red circle")
    assert len(str(refusal.value).splitlines()) == 1
    assert "".join(traceback.format_exception(refusal.value)).count("Traceback") == 1  # all is said in the sentence


@pytest.mark.parametrize("question", ["", "  ", None, 7])
def test_an_empty_question_is_refused(question: Any, model) -> None:
    with pytest.raises(UserError, match="question is"):
        model.answer(picture(1), question)


def test_a_long_question_is_cut_and_that_is_said(model) -> None:
    words = "is there a red circle " * 500
    answer = model.answer(picture(1), words[:10_000])
    assert [note for note in answer.notes if "10,000 characters" in note]
    assert [note for note in answer.notes if "the first 16 are read" in note]
    assert answer.text == model.answer(picture(1), words[:200]).text
    assert model.answer(picture(1), "is there \ud800 a red circle").notes == ()


def test_the_command_shows_the_choices_and_what_is_written(science, checkpoint, command, capsys) -> None:
    last = checkpoint("dvp_adaption_llama_sqa", prompt_format="QCM-ALE", **science[1])
    asked = {"question": "Which colour is it ?", "choices": "red| blue", "hint": "Look at the square ."}
    expected = dvp.load(last).answer(None, asked["question"], ["red", "blue"], asked["hint"])
    capsys.readouterr()
    command("predict", "with", load_path=last, **asked)
    printed = capsys.readouterr().out
    assert all(f"{one.text}" in printed and f"{one.probability:.2%}" in printed for one in expected.candidates)
    assert printed.rstrip().endswith(expected.written)
    assert dvp.load(last, answer_by="likelihood").answer(None, asked["question"], ["red", "blue"]).letter in "AB"


@pytest.mark.parametrize("choices", [[], ["red"], ["red"] * 6, ["red", " "]])
def test_science_qa_wants_two_to_five_choices(choices: list[str], science, checkpoint) -> None:
    model = dvp.load(checkpoint("dvp_adaption_llama_sqa", prompt_format="QCM-ALE", **science[1]))
    with pytest.raises(UserError, match="choices"):
        model.answer(None, "Which colour is it ?", choices)
