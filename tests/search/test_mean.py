"""The search by the mean, on streams of scores whose means are known."""

import json
import random
from collections.abc import Iterator

import pytest

from dvp.errors import UserError
from dvp.search import RULES, KArmedBandit, MeanScores, Rule

BATCHES = 225  # of 450 updates
SEEDS = range(60)


def stream(means: list[float], seed: int) -> Iterator[list[float]]:
    """Scores of batches: what makes a batch hard is shared by the arms, half as large as an arm's own noise."""
    draw = random.Random(seed)
    while True:
        shared = draw.gauss(0, 6)
        yield [mean + shared + draw.gauss(0, 12) for mean in means]


def search(means: list[float], seed: int, batches: int = BATCHES, worth: float | None = None) -> MeanScores:
    """A search that goes on until it is decided, or to its end; worth: points that the right pictures bring."""
    rule, scores, noise = MeanScores(len(means)), stream(means, seed), random.Random(seed)
    for _ in range(batches):
        rule.update(rule.scored(5), next(scores))
        if rule.doubts and worth is not None:
            rule.note_blind(rule.trace[-1]["scores"][rule.best] - worth + noise.gauss(0, 4))
        if rule.ended:
            break
    return rule


def test_arms_that_differ_decide_and_the_better_ones_are_taken() -> None:
    found = [search([38.0, 50.0, 60.0, 60.0], seed) for seed in SEEDS]
    assert all(rule.ended and rule.verdict().decided for rule in found)
    assert all(len(rule.trace) < BATCHES for rule in found)
    assert {rule.best for rule in found} == {2, 3}
    assert all({2, 3} <= set(rule.summary()["candidates"]) for rule in found[:20])
    assert not any(0 in rule.summary()["candidates"] for rule in found)


def test_arms_that_are_alike_stay_undecided_and_are_all_candidates() -> None:
    found = [search([40.0] * 4, seed) for seed in SEEDS]
    assert sum(rule.ended for rule in found) <= 2  # 60 searches with 15 looks each
    alike = [rule for rule in found if rule.summary()["candidates"] == [0, 1, 2, 3]]
    assert len(alike) >= 55
    for rule in alike:
        verdict = rule.verdict()
        assert not verdict.found
        assert verdict.words.startswith("undecided: none is 3 points behind beyond noise, and whether")


@pytest.mark.parametrize(
    "worth, words",
    [
        (0.0, "the arms still answer like a blind model"),
        (45.0, "the arms are as good as each other"),
        (None, "whether the arms use the picture is not clear yet"),
    ],
)
def test_alike_arms_are_called_blind_only_where_other_pictures_do_as_well(worth: float | None, words: str) -> None:
    told = [search([85.0] * 4, seed, worth=worth).verdict().words for seed in SEEDS]
    undecided = [one for one in told if one.startswith("undecided")]
    assert len(undecided) >= 55
    assert sum(words in one for one in undecided) >= 0.9 * len(undecided)
    assert worth == 0 or not any("blind" in one for one in told)


def test_which_of_equally_good_arms_to_take_is_named() -> None:
    rule = MeanScores(3)
    for _ in range(45):
        rule.update([0, 1, 2], [86.0, 84.0, 86.0])
        if rule.doubts:
            rule.note_blind(40.0)
    verdict = rule.verdict()
    assert not verdict.found and verdict.words == (
        "undecided: the arms are as good as each other, none is 3 points behind beyond noise, and score 86.0 with "
        "their questions' own pictures and 40.0 with others; take any of 0, 2, or search longer"
    )
    json.dumps(rule.summary(), allow_nan=False)


def test_no_number_is_not_noted() -> None:
    rule = MeanScores(2)
    rule.update([0, 1], [1.0, 2.0])
    rule.note_blind(float("nan"))
    assert "blind" not in rule.trace[0]


def test_arms_that_differ_only_after_a_while_are_told_apart_in_the_last_half() -> None:
    rule = MeanScores(3)
    for count, means in ((60, [40.0] * 3), (60, [40.0, 40.0, 55.0])):
        scores = stream(means, count)
        for _ in range(count):
            rule.update([0, 1, 2], next(scores))
    assert rule.best == 2 and rule.verdict().decided
    assert rule.summary()["mean_scores"][2] == pytest.approx(55, abs=4)  # nothing of the blind time


