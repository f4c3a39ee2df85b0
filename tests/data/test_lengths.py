"""Batches of rows of like length: every row once, little padding, anew each epoch, in equal shares."""

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


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_training_deals_all_rows_anew_each_epoch_in_equal_shares(ranks):
    lengths = np.random.default_rng(0).integers(5, 90, 1001)
    samplers = [LikeLengths(lengths, 4, rank, ranks, seed=3) for rank in range(ranks)]
    epochs = []
    for epoch in (0, 1):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        dealt = [list(sampler) for sampler in samplers]
        assert {len(batches) for batches in dealt} == {len(samplers[0])}
        assert all(len(batch) == 4 for batches in dealt for batch in batches)
        items = [item for batches in dealt for batch in batches for item in batch]
        assert set(items) == set(range(1001)) and len(items) < 1001 + 4 * ranks
        padded = sum(4 * max(lengths[batch]) for batches in dealt for batch in batches)
        assert padded <= 1.3 * lengths[items].sum()
        epochs.append(dealt)
    assert epochs[0] != epochs[1]
    samplers[0].set_epoch(0)
    assert list(samplers[0]) == epochs[0][0]
