"""`make easy-vqa`: a data set that nobody here drew, from its package to a test accuracy, by commands alone.

    pip install easy-vqa
    python -m demos.easy_vqa

easy-VQA (Victor Zhou) asks 48,248 questions about 5,000 pictures of 64 pixels, and has 13 answers.
"""  # fmt: skip

import importlib.util
import json
import re
import shutil
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from demos.larger import write_bert_with_words, write_larger_clip
from demos.vqa import command, search, train
from dvp.config import SHAPES_MODELS
from dvp.errors import UserError

DATA, RESULT = Path("datasets/easy_vqa"), Path("result/easy_vqa")
SEARCH, ADAPTION = "dvp_search_bert_custom", "dvp_adaption_bert_custom"
EVERY = 10  # one training picture in so many is held out, as val
# At 60 pixels the embedded encoder confuses shapes that at 120 it tells apart: its patches have 10.
PIXELS = 120
TRAINING = "start_from=search max_epoch=10 learning_rate=2e-3"


def package() -> Path:
    """The folder of easy-VQA's data; UserError where the package is not installed."""
    spec = importlib.util.find_spec("easy_vqa")
    if spec is None:
        raise UserError("easy-VQA is not installed: pip install easy-vqa, or run `make easy-vqa`.")
    return Path(spec.origin).parent / "data"


def write_rows(data: Path, raw: Path, pictures: int | None = None, begin: str = "") -> list[dict[str, Any]]:
    """The rows, which `raw` gets as questions.jsonl beside the pictures: those of the questions that `begin` so.

    pictures: the first so many of each split, or all.
    """
    shutil.rmtree(raw, ignore_errors=True)
    rows = []
    for split in ("train", "test"):
        (raw / split).mkdir(parents=True)
        asked = json.loads((data / split / "questions.json").read_text(encoding="utf-8"))
        for number, (question, answer, image) in enumerate(asked):
            if question.startswith(begin) and (pictures is None or image < pictures):
                place = "val" if split == "train" and image % EVERY == 0 else split
                row = {"image": f"{split}/{image}.png", "question": question, "answer": answer, "split": place}
                rows.append(row | {"question_id": f"{split} {number}"})
                if not (raw / row["image"]).exists():
                    shutil.copy(data / split / "images" / f"{image}.png", raw / split)
    lines = "\n".join(map(json.dumps, rows))
    (raw / "questions.jsonl").write_text(lines + "\n", encoding="utf-8")
    return rows


def write_models(rows: list[dict[str, Any]], to: Path) -> None:
    """Nothing; `to` gets the embedded models, with the pixels and the words that these rows want."""
    write_larger_clip(SHAPES_MODELS / "clip", to / "clip", PIXELS)
    asked = [row["question"].lower() for row in rows if row["split"] == "train"]
    write_bert_with_words(SHAPES_MODELS / "bert", to / "bert", sorted(set(re.findall(r"\w+", " ".join(asked)))))


def commonest(rows: list[dict[str, Any]]) -> float:
    """The accuracy on test, in percent, of what train answers most to the same question."""
    given: dict[str, Counter] = defaultdict(Counter)
    for row in rows:
        if row["split"] == "train":
            given[row["question"]][row["answer"]] += 1
    tested = [row for row in rows if row["split"] == "test"]
    right = sum(bool(found := given[row["question"]]) and found.most_common(1)[0][0] == row["answer"] for row in tested)
    return 100 * right / len(tested)


def accuracy(answers: Path, rows: list[dict[str, Any]]) -> float:
    """The share of the test questions, in percent, to which a file of answers has the right one."""
    right = {row["question_id"]: row["answer"] for row in rows if row["split"] == "test"}
    given = {row["question_id"]: row["answer"] for row in json.loads(answers.read_text(encoding="utf-8"))}
    return 100 * sum(given[question] == answer for question, answer in right.items()) / len(right)


def main(
    data: Path = DATA,
    result: Path = RESULT,
    pictures: int | None = None,
    searching: str = "",
    training: str = TRAINING,
) -> float:
    """The test accuracy in percent; rows, tables, models, search and training at K, and a table that is printed.

    pictures: the first so many of each split, or all; searching, training: settings of the two runs.
    """
    shutil.rmtree(result, ignore_errors=True)
    rows = write_rows(package(), data / "raw", pictures)
    command(f"convert with datasets=custom raw_root={data / 'raw'} data_root={data}")
    models = data / "models"
    write_models(rows, models)
    settings = f"clip_model={models / 'clip'} tokenizer={models / 'bert'} image_size={PIXELS}"
    found, seconds = search(result, SEARCH, f"data_root={data} {settings} {searching}")
    trained = train(result, ADAPTION, "easy_vqa", f"{settings} {training}", data)
    reached = accuracy(trained.answers, rows)
    print(f"\nThe search said after {seconds:.0f} s: {found['verdict']}. Accuracy on easy-VQA's test questions:\n")
    print(f"{'model':40}{'accuracy':>10}{'trained parameters':>20}{'seconds':>9}")
    print(f"{'the commonest answer to the question':40}{commonest(rows):10.2f}{'':20}")
    print(f"{'BERT, whole, with a prompt at K':40}{reached:10.2f}{trained.parameters:20,}{trained.seconds:9.0f}")
    print(f"\nThe answers are in {trained.answers}.")
    return reached


if __name__ == "__main__":
    main()
