"""K-armed bandit search (KAB): which arm of K earns the highest score. Knows neither layers nor models.

Source: paper, section 3.3, and the published `kab_update_step`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

STEP_SIZE = 0.005  # of the classification tasks, with scores from 0 to 100


class KArmedBandit:
    """Preferences over arms, moved by how much better than its batch an arm scored.

    The generator is seeded alike on every rank, so that all ranks train and score the same arms.
    """

    def __init__(self, num_arms: int, seed: int = 0, step_size: float = STEP_SIZE):
        self.preferences = torch.zeros(num_arms)
        self.step_size = step_size
        self.generator = torch.Generator().manual_seed(seed)
        self.counts = torch.zeros(num_arms, dtype=torch.long)  # how often each arm was scored
        self.totals = torch.zeros(num_arms, dtype=torch.float64)  # sum of its scores
        self.trace: list[dict[str, Any]] = []  # one entry per update

    @property
    def probabilities(self) -> Tensor:
        """The policy (arms,): softmax of the preferences."""
        return torch.softmax(self.preferences, dim=0)

    @property
    def best(self) -> int:
        """The arm of the largest preference, the first of equals."""
        return int(self.preferences.argmax())

    def random_arm(self) -> int:
        """An arm to train with, all equally likely."""
        return int(torch.randint(len(self.preferences), (), generator=self.generator))

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
        self.trace.append({"arms": list(arms), "scores": list(scores), "best": self.best})
        return rewards

    def summary(self) -> dict[str, Any]:
        """What is known of each arm, ready for JSON; an arm that was never scored has no mean."""
        return {
            "insert_layer": self.best,
            "preferences": self.preferences.tolist(),
            "probabilities": self.probabilities.tolist(),
            "mean_scores": [
                total / count if count else None
                for total, count in zip(self.totals.tolist(), self.counts.tolist(), strict=True)
            ],
            "counts": self.counts.tolist(),
            "trace": self.trace,
        }

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed search needs."""
        state = {name: getattr(self, name) for name in ("preferences", "counts", "totals", "trace")}
        return state | {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of `state_dict`."""
        for name in ("preferences", "counts", "totals", "trace"):
            setattr(self, name, state[name])
        self.generator.set_state(state["generator"])
