"""The command: one question on the screen, a file of them line by line, and what is refused before or at once."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from tiny_world import picture

import dvp
from dvp.answering import many
from dvp.files import locked

ROOT = Path(__file__).parents[2]
BERT = "dvp_adaption_bert_vqa"
QUESTION = "is there a red circle"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(picture(1))
    return tmp_path / "a.png"


def test_the_likeliest_answers_stand_in_a_table(checkpoint, command, image, capsys) -> None:
    expected = dvp.load(checkpoint(BERT)).answer(image, QUESTION, top=3)
    capsys.readouterr()
    command("predict", "with", load_path=checkpoint(BERT), image=image, question=QUESTION, top=3)
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == QUESTION
    assert [line.split() for line in lines] == [[one.text, f"{one.probability:.2%}"] for one in expected.candidates]


def test_json_is_all_that_is_printed(checkpoint, command, image, capfd) -> None:
    expected = dvp.load(checkpoint(BERT)).answer(image, QUESTION)
    capfd.readouterr()
    command("predict", "with", load_path=checkpoint(BERT), image=image, question=QUESTION, json=True)
    printed = json.loads(capfd.readouterr().out)
    assert printed == expected.as_dict() | {"candidates": [one._asdict() for one in expected.candidates]}
    assert len(printed["candidates"]) == 4


def test_what_is_to_be_known_is_said(checkpoint, command, image, capsys) -> None:
    command("predict", "with", load_path=checkpoint(BERT), image=image, question="is there a red circle " * 20)
    assert "The text takes 102 tokens, of which the first 16 are read." in capsys.readouterr().err


def test_of_a_search_it_is_said_what_the_search_knows(checkpoint, command, image, capsys) -> None:
    last = checkpoint("dvp_search_bert_gqa", search_sample="all")
    command("predict", "with", load_path=last, image=image, question="what is it?", num_gpus=0)
    said = capsys.readouterr().err
    assert f"{last} is of a search: K = " in said and "probability" in said


def test_a_blind_checkpoint_and_typed_places(checkpoint, command, clip_folder, capsys, tmp_path) -> None:
    last = checkpoint("dvp_adaption_bert_gqa", image_tokens="zero")
    capsys.readouterr()
    command("predict", "with", load_path=last, question=QUESTION)
    first = capsys.readouterr().out
    moved = shutil.copytree(clip_folder, tmp_path / "clip")
    command("predict", "with", load_path=last, question=QUESTION, clip_model=moved)
    assert capsys.readouterr().out == first


@pytest.mark.parametrize("verb", ["predict", "export"])
def test_a_placeholder_for_the_language_model_is_the_checkpoints(
    verb: str, checkpoint, command, image, language_models, tmp_path: Path, capsys
) -> None:
    last, place = checkpoint(BERT), tmp_path / "models" / "{language_model}"
    shutil.copytree(language_models["bert"], place.with_name("bert"))
    options = {"predict": {"image": image, "question": QUESTION}, "export": {"to": tmp_path / "out"}}[verb]
    command(verb, "with", "dvp_adaption_t5_vqa", load_path=last, tokenizer=place, clip_model=clip_of(last), **options)
    assert QUESTION in capsys.readouterr().out or (tmp_path / "out" / "model.safetensors").is_file()


def clip_of(folder: Path) -> str:
    return json.loads((folder / "description.json").read_text())["config"]["clip_model"]


# Files


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """Seven lines, of which the third, fourth and sixth are bad and the second blank."""
    for number in (1, 2):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    lines = [
        json.dumps({"image": "1.png", "question": QUESTION, "question_id": 7, "answer": "yes"}),
        "",
        json.dumps({"image": "broken.png", "question": QUESTION}),
        '{"image": "1.png", "question": ',
        json.dumps({"image": str(tmp_path / "2.png"), "question": "no circle is yellow"}),
        json.dumps({"image": "1.png", "question": " "}),
        json.dumps({"image": "2.png", "question": QUESTION}),
    ]
    (tmp_path / "asked.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "asked.jsonl"


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("per_gpu_batchsize", [1, 2, 32])
def test_bad_lines_are_reported_and_the_others_answered(
    per_gpu_batchsize: int, asked: Path, checkpoint, command, capsys, tmp_path
) -> None:
    to = tmp_path / "answers.jsonl"
    options = {"ask_from": asked, "to": to, "per_gpu_batchsize": per_gpu_batchsize}
    last = checkpoint(BERT)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        command("predict", "with", load_path=last, **options)
    said, error = capsys.readouterr()
    assert said == f"3 of 6 questions are answered, 3 refused: {to}\n"
    for number, what in (
        (3, "broken.png is truncated or no picture"),
        (4, "no JSON (Expecting value, column 31)"),
        (6, "question is empty"),
    ):
        assert [line for line in error.splitlines() if f"asked.jsonl, line {number}: " in line and what in line]
    assert "3 of 6 lines" in error and "(3, 4, 6)" in error
    model = dvp.load(checkpoint(BERT))
    wanted = [(1, "1.png", QUESTION), (5, "2.png", "no circle is yellow"), (7, "2.png", QUESTION)]
    rows = read(to)
    assert [(row["line"], Path(row["image"]).name, row["question"]) for row in rows] == wanted
    assert [row["answer"] for row in rows] == [model.answer(tmp_path / name, text).text for _, name, text in wanted]
    assert rows[0]["question_id"] == 7


def test_an_interrupted_run_goes_on_where_it_was(asked: Path, checkpoint, command, refused, tmp_path, monkeypatch) -> None:  # fmt: skip  # noqa: E501
    options = {"load_path": checkpoint(BERT), "ask_from": asked, "per_gpu_batchsize": 1}
    refused("predict", "with", **options, to=tmp_path / "whole.jsonl")
    to, whole = tmp_path / "answers.jsonl", read(tmp_path / "whole.jsonl")
    answer = many._answer

    def stop(*arguments: Any) -> None:
        if arguments[1] and arguments[1][0][0] == 5:
            raise KeyboardInterrupt
        answer(*arguments)

    monkeypatch.setattr(many, "_answer", stop)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        command("predict", "with", **options, to=to)
    assert read(to) == whole[:1]
    with open(to, "a") as file:  # as a kill leaves it
        file.write('{"line": 5, "ima')
    answered: list[int] = []

    def count(*arguments: Any) -> None:
        answered.extend(number for number, _, _ in arguments[1])
        answer(*arguments)

    monkeypatch.setattr(many, "_answer", count)
    refused("predict", "with", **options, to=to)
    assert answered == [5, 7] and read(to) == whole
    lines = asked.read_text().splitlines()
    lines[2] = lines[3] = lines[5] = json.dumps({"image": "1.png", "question": "no circle is yellow"})
    asked.write_text("\n".join(lines))
    command("predict", "with", **options, to=to)  # mended: it ends well, with what was lacking
    assert answered == [5, 7, 3, 4, 6] and [row["line"] for row in read(to)] == [1, 5, 7, 3, 4, 6]


@pytest.mark.parametrize("whole_batches", [True, False])
def test_what_was_cut_off_is_answered_in_the_batches_it_would_have_been_in(
    whole_batches: bool, asked: Path, checkpoint, command, tmp_path, monkeypatch
) -> None:
    asked.write_text("\n".join([asked.read_text().splitlines()[0]] * 7))
    batches: list[list[int]] = []
    answer = many._answer

    def note(*arguments: Any) -> None:
        batches.append([number for number, _, _ in arguments[1]])
        answer(*arguments)

    monkeypatch.setattr(many, "_answer", note)
    if not whole_batches:
        monkeypatch.setattr(many, "_whole_batches", lambda to, done, batch_size: done)
    to, options = tmp_path / "answers.jsonl", {"load_path": checkpoint(BERT), "ask_from": asked, "per_gpu_batchsize": 3}
    command("predict", "with", **options, to=to)
    whole, expected = to.read_bytes(), list(batches)
    assert expected == [[1, 2, 3], [4, 5, 6], [7]]
    row = len(whole) // 7
    for kept in (0, 3 * row, 3 * row + 1, 4 * row, 5 * row - 1, 7 * row - 1, 7 * row):
        batches.clear()
        to.write_bytes(whole[:kept])
        command("predict", "with", **options, to=to)
        assert to.read_bytes() == whole or not whole_batches  # of other batches the last digits may differ
        as_before = [batch for batch in batches if batch] == expected[kept // row // 3 if kept < len(whole) else 3 :]
        assert as_before == (whole_batches or kept not in (4 * row, 5 * row - 1))


@pytest.mark.parametrize("guarded", [True, False])
def test_two_do_not_write_the_same_answers(
    guarded: bool, asked: Path, checkpoint, command, refused, tmp_path: Path, monkeypatch
) -> None:
    asked.write_text(asked.read_text().splitlines()[0])
    to = tmp_path / "answers.jsonl"
    options = {"load_path": checkpoint(BERT), "ask_from": asked, "to": to}
    with locked(tmp_path / f".{to.name}.lock"):
        if guarded:
            assert "is being written by another process" in refused("predict", "with", **options) and not to.exists()
        else:
            monkeypatch.setattr(many, "locked", lambda *held: nullcontext())
            command("predict", "with", **options)
            assert to.exists()
    command("predict", "with", **options)


def test_without_a_place_the_answers_are_printed(asked: Path, checkpoint, command, capsys) -> None:
    asked.write_text(asked.read_text().splitlines()[0])
    capsys.readouterr()
    command("predict", "with", load_path=checkpoint(BERT), ask_from=asked)
    out, err = capsys.readouterr()
    assert json.loads(out)["line"] == 1 and "questions" not in err  # where there is no terminal, there is no bar


ANOTHER = json.dumps({"image": "1.png", "question": "no circle is yellow"})
OTHER: dict[str, tuple[Callable[[Path, Path], Any], str]] = {
    "another question": (lambda to, asked: asked.write_text(ANOTHER), "another question in line 1"),
    "another checkpoint": (lambda to, asked: about(to, checkpoint="0"), "another checkpoint"),
    "other settings": (lambda to, asked: about(to, max_new_tokens=1), "other settings"),
    "no note": (lambda to, asked: to.with_suffix(".about.json").unlink(), "is no place for answers"),
    "something else": (lambda to, asked: to.write_text("hello\n"), "is no place for answers"),
}  # fmt: skip


def about(to: Path, **changes: Any) -> None:
    note = to.with_suffix(".about.json")
    note.write_text(json.dumps(json.loads(note.read_text()) | changes))


@pytest.mark.parametrize("kind", OTHER)
def test_other_answers_stay_as_they_are(kind: str, asked: Path, checkpoint, command, refused, tmp_path: Path) -> None:
    asked.write_text(asked.read_text().splitlines()[0])
    options = {"load_path": checkpoint(BERT), "ask_from": asked, "to": tmp_path / "answers.jsonl"}
    command("predict", "with", **options)
    change, message = OTHER[kind]
    change(options["to"], asked)
    before = options["to"].read_text()
    assert message in refused("predict", "with", **options)
    assert options["to"].read_text() == before


LINES = {
    "[1]": "it is no object",
    '{"image": 1, "question": "a"}': 'its "image" is 1',
    '{"image": "1.png", "question": ["a"]}': 'its "question"',
    '{"question": "a"}': "picture is missing",
    '{"image": "none.png", "question": "a"}': "none.png cannot be read",
    '{"image": "a\\u0000.png", "question": "a"}': "cannot be read",
    '{"image": "1.png", "question": "a", "choices": ["b", "c"]}': "leave choices",
    "\xff": "it is no JSON",
    "[" * 100_000: "it is no JSON",
}


def test_every_kind_of_bad_line_is_a_sentence_of_its_own(checkpoint, refused, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(picture(1))
    (tmp_path / "asked.jsonl").write_text("\n".join(LINES), encoding="latin-1")
    error = refused("predict", "with", load_path=checkpoint(BERT), ask_from=tmp_path / "asked.jsonl")
    for number, message in enumerate(LINES.values(), start=1):
        assert [line for line in error.splitlines() if f"line {number}: " in line and message in line], message
    assert f"{len(LINES)} of {len(LINES)} lines" in error


# Before torch


EARLY = {
    "nothing": ({"top": 1}, "predict needs load_path"),
    "no checkpoint": ({"load_path": "none.ckpt", "image": "a.png", "question": "a"}, "none.ckpt: there is no such"),
    "no question": ({"load_path": "last.ckpt", "image": "a.png"}, "question is empty"),
    "no file": ({"load_path": "last.ckpt", "image": "none.png", "question": "a"}, "none.png: there is no such"),
    "no picture": ({"load_path": "last.ckpt", "image": "a.md", "question": "a"}, "a.md is truncated or no picture"),
    "a folder": ({"load_path": "last.ckpt", "image": ".", "question": "a"}, "image=. is a folder"),
    "no questions": ({"load_path": "last.ckpt", "ask_from": "a.png"}, "ask_from=a.png has no question"),
    "only text": ({"load_path": "last.ckpt", "ask_from": "a.md"}, "ask_from=a.md has no question"),
    "no lines": ({"load_path": "last.ckpt", "ask_from": "none.jsonl"}, "none.jsonl: there is no such"),
    "both": ({"load_path": "last.ckpt", "ask_from": "a.png", "question": "a"}, "or a file of them"),
    "itself": ({"load_path": "last.ckpt", "ask_from": "a.png", "to": "a.png"}, "is the file of questions"),
    "no folder": ({"load_path": "last.ckpt", "ask_from": "a.png", "to": "no/a"}, "there is no folder no"),
    "to": ({"load_path": "last.ckpt", "image": "a.png", "question": "a", "to": "b"}, "to= is for ask_from"),
    "no PNG": ({"load_path": "last.ckpt", "image": "a.png", "question": "a", "heatmap": "a.jpg"}, "ends in .png"),
    "moved": (
        {"load_path": "last.ckpt", "image": "a.png", "question": "a", "clip_model": "./gone"},
        "say with clip_model=",
    ),
    "damaged": ({"load_path": "damaged.ckpt", "image": "a.png", "question": "a"}, "is damaged"),
}


def test_what_is_wrong_is_seen_before_torch_is_imported(image, checkpoint, tmp_path: Path) -> None:
    shutil.copytree(checkpoint(BERT), tmp_path / "last.ckpt")
    shutil.copytree(checkpoint(BERT), tmp_path / "damaged.ckpt")
    (tmp_path / "damaged.ckpt" / "description.json").write_text("{")
    (tmp_path / "a.md").write_text("# Read me\n\nhello\n")
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import run\n"
        f"for settings, message in {list(EARLY.values())!r}:\n"
        "    try: run.ex.run_commandline(['run.py', 'predict', 'with', *(f'{k}={v}' for k, v in settings.items())])\n"
        "    except SystemExit as ended: print(message, ended.code, 'torch' in sys.modules, file=sys.stderr)\n"
    )
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    for settings, message in EARLY.values():
        assert f"{message} 1 False" in ended.stderr, settings
        assert ended.stderr.count(message) >= 2, message


def test_a_number_may_be_asked(checkpoint, command, image, capsys) -> None:
    command("predict", "with", load_path=checkpoint(BERT), image=image, question="2014")
    assert capsys.readouterr().out.startswith("2014\n")
