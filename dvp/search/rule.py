"""What every rule of a search shares: arms, their scores, a generator, and what a rule has to say. Knows no layers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dvp.errors import UserError

STEP_SIZE = 0.005  # of the classification tasks, with scores from 0 to 100


@dataclass(frozen=True)
class Verdict:
    """What a search knows of K. found: something sets K apart; decided: beyond doubt; words: the same for people."""

    found: bool
    decided: bool
    words: str


class Rule:
    """Arms and what they scored. A rule is a subclass; what it says of itself are the columns of `RULES`:

    every           updates of the model between two scorings
    score           what an arm earns: the task's "published" score or its "accuracy"
    live            the arms that are not dropped
    random_arm()    the arm that the next update trains
    scored(count)   the arms that are scored after an update
    best            the arm that would be taken now
    doubts          whether the best arm is now to be scored without what belongs to its questions, too
    ended           whether the search may stop before its last update
    verdict()       what is known

    The generator is seeded alike on every rank, so that all ranks train and score the same arms.
    """

    name: str
    every = 1
    score = "published"
    remembered: tuple[str, ...] = ("trace",)  # what a resumed search needs beside the generator

    def __init__(self, num_arms: int, seed: int = 0, step_size: float | None = None):
        self.num_arms = num_arms
        self.step_size = STEP_SIZE if step_size is None else step_size  # of a rule that moves by steps
        self.generator = torch.Generator().manual_seed(seed)
        self.trace: list[dict[str, Any]] = []  # one entry per scoring

    @property
    def live(self) -> list[int]:
        """The arms that are not dropped: all, unless a rule says otherwise."""
        return list(range(self.num_arms))

    def random_arm(self) -> int:
        """An arm to train with, all that are live equally likely."""
        live = self.live
        return live[int(torch.randint(len(live), (), generator=self.generator))]

    def scored(self, count: int | str) -> list[int]:
        """The arms to score now; `count` is the `search_sample` of the settings."""
        raise NotImplementedError

    @property
    def best(self) -> int:
        """The arm that would be taken now."""
        raise NotImplementedError

    @property
    def doubts(self) -> bool:
        """Whether the best arm is now to be scored on the same batch without what belongs to its questions, too."""
        return False

    def note_blind(self, score: float) -> None:
        """Take note of what the best arm scored so; of no number nothing."""
        if math.isfinite(score):
            self.trace[-1]["blind"] = score

    @property
    def ended(self) -> bool:
        """Whether the search may stop before its last update."""
        return False

    def update(self, arms: Sequence[int], scores: Sequence[float]) -> None:
        """Take note of what the arms scored; raises UserError for a score that is no number."""
        if bad := sorted({arm for arm, score in zip(arms, scores, strict=True) if not math.isfinite(score)}):
            raise UserError(
                f"The score of arm(s) {', '.join(map(str, bad))} is not finite in scoring {len(self.trace) + 1}: the "
                "search ends without a K; search again with a smaller learning_rate."
            )
        self.trace.append({"arms": list(arms), "scores": list(scores)})
        self.trace[-1]["best"] = self.best

    def verdict(self) -> Verdict:
        """What is known of K."""
        raise NotImplementedError

    def progress(self) -> dict[str, float]:
        """What to show while searching."""
        return {"K": float(self.best)}

    def summary(self) -> dict[str, Any]:
        """What is known of each arm, ready for JSON."""
        verdict = self.verdict()
        known = {"found": verdict.found, "decided": verdict.decided, "verdict": verdict.words}
        return {"kab": self.name, "insert_layer": self.best, **known, "scored_every": self.every, "trace": self.trace}

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed search needs."""
        state = {name: getattr(self, name) for name in self.remembered}
        return state | {"kab": self.name, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of `state_dict`; raises UserError for that of another rule."""
        kab = state.get("kab", "published")  # the only rule of checkpoints that name none
        if kab != self.name:
            raise UserError(
                f"The checkpoint's search went by kab={kab}, not kab={self.name}: resume it with kab={kab}."
            )
        for name in self.remembered:
            setattr(self, name, state[name])
        self.generator.set_state(state["generator"])
