"""The search by the mean: all arms are scored on the same batches, and the last half of these is averaged.

The first half is of a model that does not use the picture yet, and would only add noise.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from dvp.search.rule import Rule, Verdict

CHECK_EVERY = 30  # updates
LEAST_BATCHES = 20  # in the last half; fewer say nothing
DECIDED, AS_GOOD = 4.0, 3.0  # z of an arm that ends the search; z below which an arm may be as good as the leader
LEAST_LEAD = 3.0  # of 100 points: blind arms, each learning the answers at its own pace, are less far apart
DOUBT_EVERY = 5  # scorings: the leader is scored with other questions' pictures, too
LEAST_ERROR = 1e-3  # of scores from 0 to 100: no lead is surer than rounding


class Standings(NamedTuple):
    """The arms over the last half of the scored batches. z: the leader's lead over each, in its standard errors."""

    batches: int
    means: list[float]
    z: list[float]  # all 0 where one batch tells of no error
    leader: int

    @property
    def apart(self) -> float:
        """The largest z of an arm that is far enough behind to show that the model uses the picture; 0 if none is."""
        best = self.means[self.leader]
        return max(z if best - mean >= LEAST_LEAD else 0.0 for mean, z in zip(self.means, self.z, strict=True))


def standings(trace: Sequence[dict[str, Any]]) -> Standings | None:
    """How the arms stand after these scorings; None before the first. Of equals, the first arm leads."""
    if not trace:
        return None
    window = torch.tensor([entry["scores"] for entry in trace[len(trace) // 2 :]], dtype=torch.float64)  # (W, arms)
    means = window.mean(0).tolist()
    leader = means.index(max(means))
    if len(window) == 1:
        return Standings(1, means, [0.0] * len(means), leader)
    lead = window[:, [leader]] - window  # (W, arms), batch by batch: what makes a batch hard is the same for all arms
    error = lead.std(0) / len(window) ** 0.5
    return Standings(len(window), means, (lead.mean(0) / error.clamp(min=LEAST_ERROR)).tolist(), leader)


class Sight(NamedTuple):
    """What the leaders scored in the last half, and what with other questions' pictures. z: the gain, in its errors."""

    own: float
    blind: float
    z: float

    @property
    def words(self) -> str:
        """Both scores."""
        return f"{self.own:.1f} with their questions' own pictures and {self.blind:.1f} with others"


def sight(trace: Sequence[dict[str, Any]]) -> Sight | None:
    """Whether the leaders use the picture, by these scorings; None where it was hardly measured."""
    asked = [entry for entry in trace[len(trace) // 2 :] if "blind" in entry]
    if len(asked) < 2:
        return None
    own = torch.tensor([entry["scores"][entry["arms"].index(entry["best"])] for entry in asked], dtype=torch.float64)
    blind = torch.tensor([entry["blind"] for entry in asked], dtype=torch.float64)
    error = (own - blind).std() / len(asked) ** 0.5
    return Sight(float(own.mean()), float(blind.mean()), float((own - blind).mean() / error.clamp(min=LEAST_ERROR)))


class MeanScores(Rule):
    """The arm of the highest mean score; the search ends when it leads another arm beyond doubt.

    An arm that falls behind shows that the model uses the picture, and where it goes in matters.
    """

    name = "mean"
    every = 2
    score = "accuracy"

    def scored(self, count: int | str) -> list[int]:
        """All live arms, whatever `count`."""
        return self.live

    @property
    def best(self) -> int:
        """The leader."""
        now = standings(self.trace)
        return now.leader if now else 0

    @property
    def doubts(self) -> bool:
        """Every so many scorings."""
        return len(self.trace) % DOUBT_EVERY == 0

    @property
    def ended(self) -> bool:
        """Whether the search is decided at one of its checks."""
        return len(self.trace) * self.every % CHECK_EVERY == 0 and self.verdict().decided

    def verdict(self) -> Verdict:
        """Whether an arm leads beyond doubt, and which are as good."""
        now = standings(self.trace)
        if not now or now.batches < LEAST_BATCHES:
            few = f"undecided: {len(self.trace)} scored batches are too few to tell the arms apart; search longer"
            return Verdict(False, False, few)
        if now.apart < AS_GOOD:
            return Verdict(False, False, f"undecided: {alike(now, sight(self.trace))}")
        equals = [arm for arm, z in enumerate(now.z) if z < AS_GOOD and arm != now.leader]
        others = [arm for arm, z in enumerate(now.z) if z >= AS_GOOD]
        decided = now.apart >= DECIDED
        as_good = f"; {listed(equals)} as good" if equals else ""
        if decided:
            return Verdict(True, True, f"K = {now.leader}{as_good}; {listed(others)} worse")
        words = f"undecided: K = {now.leader} leads{as_good}; {listed(others)} probably worse; search longer"
        return Verdict(True, False, words)

    def progress(self) -> dict[str, float]:
        """What to show while searching: K, and how sure it is that some arm is worse."""
        now = standings(self.trace)
        return super().progress() | {"z": now.apart if now else 0.0}

    def summary(self) -> dict[str, Any]:
        """What is known of each arm, ready for JSON: means, z, and the candidates, the leader among them."""
        now = standings(self.trace) or Standings(0, [], [], 0)
        return super().summary() | {
            "mean_scores": now.means or [None] * self.num_arms,
            "z": now.z or [None] * self.num_arms,
            "candidates": [arm for arm, z in enumerate(now.z) if z < AS_GOOD],
            "counts": [len(self.trace)] * self.num_arms,
            "averaged_batches": now.batches,
        }


def alike(now: Standings, seen: Sight | None) -> str:
    """What is known of arms of which none is far behind: blind ones all answer alike, and so do equally good ones."""
    none = f"none is {LEAST_LEAD:g} points behind beyond noise"
    if seen and seen.own - seen.blind < LEAST_LEAD:
        return f"the arms still answer like a blind model, they score {seen.words}; search longer"
    if seen and seen.z >= AS_GOOD:
        leaders = [arm for arm, z in enumerate(now.z) if z < AS_GOOD]
        best = f"any of {', '.join(map(str, leaders))}" if len(leaders) > 1 else str(leaders[0])
        return f"the arms are as good as each other, {none}, and score {seen.words}; take {best}, or search longer"
    return f"{none}, and whether the arms use the picture is not clear yet; search longer"


def listed(arms: Sequence[int]) -> str:
    """The arms as the subject of a sentence, verb included: "3 is", "0 and 1 are"."""
    *front, last = map(str, arms)
    return f"{', '.join(front)} and {last} are" if front else f"{last} is"
