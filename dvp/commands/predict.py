"""Answer questions of one's own: one on the screen, or a file of them."""

import json
import sys
from pathlib import Path
from typing import Any

from dvp.config import ex
from dvp.errors import UserError
from dvp.images import open_image, read_file
from dvp.runs.told import base_of, require_base


@ex.command(unobserved=True)
def predict(
    load_path, image, question, choices, hint, ask_from, to, top, json, heatmap, tokenizer, clip_model, num_gpus,
    precision, answer_by, max_new_tokens, per_gpu_batchsize,
):  # fmt: skip
    """Ask a checkpoint about a picture, or about those of a file; it needs no table, and uses a GPU if there is one.

    All else, task, K, models, adapters and vocabulary, comes from the checkpoint. tokenizer and clip_model say where
    the base weights lie, if they have moved.
    """
    _check(load_path, image, question, ask_from, to, heatmap)
    options = {"answer_by": answer_by, "max_new_tokens": max_new_tokens}
    answering = open_checkpoint(load_path, tokenizer, clip_model, num_gpus, precision, **options)
    if answering.searched:
        print(f"{load_path} is of a search: K = {answering.insert_layer}, {answering.verdict}", file=sys.stderr)
    if ask_from:
        from dvp.answering.many import answer_file

        options = {"top": top, "batch_size": per_gpu_batchsize or BATCH_SIZE}
        answer_file(answering, Path(str(ask_from)), Path(str(to)) if to else None, **options)
    else:
        asked = {"image": str(image) or None, "question": str(question), "hint": str(hint)}
        asked |= {"choices": [choice.strip() for choice in str(choices).split("|")] if choices else []}
        _answer_one(answering, asked, top, json, str(heatmap))


def open_checkpoint(
    load_path: Any, tokenizer: Any, clip_model: Any, num_gpus: int, precision: int | str, **options: Any
) -> Any:
    """The checkpoint as a model that answers, on a GPU if there is one; its base is looked at before torch is imported.

    options: those of `dvp.answering.load`. Raises UserError as that does.
    """
    base = base_of(str(load_path), tokenizer, clip_model)
    require_base(str(load_path), base)

    import torch  # here, so that help and mistakes answer at once

    from dvp.answering import load

    return load(
        str(load_path),
        **base,
        device="cuda" if num_gpus and torch.cuda.is_available() else "cpu",
        precision=None if precision == "auto" else precision,
        **options,
    )


BATCH_SIZE = 32  # of a file of questions, where per_gpu_batchsize says nothing


def require_checkpoint(command: str, load_path: Any) -> None:
    """Raise UserError where no checkpoint is given, or none is there."""
    if not load_path:
        raise UserError(f"{command} needs load_path=<checkpoint>: give the folder result/.../checkpoints/<name>.ckpt.")
    if not Path(str(load_path)).exists():
        raise UserError(f"load_path={load_path}: there is no such checkpoint; give one under log_dir.")


def _check(load_path: Any, image: Any, question: Any, ask_from: Any, to: Any, heatmap: Any) -> None:
    """Raise UserError for what can be seen to be wrong before torch is imported, which takes seconds."""
    require_checkpoint("predict", load_path)
    if ask_from:
        if image or question or heatmap:
            raise UserError("ask_from is given, and image, question or heatmap: ask one question, or a file of them.")
        if not Path(str(ask_from)).is_file():
            raise UserError(f"ask_from={ask_from}: there is no such file; give a JSONL file of questions.")
        if to and Path(str(to)).resolve() == Path(str(ask_from)).resolve():
            raise UserError(f"to={to} is the file of questions: give the answers another place.")
        if to and not Path(str(to)).absolute().parent.is_dir():
            raise UserError(f"to={to}: there is no folder {Path(str(to)).parent}; make it, or give another place.")
        _require_questions(Path(str(ask_from)))
        return
    if not str(question).strip():
        raise UserError('The question is empty: ask something, such as question="What is on the sofa?"')
    if image and Path(str(image)).expanduser().is_dir():
        raise UserError(f"image={image} is a folder: give the path of a picture.")
    if image and not Path(str(image)).expanduser().is_file():
        raise UserError(f"image={image}: there is no such file; give the path of a picture.")
    if image:
        open_image(read_file(str(image)), str(image))
    if to:
        raise UserError("to= is for ask_from, a file of questions: leave it out, or name the file.")
    if heatmap and Path(str(heatmap)).suffix.lower() != ".png":
        raise UserError(f"heatmap={heatmap} is drawn as PNG: give it a name that ends in .png.")


def _require_questions(source: Path) -> None:
    """Raise UserError for a file that cannot be read, or whose lines are none of them an object of JSON."""
    try:
        with open(source, "rb") as file:
            found = any(map(_is_object, file))
    except OSError as error:
        raise UserError(f"ask_from={source} cannot be read ({error.strerror}): give a JSONL file.") from None
    if not found:
        raise UserError(
            f'ask_from={source} has no question: give a JSONL file, {{"image": ..., "question": ...}} on every line.'
        )


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode("utf-8-sig")), dict)
    except (ValueError, RecursionError):  # of JSON or of UTF-8
        return False


def _answer_one(answering: Any, asked: dict[str, Any], top: int, as_json: bool, heatmap: str) -> None:
    prepared = answering.prepare(**asked)
    (answer,) = answering([prepared], top=top, attention=bool(heatmap))
    if heatmap:
        from dvp.answering.heatmap import draw_heatmap
        from dvp.files import write_whole

        picture = prepared.asked.picture
        seen = answering.seen(picture) if picture else (0, 0, 0, 0)
        page = draw_heatmap(picture, answer.attention, seen, answering.prefix_tokens)
        if not Path(heatmap).absolute().parent.is_dir():
            print(f"The folder {Path(heatmap).parent} is made for the heat map.", file=sys.stderr)
        write_whole(Path(heatmap), lambda place: page.save(place, "PNG"))
    for note in answer.notes:
        print(f"{note[0].upper()}{note[1:]}.", file=sys.stderr)
    if as_json:
        drawn = {"heatmap": heatmap} if heatmap else {}
        print(json.dumps(answer.as_dict() | drawn, ensure_ascii=False))
        return
    width = max(len(candidate.text) for candidate in answer.candidates)
    print(asked["question"])
    for candidate in answer.candidates:
        print(f"  {candidate.text:{width}}  {candidate.probability:7.2%}")
    if answer.written is not None:
        named = f"({answer.letter}) {answer.text}" if answer.letter else "no choice"
        print(f"  written, which names {named}:\n  {answer.written}")
    if heatmap:
        print(f"What the prompt was made of is drawn in {heatmap}")
