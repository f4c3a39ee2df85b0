"""Does K matter on the embedded world, and is it found? Prints the tables of README.md.

    python run.py shapes && python -m demos.study
"""  # fmt: skip

import shutil
from pathlib import Path

from demos.vqa import ADAPTION, SEARCH, accuracy, search, train

RESULT = Path("result/study")
TRAIN = "use_adapter=True"
LAYERS = range(4)
SEEDS = range(5)
RULES = ("mean", "published")


def main() -> None:
    """Train once at every K, search with every seed by both rules."""
    shutil.rmtree(RESULT, ignore_errors=True)
    trained = [train(RESULT, ADAPTION, f"at_{layer}", f"insert_layer={layer} {TRAIN}") for layer in LAYERS]
    reached = [accuracy(training.answers) for training in trained]
    searches = {
        (kab, seed): search(RESULT / f"{kab}_{seed}", SEARCH, f"kab={kab} seed={seed}")
        for kab in RULES
        for seed in SEEDS
    }
    print("\n| K | " + " | ".join(map(str, LAYERS)) + " |\n|---|" + "---|" * len(LAYERS))
    print("| accuracy | " + " | ".join(f"{accuracy:.2f}" for accuracy in reached) + " |\n")
    print("| kab | seed | what the search says | accuracy at its K | updates | seconds |\n|" + "---|" * 6)
    for (kab, seed), (found, seconds) in searches.items():
        said, reaches = found["verdict"], f"{reached[found['insert_layer']]:.2f}"
        print("| " + " | ".join(map(str, (kab, seed, said, reaches, found["updates"], f"{seconds:.0f}"))) + " |")


if __name__ == "__main__":
    main()
