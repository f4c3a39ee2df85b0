"""K-armed bandit search (KAB): which arm of K earns the highest score. Knows neither layers nor models.

Source: paper, section 3.3, and the published `kab_update_step`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dvp.search.rule import Rule, Verdict

LEAST_SCORED = 5  # times, each arm: large steps settle a policy that has hardly seen one of them
SURE = 0.6  # a best arm of less probability was, in trials, too often not the best


class KArmedBandit(Rule):
    """Preferences over arms, moved by how much better than its batch an arm scored."""

    name = "published"
    remembered = ("preferences", "counts", "totals", "trace")

    def __init__(self, num_arms: int, seed: int = 0, step_size: float | None = None):
        super().__init__(num_arms, seed, step_size)
        self.preferences = torch.zeros(num_arms)
        self.counts = torch.zeros(num_arms, dtype=torch.long)  # how often each arm was scored
        self.totals = torch.zeros(num_arms, dtype=torch.float64)  # sum of its scores

    @property
    def probabilities(self) -> Tensor:
        """The policy (arms,): softmax of the preferences."""
        return torch.softmax(self.preferences, dim=0)

    @property
    def best(self) -> int:
        """The arm of the largest preference, the first of equals."""
        return int(self.preferences.argmax())

    def scored(self, count: int | str) -> list[int]:
        """`count` arms drawn from the policy, or all of them once."""
        return list(range(self.num_arms)) if count == "all" else self.sample(count)

    def sample(self, count: int) -> list[int]:
        """`count` arms to score, drawn from the policy with replacement."""
        return torch.multinomial(self.probabilities, count, replacement=True, generator=self.generator).tolist()

    def update(self, arms: Sequence[int], scores: Sequence[float]) -> list[float]:
        """Rewards (score minus mean) of the arms, after moving the preferences by them.

        preference[arm] += step_size * reward * p[arm] * (1 - p[arm]), all with the p of before the update; an arm that
        was drawn twice moves twice.
        """
        p = self.probabilities
        mean = sum(scores) / len(scores)
        rewards = [score - mean for score in scores]
        for arm, score, reward in zip(arms, scores, rewards, strict=True):
            self.preferences[arm] += self.step_size * reward * p[arm] * (1 - p[arm])
            self.counts[arm] += 1
            self.totals[arm] += score
        super().update(arms, scores)
        return rewards

    def verdict(self) -> Verdict:
        """What the probability of the best arm says, once every arm was scored a few times."""
        verdict, least = policy_verdict(self.probabilities.tolist()), int(self.counts.argmin())
        if verdict.found and self.counts[least] < LEAST_SCORED:
            seldom = f"undecided: arm {least} was scored {int(self.counts[least])} times, at least {LEAST_SCORED} tell"
            return Verdict(False, False, f"{seldom}; search longer")
        return verdict

    def progress(self) -> dict[str, float]:
        """What to show while searching: K and its probability."""
        return super().progress() | {"p": float(self.probabilities[self.best])}

    def summary(self) -> dict[str, Any]:
        """What is known of each arm, ready for JSON; an arm that was never scored has no mean."""
        return super().summary() | {
            "step_size": self.step_size,
            "preferences": self.preferences.tolist(),
            "probabilities": self.probabilities.tolist(),
            "mean_scores": [
                total / count if count else None
                for total, count in zip(self.totals.tolist(), self.counts.tolist(), strict=True)
            ],
            "counts": self.counts.tolist(),
        }


def policy_verdict(probabilities: Sequence[float]) -> Verdict:
    """What a policy says of K: nothing as long as its best arm has not twice the probability that it began with."""
    best = max(probabilities)
    began = 1 / len(probabilities)
    arm = list(probabilities).index(best)
    if best < min(SURE, 2 * began):
        words = f"undecided: the best arm's probability is {best:.2f} and was {began:.2f} at the start; search longer"
        return Verdict(False, False, f"{words}, or with kab=mean")
    if best < SURE:
        words = (
            f"K = {arm}, but with a probability of {best:.2f} only: below {SURE} another is too often the better one"
        )
        return Verdict(True, False, f"{words}; search longer, or with kab=mean")
    return Verdict(True, True, f"K = {arm} with a probability of {best:.2f}")
