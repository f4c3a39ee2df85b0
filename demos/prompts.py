"""What do more prompt tokens, and a second layer, bring on the embedded GQA? Prints the last table of docs/study.md.

    python run.py shapes && python -m demos.prompts

Half an hour on two cores beside other work; started again, it goes on with what is not done.
"""  # fmt: skip

import csv
import statistics

from demos.study import BEDS, GQA, RESULT, SHORT, head, row
from demos.vqa import command
from dvp.config import check, ex, shapes_settings
from dvp.sweep import training_flops

TOKENS = (1, 4, 16)
LAYERS = (2, [1, 2])
SEEDS = range(3)


def score(tokens: int, layers: int | list[int], seed: int) -> float:
    """In percent on val, at the end of a training, which is done now where it is not yet."""
    name = f"prompts_{tokens}_{layers}".replace(" ", "")
    folder = RESULT / "prompts" / f"{name}_seed{seed}"
    settings = f"insert_layer={layers} prompt_tokens={tokens} max_steps={SHORT} seed={seed}".replace(", ", ",")
    bed = BEDS[GQA]
    if not any(folder.rglob("report.html")):
        place = f"exp_name={name} log_dir={RESULT / 'prompts'}"
        command(f"with dvp_adaption_{bed.experiment} shapes {bed.settings} {settings} {place}")
    with open(next(folder.rglob("metrics.csv")), encoding="utf-8") as file:
        return [float(line["gqa/val/accuracy"]) for line in csv.DictReader(file) if line["gqa/val/accuracy"]][-1]


def main() -> None:
    """Do what is not done yet, and print the table."""
    lines = head("prompt tokens", "insert_layer", "accuracy", "MFLOP per row")
    for layers in LAYERS:
        for tokens in TOKENS:
            scores = [score(tokens, layers, seed) for seed in SEEDS]
            named = ex.named_configs[f"dvp_adaption_{BEDS[GQA].experiment}"]()
            settings = ex.settings | named | {"use_adapter": True}
            settings |= shapes_settings(settings) | {"insert_layer": layers, "prompt_tokens": tokens}
            cost = training_flops(check(settings)) / 1e6
            spread = f"{statistics.mean(scores):.1f} ± {statistics.stdev(scores):.1f}"
            lines.append(row(tokens, layers, spread, f"{cost:.1f}"))
    print("\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
