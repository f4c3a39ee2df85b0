"""Does K matter on the embedded world, is it found, and what is a search worth? Prints the tables of docs/study.md.

    python run.py shapes && python -m demos.study            # or: python -m demos.study GQA

About an hour on two cores; started again, it goes on with what is not done. Of beds that are named alone, by
how they begin, the tables are shorter.
"""  # fmt: skip

import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from demos.vqa import command
from dvp.config import check, ex
from dvp.errors import UserError
from dvp.search.mean import standings
from dvp.sweep import search_flops, sweep_flops, table_of

RESULT = Path("result/study")
LAYERS = range(4)
ROWS = 64  # of an update of a training
SHORT, LONG = 600, 1500  # updates of a training
WHOLE = 750  # of one of the whole model
EARLY = 450  # updates of a search
RULES = {"mean": "kab=mean", "published": f"kab=published max_steps={EARLY} search_warmup_steps={EARLY // 2}"}
FRESH = range(201, 206)  # seeds that chose no threshold

Truth = dict[tuple[str, int], dict[int, float]]  # bed, updates -> layer -> mean score in percent


class Bed(NamedTuple):
    """A task and a way to train it."""

    experiment: str  # without its stage
    settings: str
    sweeps: dict[int, Sequence[int]]  # updates -> seeds
    searches: dict[str, Sequence[int]]  # rule -> seeds; with adapters, whatever is trained at K then
    starts: Sequence[int]  # updates of the trainings from a search's weights


