"""`make demo-sqa`: ScienceQA on the embedded world, through the commands that a user types.

    python -m demos.scienceqa
"""  # fmt: skip

import json
import shutil
from pathlib import Path

from demos.vqa import command, search, train

RESULT = Path("result/shapes_sqa")
SEARCH, ADAPTION = "dvp_search_llama_sqa", "dvp_adaption_llama_sqa"
# Explaining first, the model says what it sees, and then looks up the letter of what it said.
FORMAT = "prompt_format=QCM-EA"
# By the loss, and late: behind an explanation, the share of right tokens is decided before the arms use the picture.
SEARCHING = f"{FORMAT} kab=published search_warmup_steps=450 max_epoch=2"
# name -> settings of the training at K; the one that sees goes on from the search's weights
MODELS = {"blind": "insert_layer=auto image_tokens=zero", "sees": "start_from=search"}
COLUMNS = {"IMG": "with image", "TXT": "told in text", "Avg": "all"}  # the official table's -> ours


def scores(answers: Path) -> dict[str, float]:
    """The official accuracies of answers to the test problems."""
    return json.loads(answers.with_suffix(".about.json").read_text(encoding="utf-8"))["scores"]


def main() -> None:
    """World, search, a training at K without pictures and one with, their answers to the test problems, and a table."""
    shutil.rmtree(RESULT, ignore_errors=True)
    command("shapes")
    found, seconds = search(RESULT, SEARCH, SEARCHING)
    layer = found["insert_layer"]
    trained = {name: train(RESULT, ADAPTION, name, f"{FORMAT} {words}") for name, words in MODELS.items()}
    print(f"\nThe search said after {seconds:.0f} s: {found['verdict']}. Accuracy on problems about held-out scenes:\n")
    titles = "".join(f"{title:>14}" for title in COLUMNS.values())
    print(f"{'model':7}{'K':>3}{titles}{'trained parameters':>20}{'seconds':>9}   answers")
    for name, (answers, parameters, took) in trained.items():
        columns = "".join(f"{scores(answers)[column]:14.2f}" for column in COLUMNS)
        print(f"{name:7}{layer:3}{columns}{parameters:20,}{took:9.0f}   {answers}")


if __name__ == "__main__":
    main()
