"""VQAv2: official questions, annotations and COCO images -> vqav2_{train,trainable_val,val,rest_val,test,test-dev}."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from dvp.errors import UserError
from dvp.evaluation.answers import normalise_answer
from dvp.prepare.questions import Images, Question, Targets, question_schema, write_questions
from dvp.prepare.raw import check_new, field, inside, read_object
from dvp.prepare.tables import Options, Tables

SCHEMA = question_schema(pa.int64(), pa.int64())
QUESTIONS = "v2_OpenEnded_mscoco_{}_questions.json"
ANNOTATIONS = "v2_mscoco_{}_annotations.json"
SCORES = (0.0, 0.3, 0.6, 0.9, 1.0)  # of an answer that 0, 1, 2, 3, at least 4 of the ten annotators gave
MISMATCH = "the files do not belong together: download both again, see DATA.md."


def prepare(raw: Path, tables: Tables, options: Options) -> None:
    """Nothing; writes the six tables and vqav2_answers.json."""
    answers = _vocabulary(raw, options.min_answer_count)
    tables.write_answers("vqav2", answers)
    pairs = {answer: [(label, score) for score in SCORES] for label, answer in enumerate(answers)}
    write = partial(write_questions, tables, schema=SCHEMA, allow_missing_images=options.allow_missing_images)

    train = _labelled(raw, "train2014", pairs)
    write("vqav2_train", "train", train, _coco(raw, "train2014"), answers=answers, train=True)
    del train  # the largest split: gone before the next is read

    val, path_of = _labelled(raw, "val2014", pairs), _coco(raw, "val2014")
    write("vqav2_val", "val", val, path_of, answers=answers)
    with_image = {image_id: questions for image_id, questions in val.items() if path_of(image_id).is_file()}
    rest_val = {image_id: with_image.pop(image_id) for image_id in _held_out(with_image, options)}
    if not with_image:
        taken = f"rest_val takes all {len(rest_val)} pictures of val, and trainable_val has none"
        print(f"{taken}: give a smaller rest_val_images to train on some.")
    write("vqav2_rest_val", "val", rest_val, path_of, answers=answers)
    write("vqav2_trainable_val", "val", with_image, path_of, answers=answers, train=True)

    test = _questions(raw, "test2015")
    test_dev = _questions(raw, "test-dev2015")
    _check_subset(raw, test_dev, test)
    for split, images in (("test", test), ("test-dev", test_dev)):
        write(f"vqav2_{split}", split, images, _coco(raw, "test2015"), answers=None)


def _vocabulary(raw: Path, min_answer_count: int) -> list[str]:
    """The normalised answers that are the majority at least so often in train and val, in the order of their first use.

    That order gives the published labels.
    """
    counts = Counter(
        normalise_answer(field(annotation, "multiple_choice_answer", str, where))
        for split in ("train2014", "val2014")
        for where, annotation in _entries(raw / ANNOTATIONS.format(split), "annotations", split)
    )
    return [answer for answer, count in counts.items() if count >= min_answer_count]


def _entries(path: Path, key: str, split: str) -> Iterator[tuple[str, Any]]:
    """(where it stands, entry) for the entries of the array under `key`; UserError when the file is another split's."""
    count = 0
    for name, value in read_object(path, key):
        if name == key:
            yield f"{path}: number {count} of {key}", value
            count += 1
        elif name == "data_subtype" and value != split:
            raise UserError(f"{path} holds {value}, not {split}: put the right file in its place, see DATA.md.")
    if not count:
        raise UserError(f"{path} has no {key}: it is empty or not VQAv2's, see DATA.md.")


def _questions(raw: Path, split: str, targets: dict[int, Targets] | None = None) -> Images:
    images: Images = defaultdict(list)
    seen: set[int] = set()
    path = raw / QUESTIONS.format(split)
    for where, entry in _entries(path, "questions", split):
        question_id = field(entry, "question_id", int, where)
        check_new(question_id, seen, path)
        seen.add(question_id)
        if targets is not None and question_id not in targets:
            raise UserError(f"{path}: question {question_id} has no annotation; {MISMATCH}")
        where = f"{where} (question {question_id})"
        question = Question(question_id, field(entry, "question", str, where), targets[question_id] if targets else ())
        images[field(entry, "image_id", int, where)].append(question)
    if targets is not None and len(seen) < len(targets):
        lost = next(question_id for question_id in targets if question_id not in seen)
        raise UserError(f"{path}: question {lost} of the annotations is not there; {MISMATCH}")
    return dict(images)


def _labelled(raw: Path, split: str, pairs: dict[str, list[tuple[int, float]]]) -> Images:
    """The questions of a split; pairs: for each known answer its target by the number of annotators, up to 4."""
    targets: dict[int, Targets] = {}
    same: dict[Targets, Targets] = {}  # most questions share a few thousand targets
    path = raw / ANNOTATIONS.format(split)
    for where, annotation in _entries(path, "annotations", split):
        question_id = field(annotation, "question_id", int, where)
        check_new(question_id, targets, path)
        where = f"{where} (question {question_id})"
        given = field(annotation, "answers", list, where)
        counts = Counter(normalise_answer(field(answer, "answer", str, where)) for answer in given)
        found = tuple(pairs[answer][min(n, 4)] for answer, n in counts.items() if answer in pairs)
        targets[question_id] = same.setdefault(found, found)
    return _questions(raw, split, targets)


def _held_out(image_ids: Iterable[int], options: Options) -> list[int]:
    """The images of rest_val: the last of a shuffle that depends on the ids and the seed alone.

    The published split followed the order in which the file system listed the files: another one at every conversion.
    """
    shuffled = sorted(image_ids)
    random.Random(options.seed).shuffle(shuffled)
    return shuffled[max(0, len(shuffled) - options.rest_val_images) :]


def _check_subset(raw: Path, test_dev: Images, test: Images) -> None:
    known = {question.question_id for questions in test.values() for question in questions}
    for question in (question for questions in test_dev.values() for question in questions):
        if question.question_id not in known:
            path = raw / QUESTIONS.format("test-dev2015")
            raise UserError(f"{path}: question {question.question_id} is not in test2015; {MISMATCH}")


def _coco(raw: Path, split: str) -> Callable[[int], Path]:
    return lambda image_id: inside(raw / split, f"COCO_{split}_{image_id:012d}.jpg")
