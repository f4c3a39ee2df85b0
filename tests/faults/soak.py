"""Kills runs at random for as long as asked: python -m tests.faults.soak --minutes N [--seed S]. Exit code 1 if any
ends otherwise than one that was never stopped."""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}  # read at import
sys.path.append(str(Path(__file__).parents[1]))

from faults.trials import EXPERIMENTS, divergences, draw, make_world, once, outcome, to_the_end  # noqa: E402


def main() -> int:
    """The exit code after as many trials as fit into the time; prints counts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    generator, counts, end = random.Random(options.seed), Counter(), time.monotonic() + 60 * options.minutes
    print(f"soak: seed {options.seed}, {options.minutes:g} minutes", flush=True)
    with tempfile.TemporaryDirectory() as place:
        world, whole = make_world(Path(place) / "world"), {}
        while time.monotonic() < end:
            kind, interval = generator.choice(list(EXPERIMENTS)), generator.choice([1.0, 0.5])
            settings = world | {"val_check_interval": interval, "save_every": {1.0: 1, 0.5: 2}[interval]}
            if (kind, interval) not in whole:
                once(kind, settings, Path(place) / "whole")
                whole[kind, interval] = outcome(Path(place) / "whole")
                shutil.rmtree(Path(place) / "whole")
            kills, log_dir = [draw(generator, share=0.4) for _ in range(4)], Path(place) / "run"
            try:
                counts[f"kills of a {kind}"] += to_the_end(kind, settings, log_dir, kills)
                found = divergences(whole[kind, interval], outcome(log_dir))
            except AssertionError as error:
                found = [str(error)]
            counts["runs"] += 1
            if found:
                counts["divergences"] += 1
                print(f"{kind}, val_check_interval={interval}, {kills}: {found}", flush=True)
            shutil.rmtree(log_dir, ignore_errors=True)
    counts["divergences"] += 0
    print(", ".join(f"{number} {what}" for what, number in sorted(counts.items())))
    return 1 if counts["divergences"] else 0


if __name__ == "__main__":
    sys.exit(main())
