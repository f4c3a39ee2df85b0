"""Does K matter on the embedded world, is it found, and what is a search worth? Prints the tables of docs/study.md.

    python run.py shapes && python -m demos.study

About an hour on two cores; started again, it goes on with what is not done.
"""  # fmt: skip

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from demos.vqa import command
from dvp.config import check, ex
from dvp.search.mean import standings
from dvp.sweep import search_flops, sweep_flops

RESULT = Path("result/study")
LAYERS = range(4)
SHORT, LONG = 600, 1500  # updates of 64 rows
EARLY = 450  # updates of a search
RULES = {"mean": "", "published": f"max_steps={EARLY} search_warmup_steps={EARLY // 2}"}
WARM_SEEDS = range(201, 206)


Truth = dict[tuple[str, int], dict[int, float]]  # bed, updates -> layer -> mean score in percent


class Bed(NamedTuple):
    """A task and a way to train it."""

    experiment: str  # without its stage
    settings: str
    sweeps: dict[int, Sequence[int]]  # updates -> seeds
    searches: dict[str, Sequence[int]]  # rule -> seeds; none of them chose the rule's thresholds


GQA = "GQA, adapters"
BEDS = {
    GQA: Bed(
        "bert_gqa",
        "use_adapter=True",
        {SHORT: range(3), LONG: range(1)},
        {"mean": range(201, 211), "published": range(201, 206)},
    ),
    "VQA, adapters": Bed(
        "bert_vqa",
        "use_adapter=True",
        {SHORT: range(2)},
        {"mean": range(201, 204), "published": range(201, 204)},
    ),
    "VQA, whole model": Bed("bert_vqa", "use_adapter=False", {750: range(2)}, {}),
}


def sweep(bed: Bed, updates: int, layers: Iterable[int], seeds: Iterable[int], started: str = "") -> dict[str, Any]:
    """sweep.json of trainings at these layers, which are done now where they are not yet.

    started: settings of trainings that go on from a search, else they start anew.
    """
    place = RESULT / "_".join([bed.experiment, bed.settings, str(updates), "warm" if started else "fresh"])
    words = f"dvp_adaption_{bed.experiment} shapes {bed.settings} max_steps={updates} log_dir={place} {started}"
    command(f"sweep with {words} layers={_listed(layers)} seeds={_listed(seeds)}")
    return json.loads(max(place.rglob("sweep.json"), key=_written).read_text(encoding="utf-8"))


def search(bed: Bed, rule: str, seed: int) -> tuple[Path, dict[str, Any]]:
    """Where a search lies, and its search.json; it is made now where it is not there yet."""
    place = RESULT / f"{bed.experiment}_{rule}_{seed}"
    if not any(place.rglob("search.json")):
        command(f"with dvp_search_{bed.experiment} shapes kab={rule} {RULES[rule]} seed={seed} log_dir={place}")
    path = next(place.rglob("search.json"))
    return path, json.loads(path.read_text(encoding="utf-8"))


def after(record: dict[str, Any], updates: int) -> dict[str, Any]:
    """What a search by the mean knew after so many updates."""
    trace = record["trace"][: updates // record["scored_every"]]
    return record | {"updates": updates, "trace": trace, "insert_layer": standings(trace).leader, "verdict": "(early)"}


def layers_matter() -> tuple[list[str], Truth]:
    """The scores at every layer, as the lines of a table and by bed, updates and layer."""
    lines = _head("bed", "updates of 64 rows", *(f"K = {layer}" for layer in LAYERS), "seeds")
    truth: Truth = {}
    for name, bed in BEDS.items():
        for updates, seeds in bed.sweeps.items():
            table = sweep(bed, updates, LAYERS, seeds)["table"]
            truth[name, updates] = {row["layer"]: row["mean"] for row in table}
            cells = [f"{row['mean']:.1f}" + (f" ± {row['spread']:.1f}" if row["spread"] else "") for row in table]
            lines.append(_row(name, updates, *cells, len(seeds)))
    return lines, truth


def layers_are_found(truth: Truth) -> list[str]:
    """What each search says, what its K loses, and what it costs beside a sweep of all layers, as lines of a table."""
    lines = _head("bed", "kab", "seed", "updates", "what it says", "K", "regret", "regret, long", "% of the sweep")
    for name, bed in BEDS.items():
        whole = None
        for rule, seeds in bed.searches.items():
            for seed in seeds:
                _, record = search(bed, rule, seed)
                then = check(ex.settings | record["config"])
                whole = whole or _sweep_flops(bed)
                for known in (record, *([after(record, EARLY)] if rule == "mean" else [])):
                    lost = [_regret(truth.get((name, updates)), known["insert_layer"]) for updates in (SHORT, LONG)]
                    share = f"{100 * search_flops(then, known) / whole:.0f}"
                    row = (known["updates"], known["verdict"], known["insert_layer"], *lost, share)
                    lines.append(_row(name, rule, seed, *row))
    return lines


def warm_starts_are_worth_it() -> list[str]:
    """Trainings at the K of a search, from its weights and anew, and how long anew takes to come as far."""
    bed, lines = BEDS[GQA], _head("seed", "K", "anew", "from the search's weights", "rows of both", "rows anew")
    fresh, warm = [], []
    for seed in WARM_SEEDS:
        path, record = search(bed, "mean", seed)
        layer, started = record["insert_layer"], f"load_path={path.parent / 'checkpoints' / 'last.ckpt'}"
        fresh.append(_score(sweep(bed, SHORT, [layer], [seed]), layer, seed))
        warm.append(_score(sweep(bed, SHORT, [layer], [seed], started), layer, seed))
        level = f"metric=speed level={warm[-1]:.2f} val_check_interval=0.1"
        reached = _score(sweep(bed, 2 * LONG, [layer], [seed], level), layer, seed)
        half = record["config"]["batch_size"]
        rows = record["updates"] * half + len(record["trace"]) * half // 2 + SHORT * 2 * half
        alone = "never" if reached is None else f"{reached * 2 * half:,}"
        lines.append(_row(seed, layer, f"{fresh[-1]:.1f}", f"{warm[-1]:.1f}", f"{rows:,}", alone))
    return [*lines, _row("mean", "", f"{statistics.mean(fresh):.1f}", f"{statistics.mean(warm):.1f}", "", "")]


def main() -> None:
    """Do what is not done yet, and print the tables."""
    matter, truth = layers_matter()
    tables = [matter, layers_are_found(truth), warm_starts_are_worth_it()]
    print("\n" + "\n\n".join("\n".join(lines) for lines in tables))


def _sweep_flops(bed: Bed) -> float:
    """Of one training at every layer."""
    done = sweep(bed, SHORT, LAYERS, bed.sweeps[SHORT])
    first = [cell for cell in done["cells"] if cell["seed"] == bed.sweeps[SHORT][0]]
    return sweep_flops(check(ex.settings | done["config"]), first)


def _regret(scores: dict[int, float] | None, layer: int) -> str:
    return f"{max(scores.values()) - scores[layer]:.1f}" if scores else "-"


def _score(done: dict[str, Any], layer: int, seed: int) -> float | None:
    return next(cell["value"] for cell in done["cells"] if (cell["layer"], cell["seed"]) == (layer, seed))


def _head(*cells: object) -> list[str]:
    return [_row(*cells), "|" + "---|" * len(cells)]


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _listed(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))


def _written(path: Path) -> float:
    return path.stat().st_mtime


if __name__ == "__main__":
    main()
