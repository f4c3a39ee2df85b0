"""Was K right? Train at every layer with several seeds, and set what comes out beside what the search said."""

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from dvp.commands.idle import SWEEP, idle
from dvp.commands.main import carry_out
from dvp.commands.next import command
from dvp.config import check, ex
from dvp.errors import UserError
from dvp.runs.folder import is_first_process
from dvp.tasks import TASKS

# What a sweep sets itself, or cannot do.
REFUSED = ("insert_layer", "seed", "start_from", "resume_from", "test_only", "fast_dev_run")


@ex.command
def sweep(_config, _run):
    """Train at every K (layers=, seeds=) for the experiment's budget, and set the newest search beside it.

    Started again it goes on with what is not done, also amidst a training. metric=speed level=60 counts the updates
    until 60 % are passed.
    """
    config, typed = check(_config), _run.meta_info.get("config_updates", {})
    _refuse(config, typed)
    for key, why in idle((key for key in typed if key not in SWEEP), config) if is_first_process() else ():
        print(f"{key}={typed[key]} has no effect: {why}.")

    from dvp.runs.auto import has_ended
    from dvp.search import tables_of
    from dvp.sweep import read_cells, sweep_folder

    tables = tables_of(config["data_root"], TASKS[config["datasets"]].files)
    folder = sweep_folder(config, tables)
    layers, there = _layers(config)
    wanted = [(layer, seed) for layer in layers for seed in _listed(config["seeds"])]
    done = {(cell["layer"], cell["seed"]) for cell in read_cells(folder)}
    left = [cell for cell in wanted if cell not in done]
    ended = [cell for cell in left if config["metric"] == "score" and has_ended(_of_cell(config, *cell))]
    if is_first_process():
        done = len(wanted) - len(left) + len(ended)
        print(f"The sweep in {folder}: {len(wanted)} trainings, {done} of them done.")
    for number, (layer, seed) in enumerate(left, 1):
        if is_first_process():
            only = ", which had ended and is only scored" if (layer, seed) in ended else ""
            print(f"\n{number} of {len(left)}: K = {layer}, seed {seed}{only}", flush=True)
        _train(config, layer, seed, folder, _run)
    if is_first_process():
        _report(config, tables, folder, there, (_run.meta_info["named_configs"], typed))


def _refuse(config: dict[str, Any], typed: dict[str, Any]) -> None:
    if config["search_stage"]:
        raise UserError("A sweep trains at every K, a search is none: give an experiment dvp_adaption_... .")
    if given := [key for key in REFUSED if key in typed]:
        raise UserError(f"{given[0]} is not for sweep, which trains anew at layers= with seeds=: leave it out.")


def _listed(value: Any) -> list[int]:
    return list(value) if isinstance(value, Sequence) else [value]


def _layers(config: dict[str, Any]) -> tuple[list[int], int]:
    """The layers to train at, and how many the model has; raises UserError for one that it does not have."""
    from dvp.build import build

    there = range(build(config | {"insert_layer": 0})[1].model.num_layers)
    layers = list(there) if config["layers"] == "all" else _listed(config["layers"])
    if beyond := [layer for layer in layers if layer not in there]:
        raise UserError(
            f"layers={beyond[0]} is outside this model: {config['tokenizer']} has layers 0 to {there[-1]}; "
            "take some of these."
        )
    return layers, len(there)


def _of_cell(config: dict[str, Any], layer: int, seed: int) -> dict[str, Any]:
    own = {"insert_layer": layer, "seed": seed, "exp_name": f"{config['exp_name']}_K{layer}"}
    if config["metric"] == "score":  # else what was passed before the stop is not known
        own["resume_from"] = "auto"
    return config | own


def _train(config: dict[str, Any], layer: int, seed: int, folder: Path, run: Any) -> None:
    """Train one cell and write it down."""
    from dvp.runs.progress import duration_of
    from dvp.sweep import Reached, write_cell

    start = time.perf_counter()
    level, own = config["level"] if config["metric"] == "speed" else None, _of_cell(config, layer, seed)
    trainer = carry_out(own, run, lambda monitor: [] if level is None else [Reached(monitor, level)])
    monitor, seconds = trainer.lightning_module.monitor, time.perf_counter() - start + duration_of(trainer).earlier
    updates, path = trainer.global_step, trainer.log_dir
    if level is None:  # the score at the end of the budget, which may be within an epoch
        # Else metrics.csv had it one update later: Lightning takes the number of the update that would come next.
        trainer.fit_loop.epoch_loop._batches_that_stepped = updates - 1
        trainer.validate(trainer.lightning_module, datamodule=trainer.datamodule, verbose=False)
        value = float(trainer.callback_metrics[monitor])
    else:
        value = next(callback.updates for callback in trainer.callbacks if isinstance(callback, Reached))
    if trainer.is_global_zero:
        cell = {"layer": layer, "seed": seed, "value": value, "updates": updates, "seconds": seconds}
        write_cell(folder, cell | {"monitor": monitor, "run": path})


def _report(
    config: dict[str, Any], tables: dict[str, int], folder: Path, there: int, typed: tuple[Sequence[str], dict]
) -> None:
    """Make the table of all cells there are, with the search beside it, and print it.

    there: how many layers the model has; typed: named configs and settings.
    """
    from dvp.commands.report import versions
    from dvp.report.search import update_search
    from dvp.report.sweep import report_sweep
    from dvp.search import agreeing_search
    from dvp.sweep import (
        alike,
        beside,
        extent,
        read_cells,
        rows_for_search,
        search_flops,
        sweep_flops,
        table_lines,
        table_of,
        trained_at,
        write_sweep,
    )  # fmt: skip

    cells = read_cells(folder)
    table, (found, _) = table_of(cells), agreeing_search(Path(config["log_dir"]), config, tables)
    search = None
    if found:
        then = check(ex.settings | found.record["config"] | {"data_root": config["data_root"]})
        costs = {"flops": search_flops(then, found.record), "sweep_flops": sweep_flops(config, cells)}
        search = {"path": str(found.path)} | beside(table, cells, found.record, config["metric"]) | costs
    told = {"monitor": cells[0]["monitor"], "metric": config["metric"], "level": config["level"], "tables": tables}
    told |= {"table": table, "alike": alike(table, config["metric"])}
    told |= {"trained_at": trained_at(table, there), "extent": extent(table, there)}
    whole = {key: ",".join(map(str, sorted({cell[key[:-1]] for cell in cells}))) for key in ("layers", "seeds")}
    told |= {"command": command(typed[0], typed[1] | whole, "sweep")}
    told |= {"about": {"date": datetime.now().astimezone().isoformat(" ", "seconds")} | versions()}
    result = told | {"search": search, "cells": cells, "config": config}
    write_sweep(folder / "sweep.json", result)
    report_sweep(folder, result)
    if found:
        swept = {"swept": rows_for_search(result, folder), "swept_at": result["trained_at"]}
        update_search(found.path, found.record | swept)
    print(f"\n{table_lines(result)}\nDetails in {folder / 'sweep.html'}")
