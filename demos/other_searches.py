"""What the literature offers to make a search cheaper, on the embedded GQA: prints the last table of docs/study.md.

    python run.py shapes && python -m demos.other_searches

Strict fairness trains every arm once before any is trained again (FairNAS, arXiv 1907.01845). Sequential halving drops
the worse half of the arms after each rung (Karnin, Koren and Somekh, ICML 2013). Low fidelity searches with fewer rows
(AutoPEFT, arXiv 2301.12132). Started again, it goes on with what is not done.
"""  # fmt: skip

import statistics
from typing import Any, NamedTuple
from unittest.mock import patch

import torch

from demos.study import BEDS, FRESH, GQA, RULES, SHORT, head, row, rows_of, score_of, search, sweep
from dvp.search import RULES as KAB
from dvp.search.mean import MeanScores
from dvp.search.rule import Rule, Verdict

FEWER = "batch_size=16 per_gpu_batchsize=16"


class StrictlyFair(MeanScores):
    """The mean, but the arms are trained in rounds: each once, in a random order."""

    remembered = ("trace", "round")

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.round: list[int] = []

    def random_arm(self) -> int:
        """The next of the round."""
        self.round = self.round or torch.randperm(self.num_arms, generator=self.generator).tolist()
        return self.round.pop()


class Halving(Rule):
    """The mean, but the worse half of the arms is dropped after every rung; the search ends with the last one."""

    name, every, score = MeanScores.name, MeanScores.every, MeanScores.score
    rung = 180  # scorings

    @property
    def live(self) -> list[int]:
        """The arms that no rung has dropped."""
        live = list(range(self.num_arms))
        for stop in range(self.rung, len(self.trace) + 1, self.rung):
            means = self._means(self.trace[stop - self.rung // 2 : stop], live)
            live = sorted(sorted(live, key=means.__getitem__)[len(live) // 2 :])
        return live

    def scored(self, count: int | str) -> list[int]:
        """All that are left."""
        return self.live

    def _means(self, entries: list[dict[str, Any]], arms: list[int]) -> dict[int, float]:
        return {arm: statistics.mean(one["scores"][one["arms"].index(arm)] for one in entries) for arm in arms}

    @property
    def best(self) -> int:
        """The leader of this rung."""
        live, rung = self.live, self.trace[len(self.trace) // self.rung * self.rung :]
        means = self._means(rung, live) if rung else {}
        return max(live, key=lambda arm: means.get(arm, 0.0))

    @property
    def ended(self) -> bool:
        """Whether one arm is left."""
        return len(self.live) == 1

    def verdict(self) -> Verdict:
        """The arm that is left."""
        return Verdict(self.ended, self.ended, f"K = {self.best}")

    def summary(self) -> dict[str, Any]:
        """What is known of each arm: no means, since they are of different batches."""
        unknown = [None] * self.num_arms
        return super().summary() | {"mean_scores": unknown, "z": unknown, "candidates": self.live}


class Other(NamedTuple):
    """A search other than that of the product, by the rule that stands in for `kab=mean`, with further settings."""

    rule: type[Rule]
    settings: str = ""


OTHERS = {
    "mean": Other(MeanScores),
    "strictly fair": Other(StrictlyFair),
    "halving": Other(Halving),
    "fewer rows": Other(MeanScores, FEWER),
    "fewer rows, strictly fair": Other(StrictlyFair, FEWER),
}


def main() -> None:
    """Search in each way, train on from it, and print what came of it."""
    bed = BEDS[GQA]
    lines = head("search", "seed", "updates", "rows", "K", f"{SHORT} updates from it")
    for name, (rule, settings) in OTHERS.items():
        done = []
        for seed in FRESH:
            with patch.dict(KAB, {"mean": rule}):
                kind = name.replace(" ", "-").replace(",", "")
                path, record = search(bed, kind, seed, f"{RULES['mean']} {settings}")
            layer, started = record["insert_layer"], f"load_path={path.parent / 'checkpoints' / 'last.ckpt'}"
            score = score_of(sweep(bed, SHORT, [layer], [seed], f"after-{kind}", started), layer, seed)
            done.append((record["updates"], rows_of(record), layer, score))
            lines.append(row(name, seed, *done[-1][:3], f"{score:.1f}"))
        updates, rows, _, score = (statistics.mean(column) for column in zip(*done, strict=True))
        lines.append(row(name, "mean", f"{updates:.0f}", f"{rows:.0f}", "", f"{score:.1f}"))
    print("\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
