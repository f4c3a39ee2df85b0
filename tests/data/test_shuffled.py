"""Shuffled rows: every row once an epoch, the same updates however they are split, and from any pass on."""

from itertools import islice

import numpy as np
import pytest

from dvp.data.shuffled import Shuffled

LENGTHS = np.random.default_rng(0).integers(5, 90, 1001)
SPLITS = [(24, 1, 1), (12, 2, 1), (8, 1, 3), (4, 2, 3), (4, 3, 2), (1, 3, 8)]  # of updates of 24 rows


def deal(epoch: int, rows: int, ranks: int, passes: int, **options) -> list[list]:
    """The passes of every rank."""
    samplers = [Shuffled(1001, rows, seed=3, rank=rank, ranks=ranks, passes=passes, **options) for rank in range(ranks)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    return [list(sampler) for sampler in samplers]


def updates(dealt: list[list], passes: int) -> list[list[int]]:
    """The rows of every update that have a weight, sorted."""
    steps = [[row for share in shares if share.weight for row in share.rows] for shares in zip(*dealt, strict=True)]
    return [sorted(sum(steps[first : first + passes], [])) for first in range(0, len(steps), passes)]


@pytest.mark.parametrize("by_length", [False, True])
@pytest.mark.parametrize("rows, ranks, passes", SPLITS)
def test_an_update_has_the_same_rows_however_it_is_split(rows, ranks, passes, by_length) -> None:
    options = {"lengths": LENGTHS} if by_length else {}
    dealt = deal(1, rows, ranks, passes, **options)
    found = updates(dealt, passes)
    assert found == updates(deal(1, 24, 1, 1, **options), 1)
    assert sorted(sum(found, [])) == list(range(1001)) and found != updates(deal(2, rows, ranks, passes, **options), 1)
    assert {len(shares) for shares in dealt} == {len(Shuffled(1001, rows, seed=3, ranks=ranks, passes=passes))}
    assert min(len(share.rows) for shares in dealt for share in shares) >= 1  # also where there is none left


@pytest.mark.parametrize("rows, ranks, passes", SPLITS)
def test_weights_make_the_mean_of_an_update_of_the_means_of_its_parts(rows, ranks, passes) -> None:
    counted = np.random.default_rng(1).integers(0, 9, 1001)  # labelled tokens; some rows have none
    loss = np.random.default_rng(2).random(1001)  # of a token of each row
    dealt = deal(0, rows, ranks, passes, counted=counted)
    for number, update in enumerate(updates(deal(0, 24, 1, 1), 1)):
        parts = [share for shares in dealt for share in shares[number * passes : (number + 1) * passes]]
        means = [np.sum((loss * counted)[part.rows]) / max(1, counted[part.rows].sum()) for part in parts]
        mean = sum(mean * part.weight for mean, part in zip(means, parts, strict=True)) / (passes * ranks)
        assert mean == pytest.approx(np.average(loss[update], weights=counted[update]))


def test_a_whole_update_of_whole_passes_is_not_weighted_at_all() -> None:
    assert {share.weight for share in deal(0, 4, 2, 3)[1][: 1001 // 24 * 3]} == {1.0}


@pytest.mark.parametrize("options", [{}, {"lengths": LENGTHS}])
def test_it_goes_on_behind_any_pass(options) -> None:
    sampler = Shuffled(1001, 4, seed=3, passes=2, **options)
    sampler.set_epoch(5)
    whole = list(sampler)
    sampler.set_epoch(5, 17)
    begun = iter(sampler)
    sampler.set_epoch(5)  # which Lightning says again
    assert list(islice(begun, 3)) == whole[17:20] and list(sampler) == whole[17:] and len(sampler) == len(whole)
    sampler.set_epoch(6)
    assert len(list(sampler)) == len(whole)
    assert list(begun) == whole[20:]  # which was asked for in epoch 5


def test_updates_of_like_length_pad_little() -> None:
    for rows, ranks, passes in SPLITS[:4]:
        dealt = deal(0, rows, ranks, passes, lengths=LENGTHS)
        padded = sum(len(share.rows) * LENGTHS[share.rows].max() for shares in dealt for share in shares)
        assert padded <= 1.3 * LENGTHS.sum()