LEADS = {
    "2 for sure": ([20.0, 30.0, 60.0, 60.0], True, True, "K = 2; 3 is as good; 0 and 1 are worse"),
    "none": ([50.0] * 4, False, False, "undecided: none is 3 points behind"),
    "by rounding": ([50.0, 50.0, 50.0 + 1e-6, 50.0], False, False, "undecided: none is 3 points behind"),
    "3 of all": ([20.0, 30.0, 40.0, 60.0], True, True, "K = 3; 0, 1 and 2 are worse"),
    "by a point, as blind arms do": ([50.0, 51.0, 51.0, 51.0], False, False, "undecided: none is 3 points"),
    "by three points": ([50.0, 53.0, 53.0, 53.0], True, True, "K = 1; 2 and 3 are as good; 0 is worse"),
}


@pytest.mark.parametrize("case", LEADS)
def test_it_says_which_arms_are_as_good_and_ties_go_to_the_first(case: str) -> None:
    means, found, decided, words = LEADS[case]
    rule = MeanScores(4)
    for _ in range(45):
        rule.update(rule.scored(5), means)
    verdict = rule.verdict()
    assert (verdict.found, verdict.decided, rule.ended) == (found, decided, decided)
    assert verdict.words.startswith(words)
    assert rule.best == means.index(max(means))
    json.dumps(rule.summary(), allow_nan=False)


def test_a_lead_that_is_likely_but_not_sure_is_called_so() -> None:
    rule = MeanScores(2)
    for number in range(60):  # over 30 batches a mean lead of 4 with a standard error of 1.11
        rule.update([0, 1], [50.0, 54.0 + (6 if number % 2 else -6)])
    z = rule.summary()["z"][0]
    assert 3 < z < 4
    assert rule.verdict().words == "undecided: K = 1 leads; 0 is probably worse; search longer"
    assert rule.verdict().found and not rule.ended


@pytest.mark.parametrize("batches", [0, 1, 2, 30])
def test_few_batches_tell_nothing(batches: int) -> None:
    rule = MeanScores(3)
    for _ in range(batches):
        rule.update([0, 1, 2], [10.0, 20.0, 90.0])
    assert (
        rule.verdict().words == f"undecided: {batches} scored batches are too few to tell the arms apart; search longer"
    )
    assert not rule.verdict().found and not rule.ended
    json.dumps(rule.summary(), allow_nan=False)


def test_it_ends_at_checks_only() -> None:
    rule, ends = MeanScores(2), []
    for number in range(1, 76):
        rule.update([0, 1], [10.0, 90.0])
        ends += [number * rule.every] if rule.ended else []
    assert ends == [90, 120, 150]


def test_a_resumed_search_ends_as_one_that_never_stopped() -> None:
    def go_on(rule: Rule, batches: int, scores: Iterator[list[float]]) -> list[int]:
        trained = []
        for _ in range(batches):
            trained += [rule.random_arm(), rule.random_arm()]
            rule.update(rule.scored(5), next(scores))
        return trained

    whole, first, second = MeanScores(4, seed=3), MeanScores(4, seed=3), MeanScores(4, seed=7)
    scores, again = stream([40, 45, 50, 50], 1), stream([40, 45, 50, 50], 1)
    trained = go_on(whole, 80, scores)
    parts = go_on(first, 33, again)
    second.load_state_dict(first.state_dict())
    assert parts + go_on(second, 47, again) == trained
    assert second.summary() == whole.summary()


def test_the_same_scores_decide_alike_on_every_rank() -> None:
    ranks, scores = [MeanScores(4, seed=5), MeanScores(4, seed=5)], stream([40, 45, 55, 55], 2)
    while not ranks[0].ended:
        reduced = next(scores)
        assert ranks[0].random_arm() == ranks[1].random_arm()
        for rule in ranks:
            rule.update(rule.scored(5), reduced)
        assert ranks[0].ended == ranks[1].ended
    assert ranks[0].summary() == ranks[1].summary()


# The table


@pytest.mark.parametrize("name", RULES)
def test_every_rule_goes_by_its_name_and_draws_all_arms_alike(name: str) -> None:
    rule = RULES[name](4, 0)
    assert rule.name == name
    drawn = [rule.random_arm() for _ in range(4000)]
    assert all(800 < drawn.count(arm) < 1200 for arm in range(4))
    assert rule.verdict().found is False
    assert rule.scored("all") == [0, 1, 2, 3]


def test_a_rule_that_drops_an_arm_neither_trains_nor_scores_it() -> None:
    class Racing(MeanScores):
        @property
        def live(self) -> list[int]:
            return [1, 3]

    rule = Racing(4)
    assert {rule.random_arm() for _ in range(50)} == {1, 3} == set(rule.scored(5))


def test_the_state_of_another_rule_is_refused() -> None:
    with pytest.raises(UserError, match="kab=published, not kab=mean: resume it with kab=published"):
        MeanScores(3).load_state_dict(KArmedBandit(3).state_dict())
