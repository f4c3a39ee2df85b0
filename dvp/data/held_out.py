"""The tables of a run's splits; where one may be missing, a share of the training images takes its place."""

from collections.abc import Iterable

import numpy as np

from dvp.data.arrow import Table, open_table, table_path
from dvp.errors import UserError
from dvp.tasks import Task

SHARE = 0.05  # of the training images


def open_splits(
    data_root: str, task: Task, splits: Iterable[str], columns: Iterable[str], seed: int
) -> dict[str, Table]:
    """The tables by split; where one may be missing and is, it is a part of the first training table.

    Raises UserError as `open_table` does, and for a training table of one image that would have to be split.
    """
    splits, lacking = list(splits), task.may_lack
    if lacking not in splits or table_path(data_root, task.files, lacking).is_file():
        return {split: open_table(data_root, task.files, split, columns) for split in splits}
    tables = open_splits(data_root, task, [split for split in splits if split != lacking], columns, seed)
    train, path = task.train[0], table_path(data_root, task.files, lacking)
    whole = tables[train]
    rows = dict(zip((train, lacking), split_off(len(whole), SHARE, seed), strict=True))
    if not len(rows[train]):
        few = f"{task.files}_{train}.arrow has too few images"
        raise UserError(f"{path} is missing, and {few}: make it, see {task.guide}.")
    share = f"{len(rows[lacking])} of the {len(whole)} images of {task.files}_{train}.arrow ({SHARE:.0%})"
    print(f"{path} is missing: {share}, chosen by seed={seed}, take its place and are not trained on.")
    return tables | {split: Table(whole.path, whole.columns, part) for split, part in rows.items()}


def split_off(count: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sorted parts of the numbers below `count`: what is left, and a random share, at least one."""
    order = np.random.default_rng(seed).permutation(count)
    held = max(1, round(share * count))
    return np.sort(order[held:]), np.sort(order[:held])
