"""The tables of a run's splits; where one may be missing, a share of the training images takes its place."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from dvp.data.arrow import open_table, table_path
from dvp.errors import UserError
from dvp.tasks import Task

SHARE = 0.05  # of the training images


def open_splits(
    data_root: str, task: Task, splits: Iterable[str], columns: Iterable[str], seed: int
) -> tuple[dict[str, pa.Table], dict[str, np.ndarray]]:
    """The tables by split; and of those that are parts of the first training table, which rows of it they are.

    Raises UserError as `open_table` does, and for a training table of one image that would have to be split.
    """
    splits, lacking = list(splits), task.may_lack
    if lacking not in splits or table_path(data_root, task.files, lacking).is_file():
        return {split: open_table(data_root, task.files, split, columns) for split in splits}, {}
    tables, _ = open_splits(data_root, task, [split for split in splits if split != lacking], columns, seed)
    train, path = task.train[0], table_path(data_root, task.files, lacking)
    whole = tables[train]
    rows = dict(zip((train, lacking), split_off(len(whole), SHARE, seed), strict=True))
    if not len(rows[train]):
        raise UserError(f"{path} is missing, and {task.files}_{train}.arrow has too few images: make it, see DATA.md.")
    share = f"{len(rows[lacking])} of the {len(whole)} images of {task.files}_{train}.arrow ({SHARE:.0%})"
    print(f"{path} is missing: {share}, chosen by seed={seed}, take its place and are not trained on.")
    return tables | {split: take(whole, part) for split, part in rows.items()}, rows


def split_off(count: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sorted parts of the numbers below `count`: what is left, and a random share, at least one."""
    order = np.random.default_rng(seed).permutation(count)
    held = max(1, round(share * count))
    return np.sort(order[held:]), np.sort(order[:held])


def take(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """These rows of a table, in ascending order, not copied: the pictures stay in the file."""
    runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    return pa.concat_tables(table.slice(run[0], len(run)) for run in runs)
