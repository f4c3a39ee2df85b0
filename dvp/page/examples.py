"""Questions of the table that a checkpoint is tested on, to begin with."""

from pathlib import Path
from typing import NamedTuple

from dvp.answering import Answering
from dvp.data.arrow import open_table, table_path
from dvp.files import read_description

EXAMPLES = 6  # rows, from all over the table
COLUMNS = {False: ("image", "questions"), True: ("image", "question", "choices", "hint")}  # by takes_choices


class Example(NamedTuple):
    """What goes into the fields. image: the bytes of a picture, None where there is none."""

    image: bytes | None
    question: str
    choices: str | None = None  # one a line; None: the model takes none
    hint: str | None = None


def find_examples(answering: Answering) -> list[Example]:
    """Some questions of the test that lies beside the training's data; none where it is not at hand.

    Raises UserError where its table is damaged.
    """
    then = read_description(answering.config["load_path"]).get("config") or {}
    files, split = answering.task.files, answering.task.tested("test")[0]
    data_root = str(then.get("data_root") or "")
    if not data_root or not table_path(data_root, files, split).is_file():
        return []
    columns = COLUMNS[answering.takes_choices]
    table = open_table(data_root, files, split, columns)
    shown = min(EXAMPLES, len(table))
    rows = table.select(columns).take([number * len(table) // shown for number in range(shown)]).to_pylist()
    if answering.takes_choices:
        return [
            Example(row["image"] or None, row["question"], "\n".join(row["choices"]), row["hint"] or "") for row in rows
        ]
    asked = ((row["image"], row["questions"], place) for place, row in enumerate(rows) if row["questions"])
    return [Example(image, questions[place % len(questions)]) for image, questions, place in asked]


def write_examples(examples: list[Example], folder: Path) -> list[list[str | None]]:
    """The examples with the paths of their pictures, which are written into the folder."""
    found = []
    for number, example in enumerate(examples):
        path = None
        if example.image:
            path = folder / f"example_{number}"
            path.write_bytes(example.image)
        found.append([str(path) if path else None, *example[1:]])
    return found
