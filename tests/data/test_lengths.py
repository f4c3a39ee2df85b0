"""Batches of rows of like length: every row once."""

import numpy as np
import pytest

from dvp.data.lengths import LikeLengths


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 7, 64, 101])
def test_evaluation_deals_every_row_once(rows, ranks):
    lengths = np.random.default_rng(0).integers(5, 90, rows)
    dealt = [list(LikeLengths(lengths, 4, rank, ranks)) for rank in range(ranks)]
    assert [len(batches) for batches in dealt] == [len(LikeLengths(lengths, 4, rank, ranks)) for rank in range(ranks)]
    assert sorted(item for batches in dealt for batch in batches for item in batch) == list(range(rows))