GQA = "GQA, adapters"
BEDS = {
    GQA: Bed(
        "bert_gqa",
        "use_adapter=True",
        {SHORT: range(3), LONG: range(1)},
        {"mean": range(201, 211), "published": FRESH},
        (SHORT // 2, SHORT),
    ),
    "VQA, adapters": Bed(
        "bert_vqa", "use_adapter=True", {SHORT: range(2)}, {"mean": FRESH, "published": FRESH}, (SHORT,)
    ),
    "VQA, whole model": Bed(
        "bert_vqa", "use_adapter=False", {WHOLE: range(2)}, {"mean": FRESH, "published": FRESH}, (WHOLE,)
    ),
}


def sweep(
    bed: Bed, updates: int, layers: Sequence[int], seeds: Sequence[int], kind: str = "fresh", settings: str = ""
) -> dict[str, Any]:
    """The cells and the table of trainings at these layers, which are done now where they are not yet.

    kind: what the `settings` beside the bed's make of them, in a word.
    """
    place = RESULT / "_".join([bed.experiment, bed.settings, str(updates), kind])
    words = f"dvp_adaption_{bed.experiment} shapes {bed.settings} max_steps={updates} log_dir={place} {settings}"
    command(f"sweep with {words} layers={_listed(layers)} seeds={_listed(seeds)}")
    done = json.loads(max(place.rglob("sweep.json"), key=_written).read_text(encoding="utf-8"))
    cells = [cell for cell in done["cells"] if cell["layer"] in layers and cell["seed"] in seeds]  # others may be there
    return done | {"cells": cells, "table": table_of(cells)}


def search(bed: Bed, kind: str, seed: int, settings: str) -> tuple[Path, dict[str, Any]]:
    """Where a search lies, and its search.json; it is made now where it is not there yet.

    kind: what the `settings` make of it, in a word.
    """
    place = RESULT / f"{bed.experiment}_{kind}_{seed}"
    if not any(place.rglob("search.json")):
        command(f"with dvp_search_{bed.experiment} shapes {settings} seed={seed} log_dir={place}")
    path = next(place.rglob("search.json"))
    return path, json.loads(path.read_text(encoding="utf-8"))


def after(record: dict[str, Any], updates: int) -> dict[str, Any]:
    """What a search by the mean knew after so many updates."""
    trace = record["trace"][: updates // record["scored_every"]]
    return record | {
        "updates": updates,
        "trace": trace,
        "insert_layer": standings(trace).leader,
        "verdict": "not asked yet, K is its leader",
    }


def layers_matter(beds: dict[str, Bed]) -> tuple[list[str], Truth]:
    """The scores at every layer, as the lines of a table and by bed, updates and layer."""
    lines = head("bed", f"updates of {ROWS} rows", *(f"K = {layer}" for layer in LAYERS), "seeds")
    truth: Truth = {}
    for name, bed in beds.items():
        for updates, seeds in bed.sweeps.items():
            table = sweep(bed, updates, LAYERS, seeds)["table"]
            truth[name, updates] = {one["layer"]: one["mean"] for one in table}
            cells = [f"{one['mean']:.1f}" + (f" ± {one['spread']:.1f}" if one["spread"] else "") for one in table]
            lines.append(row(name, updates, *cells, len(seeds)))
    return lines, truth


def layers_are_found(beds: dict[str, Bed], truth: Truth) -> list[str]:
    """What each search says, what its K loses, and what it costs beside a sweep of all layers, as lines of a table."""
    lines = head("bed", "kab", "seed", "updates", "what it says", "K", "regret", "regret, long", "% of the sweep")
    for name, bed in beds.items():
        whole = None
        for rule, seeds in bed.searches.items():
            for seed in seeds:
                _, record = search(bed, rule, seed, RULES[rule])
                then = check(ex.settings | record["config"])
                whole = whole or _sweep_flops(bed)
                for known in (record, *([after(record, EARLY)] if rule == "mean" else [])):
                    lost = [_regret(truth[name, updates], known["insert_layer"]) for updates in bed.sweeps]
                    lost += ["-"] * (2 - len(lost))
                    share = f"{100 * search_flops(then, known) / whole:.0f}"
                    said = (known["updates"], known["verdict"], known["insert_layer"])
                    lines.append(row(name, rule, seed, *said, *lost, share))
    return lines


def warm_starts_are_worth_it(beds: dict[str, Bed]) -> list[str]:
    """Trainings from the weights of a search at its K, beside as many updates anew, and beside as many rows anew."""
    lines = head(
        "bed", "updates", "seed", "K", "from the search", "anew", "anew, with the search's rows, too", "updates of that"
    )
    for name, bed in beds.items():
        for updates in bed.starts:
            scores: list[tuple[float, ...]] = []
            for seed in FRESH:
                path, record = search(bed, "mean", seed, RULES["mean"])
                layer = record["insert_layer"]
                started = f"load_path={path.parent / 'checkpoints' / 'last.ckpt'}"
                equal = updates + round(rows_of(record) / ROWS)
                done = sweep(bed, updates, [layer], [seed], "warm", started), sweep(bed, updates, [layer], [seed])
                done += (sweep(bed, equal, [layer], [seed]),)
                scores.append(tuple(score_of(one, layer, seed) for one in done))
                lines.append(row(name, updates, seed, layer, *(f"{score:.1f}" for score in scores[-1]), equal))
            means = (f"{statistics.mean(column):.1f}" for column in zip(*scores, strict=True))
            lines.append(row(name, updates, "mean", "", *means, ""))
    return lines


def main(begins: Sequence[str]) -> None:
    """Do what is not done yet, and print the tables, of the beds whose names begin so, or of all."""
    beds = {name: bed for name, bed in BEDS.items() if name.startswith(tuple(begins or [""]))}
    if not beds:
        raise UserError(f"No bed begins with {' or '.join(begins)}: there are {'; '.join(BEDS)}.")
    matter, truth = layers_matter(beds)
    tables = [matter, layers_are_found(beds, truth), warm_starts_are_worth_it(beds)]
    print("\n" + "\n\n".join("\n".join(lines) for lines in tables))


def _sweep_flops(bed: Bed) -> float:
    """Of one training at every layer, of the shorter ones."""
    updates, seeds = next(iter(bed.sweeps.items()))
    done = sweep(bed, updates, LAYERS, seeds)
    first = [cell for cell in done["cells"] if cell["seed"] == seeds[0]]
    return sweep_flops(check(ex.settings | done["config"]), first)


def _regret(scores: dict[int, float], layer: int) -> str:
    return f"{max(scores.values()) - scores[layer]:.1f}"


def rows_of(record: dict[str, Any]) -> int:
    """The rows that a search has trained and scored."""
    batch = record["config"]["batch_size"]
    return record["updates"] * batch + len(record["trace"]) * (batch // 2)


def score_of(done: dict[str, Any], layer: int, seed: int) -> float:
    """The score of a cell of a sweep."""
    return next(cell["value"] for cell in done["cells"] if (cell["layer"], cell["seed"]) == (layer, seed))


def head(*cells: object) -> list[str]:
    """The first two lines of a table."""
    return [row(*cells), "|" + "---|" * len(cells)]


def row(*cells: object) -> str:
    """A line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def _listed(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))


def _written(path: Path) -> float:
    return path.stat().st_mtime


if __name__ == "__main__":
    main(sys.argv[1:])
