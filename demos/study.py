"""Does K matter on the embedded world, and is it found? Prints the tables of README.md.

    python run.py shapes && python -m demos.study
"""  # fmt: skip

import shutil
from pathlib import Path

from demos.vqa import ADAPTION, SEARCH, SEARCHING, accuracy, search, train

RESULT = Path("result/study")
TRAIN = "use_adapter=True learning_rate=4e-3 max_epoch=3"
LAYERS = range(4)
SEEDS = range(5)
WAYS = {"five drawn arms": "", "every arm": "search_sample=all"}


def settled(trace: list[dict]) -> int:
    """After how many updates the best arm was the one that it was at the end."""
    last = trace[-1]["best"]
    return max((step for step, entry in enumerate(trace, 1) if entry["best"] != last), default=0) + 1


def main() -> None:
    """Train once at every K, search with every seed in both ways."""
    shutil.rmtree(RESULT, ignore_errors=True)
    trained = [train(RESULT, ADAPTION, f"at_{layer}", f"insert_layer={layer} {TRAIN}") for layer in LAYERS]
    reached = [accuracy(training.answers) for training in trained]
    searches = {
        (way, seed): search(RESULT / f"{way.split()[0]}_{seed}", SEARCH, f"{SEARCHING} {settings} seed={seed}")
        for way, settings in WAYS.items()
        for seed in SEEDS
    }
    print("\n| K | " + " | ".join(map(str, LAYERS)) + " |\n|---|" + "---|" * len(LAYERS))
    print("| accuracy | " + " | ".join(f"{accuracy:.2f}" for accuracy in reached) + " |\n")
    print("| scored per update | seed | K | its accuracy | updates until K stayed | of | seconds |\n|" + "---|" * 7)
    for (way, seed), (found, seconds) in searches.items():
        layer, trace = found["insert_layer"], found["trace"]
        cells = (way, seed, layer, f"{reached[layer]:.2f}", settled(trace), len(trace), f"{seconds:.0f}")
        print("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main()
