"""Raw downloads -> Arrow tables: the only place that knows raw formats. A new data set is one file and one line here.

python run.py convert with datasets=vqa raw_root=<downloads> data_root=./datasets
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from dvp.errors import UserError
from dvp.prepare import custom, gqa, scienceqa, snli_ve, vqa
from dvp.prepare.hub import official
from dvp.prepare.tables import Options, Tables, report, writing
from dvp.tasks import TASKS

PREPARERS: dict[str, Callable[[Path, Tables, Options], None]] = {
    "vqa": vqa.prepare,
    "gqa": gqa.prepare,
    "snli_ve": snli_ve.prepare,
    "scienceqa": scienceqa.prepare,
    "custom": custom.prepare,
}


def convert(
    task: str,
    raw_root: str,
    data_root: str,
    *,
    seed: int = 0,
    min_answer_count: int = 9,
    rest_val_images: int = 1000,
    allow_missing_images: bool = False,
) -> None:
    """Nothing; the task's raw files become Arrow tables in `data_root`, all of them or none, and an account is printed.

    seed and rest_val_images choose VQAv2's held-out images, min_answer_count its vocabulary. Raises UserError when raw
    files are missing, damaged or another data set's, when over 1 % of a table's images are missing (unless that is
    allowed), when the disk is full, and while another conversion writes there.
    """
    if task not in PREPARERS:
        raise UserError(f"There is nothing to convert for {task!r}: take one of {', '.join(PREPARERS)}.")
    if not raw_root or not Path(raw_root).is_dir():
        raise UserError(f"raw_root={raw_root!r} is not a folder: give the one with {task}'s raw files, see DATA.md.")
    if not data_root:
        raise UserError("convert needs data_root=<folder>, which the tables are written to: give one.")
    if min_answer_count < 1 or rest_val_images < 0:
        raise UserError(
            f"min_answer_count={min_answer_count} must be at least 1 and rest_val_images={rest_val_images} at least 0."
        )
    options = Options(seed, min_answer_count, rest_val_images, allow_missing_images)
    told = {"task": task, "options": asdict(options)}
    with (
        writing(data_root, TASKS[task].files, told) as tables,
        official(task, Path(raw_root), tables.root) as raw,
    ):
        PREPARERS[task](raw, tables, options)
    print(report(tables.accounts))
