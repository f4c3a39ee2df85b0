"""The bandit: its arithmetic, its state, and what it knows."""

import json

import pytest
import torch

from dvp.search import KArmedBandit


def test_the_update_is_that_of_the_paper() -> None:
    bandit = KArmedBandit(3)
    assert bandit.update([0, 2, 0], [60.0, 30.0, 30.0]) == [20.0, -10.0, -10.0]
    step = 0.005 * (1 / 3) * (2 / 3)  # step size x p (1 - p), with the p of before for all three
    expected = torch.tensor([(20 - 10) * step, 0.0, -10 * step])
    torch.testing.assert_close(bandit.preferences, expected)
    p = torch.softmax(expected, 0)
    bandit.update([1, 2], [10.0, 0.0])
    expected += 0.005 * torch.tensor([0.0, 5.0, -5.0]) * p * (1 - p)
    torch.testing.assert_close(bandit.preferences, expected)
    assert bandit.best == int(expected.argmax())


def test_equal_scores_move_nothing() -> None:
    bandit = KArmedBandit(4)
    bandit.update([0, 1, 1, 3], [50.0] * 4)
    assert bandit.preferences.tolist() == [0.0] * 4


def test_samples_follow_the_policy_and_training_arms_do_not() -> None:
    bandit = KArmedBandit(3, seed=1)
    bandit.preferences = torch.tensor([0.0, 2.0, -1.0])
    drawn = torch.bincount(torch.tensor(bandit.sample(20000)), minlength=3) / 20000
    torch.testing.assert_close(drawn, bandit.probabilities, atol=0.02, rtol=0)
    uniform = torch.bincount(torch.tensor([bandit.random_arm() for _ in range(20000)]), minlength=3) / 20000
    torch.testing.assert_close(uniform, torch.full((3,), 1 / 3), atol=0.02, rtol=0)


def test_the_better_arm_wins() -> None:
    bandit = KArmedBandit(4, seed=0)
    for _ in range(300):
        arms = bandit.sample(5)
        bandit.update(arms, [60.0 if arm == 2 else 50.0 for arm in arms])
    assert bandit.best == 2
    assert bandit.probabilities[2] > 0.5


def draw(bandit: KArmedBandit) -> list:
    return [bandit.random_arm(), bandit.sample(5), bandit.random_arm()]


@pytest.mark.parametrize("seed, same", [(3, True), (4, False)])
def test_the_same_seed_draws_the_same_arms(seed: int, same: bool) -> None:
    first, second = KArmedBandit(50, seed=3), KArmedBandit(50, seed=seed)
    torch.manual_seed(9)  # the ranks' other random numbers play no part
    assert (draw(first) == draw(second)) == same


def test_the_state_goes_on_where_it_was() -> None:
    first, second = KArmedBandit(5, seed=0), KArmedBandit(5, seed=1)
    first.update(first.sample(5), [1.0, 2.0, 3.0, 4.0, 5.0])
    second.load_state_dict(first.state_dict())
    for _ in range(3):
        assert draw(first) == draw(second)
        arms = first.sample(2)
        assert arms == second.sample(2)
        assert first.update(arms, [40.0, 20.0]) == second.update(arms, [40.0, 20.0])
    assert first.summary() == second.summary()


def test_the_summary_is_json_and_tells_each_arm() -> None:
    bandit = KArmedBandit(3)
    bandit.update([0, 2, 0], [60.0, 30.0, 40.0])
    summary = json.loads(json.dumps(bandit.summary()))
    assert summary["insert_layer"] == bandit.best
    assert summary["counts"] == [2, 0, 1]
    assert summary["mean_scores"] == [50.0, None, 30.0]
    assert summary["trace"] == [{"arms": [0, 2, 0], "scores": [60.0, 30.0, 40.0], "best": bandit.best}]
    assert sum(summary["probabilities"]) == pytest.approx(1)


@pytest.mark.parametrize(
    "preferences, found, decided, words",
    [
        ([0.0, 0.001, 0.0, 0.0], False, False, "undecided: the best arm's probability is 0.25 and was 0.25"),
        ([0.0, 0.9, 0.0, 0.0], False, False, "undecided"),  # p = 0.45
        ([0.0, 1.3, 0.0, 0.0], True, False, "K = 1, but with a probability of 0.55 only"),
        ([0.0, 2.0, 0.0, 0.0], True, True, "K = 1 with a probability of 0.71"),
        ([0.0] * 11 + [1.0], True, False, "K = 11, but"),  # p = 0.2: of twelve arms that is much
        ([0.0, 0.3], False, False, "undecided"),  # p = 0.57 of two is little
    ],
)
def test_it_says_what_its_policy_knows(preferences: list[float], found: bool, decided: bool, words: str) -> None:
    bandit = KArmedBandit(len(preferences))
    bandit.preferences = torch.tensor(preferences)
    bandit.counts += 5
    verdict = bandit.verdict()
    assert (verdict.found, verdict.decided) == (found, decided)
    assert verdict.words.startswith(words)
    assert not bandit.ended
    bandit.counts[0] = 4
    assert not bandit.verdict().found and ("arm 0 was scored 4 times" in bandit.verdict().words) == found
