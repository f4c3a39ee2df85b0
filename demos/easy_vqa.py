"""`make easy-vqa`: a data set that nobody here drew, from its package to a test accuracy, by commands alone.

    pip install easy-vqa
    python -m demos.easy_vqa

easy-VQA (Victor Zhou) has 4,000 training and 1,000 test pictures of 64 pixels with 48,248 questions and 13 answers.
"""  # fmt: skip

import importlib.util
import json
import shutil
from pathlib import Path

from dvp.errors import UserError

RAW, DATA, RESULT = Path("datasets/easy_vqa/raw"), Path("datasets/easy_vqa"), Path("result/easy_vqa")
EVERY = 10  # one picture in so many is held out of training


def package() -> Path:
    """The folder of easy-VQA's data; UserError where the package is not installed."""
    spec = importlib.util.find_spec("easy_vqa")
    if spec is None:
        raise UserError("easy-VQA is not installed: pip install easy-vqa, or run `make easy-vqa`.")
    return Path(spec.origin).parent / "data"


def write(data: Path, raw: Path, pictures: int | None = None) -> None:
    """Nothing; `raw` gets easy-VQA in the schema of docs/own_data.md, of each split the first `pictures` or all."""
    shutil.rmtree(raw, ignore_errors=True)
    raw.mkdir(parents=True)
    with open(raw / "questions.jsonl", "w", encoding="utf-8") as file:
        for split in ("train", "test"):
            shutil.copytree(data / split / "images", raw / split)
            for number, (question, answer, image) in enumerate(_read(data / split / "questions.json")):
                if pictures is not None and image >= pictures:
                    continue
                held_out = split == "train" and image % EVERY == 0
                row = {"image": f"{split}/{image}.png", "question": question, "answer": answer}
                row |= {"split": "val" if held_out else split, "question_id": f"{split} {number}"}
                file.write(json.dumps(row) + "\n")


def _read(path: Path) -> list[tuple[str, str, int]]:
    return json.loads(path.read_text(encoding="utf-8"))
