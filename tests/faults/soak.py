"""Kills runs, and the commands around them, at random for as long as asked: python -m tests.faults.soak --minutes N
[--seed S]. Exit code 1 if any ends otherwise than one that was never stopped."""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}  # read at import
sys.path.append(str(Path(__file__).parents[1]))

from faults.jobs import Job, make_jobs  # noqa: E402
from faults.trials import EXPERIMENTS, Kill, divergences, draw, make_world, once, outcome, to_the_end  # noqa: E402

RUNS = 0.6  # the share of trials that are trainings and searches


class Soak:
    """Trials in a folder, each of which returns a description, how many kills it took, and what differs at its end."""

    def __init__(self, place: Path, generator: random.Random):
        self.place, self.generator = place, generator
        self.world = make_world(place / "world")
        self.jobs = make_jobs(self.world, place / "made")
        self.whole: dict[Any, dict[str, Any]] = {}  # what a run leaves that is never killed

    def run(self, kind: str) -> tuple[str, int, list[str]]:
        """A trial of a training or a search, told to go on with resume_from=auto."""
        interval, log_dir = self.generator.choice([1.0, 0.5]), self.place / "run"
        settings = self.world | {"val_check_interval": interval, "save_every": {1.0: 1, 0.5: 2}[interval]}
        if (kind, interval) not in self.whole:
            once(kind, settings, self.place / "whole")
            self.whole[kind, interval] = outcome(self.place / "whole")
            shutil.rmtree(self.place / "whole")
        drawn = self.generator.choices(["passes", "within", "writes"], k=4)
        kills = [draw(self.generator, what, share=0.4) for what in drawn]
        died = to_the_end(kind, settings, log_dir, kills)
        found = divergences(self.whole[kind, interval], outcome(log_dir))
        return f"val_check_interval={interval}, {kills}", died, found

    def job(self, name: str) -> tuple[str, int, list[str]]:
        """A trial of a command that is started again as it was."""
        job: Job = self.jobs[name]
        if name not in self.whole:
            job.to_the_end(self.place / "whole", [])
            self.whole[name] = job.read(self.place / "whole")
            shutil.rmtree(self.place / "whole")
        drawn = [self.generator.choice(list(job.steps.items())) for _ in range(3)]
        kills = [Kill(what, self.generator.randint(1, most)) for what, most in drawn]
        died = job.to_the_end(self.place / "run", kills)
        return str(kills), died, divergences(self.whole[name], job.read(self.place / "run"))


def main() -> int:
    """The exit code after as many trials as fit into the time; prints counts by kind."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    generator, end = random.Random(options.seed), time.monotonic() + 60 * options.minutes
    trials, kills, differ = Counter(), Counter(), Counter()
    print(f"soak: seed {options.seed}, {options.minutes:g} minutes", flush=True)
    with tempfile.TemporaryDirectory() as place:
        soak = Soak(Path(place), generator)
        while time.monotonic() < end:
            among, trial = (EXPERIMENTS, soak.run) if generator.random() < RUNS else (soak.jobs, soak.job)
            kind = generator.choice(list(among))
            try:
                told, died, found = trial(kind)
            except AssertionError as error:
                told, died, found = "", 0, [str(error)]
            trials[kind] += 1
            kills[kind] += died
            if found:
                differ[kind] += 1
                print(f"{kind}, {told}: {found}", flush=True)
            shutil.rmtree(Path(place) / "run", ignore_errors=True)
        for kind in (*EXPERIMENTS, *soak.jobs):
            print(f"{kind:10}{kills[kind]:5} kills in {trials[kind]:4} trials, {differ[kind]} divergences")
    print(f"{'all':10}{kills.total():5} kills in {trials.total():4} trials, {differ.total()} divergences")
    return 1 if differ.total() else 0


if __name__ == "__main__":
    sys.exit(main())
