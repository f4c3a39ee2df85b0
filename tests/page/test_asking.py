"""What the page shows is what the model answers, for every family and ScienceQA; a refusal is its sentence."""

from pathlib import Path

import pytest
from PIL import Image
from tiny_world import NAMED_FAMILIES, picture

import dvp
from dvp import images
from dvp.page.asking import Shown, ask
from dvp.page.examples import EXAMPLES, find_examples, write_examples

QUESTION = "is there a red circle"
SCIENCE = "dvp_adaption_llama_sqa"


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(picture(1))
    return tmp_path / "a.png"


@pytest.mark.parametrize("family", NAMED_FAMILIES)
@pytest.mark.parametrize("task", ["vqa", "gqa", "snli_ve"])
def test_bars_and_panels_are_the_models(family: str, task: str, checkpoint, upload) -> None:
    model = dvp.load(checkpoint(f"dvp_adaption_{family}_{task}"))
    shown, answer = ask(model, str(upload), QUESTION, "", "", 1), model.answer(upload, QUESTION)
    assert shown.bars == dict(answer.candidates) and list(shown.bars)[0] == answer.text
    assert [panel.title.split(":")[0] for panel in shown.panels] == ["mean", "head 1", "head 2", "head 3", "head 4"]
    assert shown.written == ""
    assert list(model.layers) == [1]


@pytest.mark.parametrize("family", NAMED_FAMILIES)
def test_a_search_answers_at_every_layer(family: str, checkpoint, upload) -> None:
    model = dvp.load(checkpoint(f"dvp_search_{family}_vqa", search_sample="all"))
    shown = [ask(model, str(upload), QUESTION, "", "", layer) for layer in model.layers]
    assert len(shown) == model.model.num_layers
    for layer, one in zip(model.layers, shown, strict=True):
        assert one.bars == dict(model.answer(upload, QUESTION, insert_layer=layer).candidates)
    assert len({tuple(one.bars.values()) for one in shown}) == len(shown)


@pytest.mark.parametrize("sees", [True, False])
def test_science_qa_shows_what_it_writes_and_which_choice_that_names(sees: bool, science, checkpoint, upload) -> None:
    model = dvp.load(checkpoint(SCIENCE, prompt_format="QCM-ALE", **science[1]), max_new_tokens=12)
    shown = ask(model, str(upload) if sees else None, "Which colour is it ?", " red\n\nblue \n", "Look .", 1)
    answer = model.answer(upload if sees else None, "Which colour is it ?", ["red", "blue"], "Look .")
    assert shown.bars == dict(answer.candidates)
    assert shown.written == answer.written
    assert shown.names == (f"({answer.letter}) {answer.text}" if answer.letter else "no choice")
    assert len(shown.panels) == (1 + 4 if sees else 0)


def test_a_blind_model_shows_no_panels(checkpoint) -> None:
    model = dvp.load(checkpoint("dvp_adaption_bert_gqa", image_tokens="zero"))
    shown = ask(model, None, QUESTION, "", "", 1)
    assert shown.bars == dict(model.answer(None, QUESTION).candidates) and shown.panels == ()


REFUSED = {
    "no picture": (None, QUESTION, "The picture is missing"),
    "none": (b"hello", QUESTION, "The picture a.png is truncated or no picture (of no known format)"),
    "empty": (b"", QUESTION, "The picture a.png is empty"),
    "too many pixels": ("bomb", QUESTION, "The picture a.png is too large: it has over"),
    "too many bytes": ("bytes", QUESTION, "The picture a.png is too large: it has 0 MB, over"),
    "no question": (picture(1), " ", "The question is empty"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_is_a_sentence_that_tells_no_path(case: str, checkpoint, tmp_path: Path, monkeypatch) -> None:
    content, question, sentence = REFUSED[case]
    upload = tmp_path / "a.png"
    if content == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    if content == "bytes":
        monkeypatch.setattr(images, "MOST_BYTES", 100)
    if content is not None:
        upload.write_bytes(picture(1) if isinstance(content, str) else content)
    model = dvp.load(checkpoint("dvp_adaption_bert_vqa"))
    shown = ask(model, None if content is None else str(upload), question, "", "", 1)
    assert shown.note.startswith(sentence) and str(tmp_path) not in shown.note
    assert shown == Shown(note=shown.note)


def test_notes_are_shown_beside_the_answer(checkpoint, upload) -> None:
    model = dvp.load(checkpoint("dvp_adaption_bert_vqa"))
    shown = ask(model, str(upload), QUESTION + " is there" * 2000, "", "", 1)
    assert shown.bars and shown.note.count(".") == 2 and "The text takes" in shown.note


@pytest.mark.parametrize("family, said", [("bert", True), ("t5", True), ("llama", False)])  # whose words fall to bytes
def test_a_question_of_unknown_words_alone_is_noted(family: str, said: bool, checkpoint, upload) -> None:
    model = dvp.load(checkpoint(f"dvp_adaption_{family}_vqa"))
    note = ask(model, str(upload), "斑马 ?", "", "", 1).note
    assert ("The language model knows no word of the question" in note) == said
    assert ask(model, str(upload), "斑马 red ?", "", "", 1).note == ask(model, str(upload), "??", "", "", 1).note == ""


# Examples


@pytest.mark.parametrize("task", ["vqa", "gqa", "snli_ve"])
def test_examples_are_of_the_test_table_and_are_answered(task: str, checkpoint, tmp_path: Path) -> None:
    model = dvp.load(checkpoint(f"dvp_adaption_bert_{task}"))
    rows = write_examples(find_examples(model), tmp_path)
    assert 0 < len(rows) <= EXAMPLES
    for path, question, choices, hint in rows:
        assert choices is None and hint is None
        assert ask(model, path, question, "", "", 1).bars


def test_examples_of_science_qa_bring_choices_and_some_no_picture(science, checkpoint, tmp_path: Path) -> None:
    model = dvp.load(checkpoint(SCIENCE, prompt_format="QCM-ALE", **science[1]), max_new_tokens=2)
    rows = write_examples(find_examples(model), tmp_path)
    assert {path is None for path, *_ in rows} == {True, False}
    for path, question, choices, hint in rows:
        assert ask(model, path, question, choices, hint, 1).bars


def test_there_are_none_where_the_table_is_gone(checkpoint, data_root, monkeypatch, tmp_path: Path) -> None:
    last = checkpoint("dvp_adaption_bert_vqa")
    model = dvp.load(last)
    described = (last / "description.json").read_text().replace(data_root, str(tmp_path))
    (tmp_path / "last.ckpt").mkdir()
    (tmp_path / "last.ckpt" / "description.json").write_text(described)
    model.config["load_path"] = str(tmp_path / "last.ckpt")
    assert find_examples(model) == []


def test_a_picture_that_is_no_longer_kept_is_asked_for_again(checkpoint, upload) -> None:
    model = dvp.load(checkpoint("dvp_adaption_bert_vqa"))
    upload.unlink()
    note = "a.png is no longer here, since pictures are kept for 60 minutes: choose it again."
    assert ask(model, str(upload), QUESTION, "", "", 1) == Shown(note=note)
