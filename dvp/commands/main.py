"""Search, train or test: what `python run.py with ...` does without a verb."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sacred.run import Run

from dvp.commands.next import last_of, what_next
from dvp.config import check, ex
from dvp.errors import Stopped

if TYPE_CHECKING:
    import pytorch_lightning as pl


@ex.main
def main(_config, _run):
    """Search, train or test, as configured."""
    config = check(_config)
    trainer = carry_out(config, _run)
    if trainer.is_global_zero and not config["fast_dev_run"] and not config["test_only"]:
        print(what_next(config, trainer, *_typed(_run)))


def carry_out(
    config: dict[str, Any], run: Run, callbacks: Callable[[str], Sequence[Any]] = lambda monitor: ()
) -> "pl.Trainer":
    """The trainer of a checked config after it has searched, trained or tested; from its start on the run has begun.

    callbacks: further ones of Lightning's, by the metric that picks the checkpoint.
    """
    import pytorch_lightning as pl  # here, so that help and mistakes answer at once

    from dvp.build import build
    from dvp.commands.report import curve_lines
    from dvp.runs.auto import settle_resume
    from dvp.runs.devices import prepare_devices
    from dvp.runs.stopping import Together, stoppable
    from dvp.runs.trainer import build_trainer
    from dvp.runs.words import end_lines, start_lines

    def fail(words: str) -> None:
        for record in run.observers:
            record.failed_event(datetime.now(UTC).replace(tzinfo=None), [words])

    start = time.perf_counter()
    with stoppable(ex.words):
        prepare_devices(config["num_gpus"])
        config = settle_resume(config)
        pl.seed_everything(config["seed"], workers=True)
        data, module = build(config)
        trainer = build_trainer(config, module.monitor)
        trainer.callbacks += callbacks(module.monitor)
        for record in run.observers:
            record.began = True
        with Together(trainer, fail):
            if config["test_only"]:
                trainer.test(module, datamodule=data, verbose=False)
            else:
                if trainer.is_global_zero:
                    print(start_lines(config, data, module, trainer), flush=True)
                _fit(config, trainer, module, data, run)
        if trainer.is_global_zero:
            if not config["test_only"] and (curves := curve_lines(trainer)):
                print(curves)
            print(end_lines(config, trainer, time.perf_counter() - start), flush=True)
            _report(config, trainer, run)
    return trainer


def _fit(config: dict[str, Any], trainer: "pl.Trainer", module: Any, data: Any, run: Run) -> None:
    """Train; a run that is told to stop reports what there is, too, once it is saved."""
    try:
        trainer.fit(module, datamodule=data, ckpt_path=config["resume_from"])
    except Stopped as stopped:
        if stopped.saved and trainer.is_global_zero:
            _report(config, trainer, run)
        raise


def _report(config: dict[str, Any], trainer: "pl.Trainer", run: Run) -> None:
    from dvp.commands.report import report_lines
    from dvp.runs.answered import kept_answers

    folder = Path(trainer.default_root_dir)
    if config["search_stage"] and (folder / "search.json").is_file():
        _complete(config, trainer, run, folder / "search.json")
    kept = kept_answers(trainer)
    if not kept:  # report=False, a search, a dry run
        return
    if not kept.best and config["resume_from"] and (folder / "report.html").is_file():
        print(f"No validation since it went on, so that {folder / 'report.html'} stays as it was.", flush=True)
        return
    print(report_lines(config, trainer, *_typed(run)), flush=True)


def _complete(config: dict[str, Any], trainer: "pl.Trainer", run: Run, path: Path) -> None:
    """Write into the record of a search, and on its page, what comes next, how it is repeated, and what it cost.

    And when and where it ran, with its checkpoint.
    """
    from dvp.commands.report import about, repeated
    from dvp.report.search import update_search
    from dvp.search import read_search
    from dvp.sweep import search_flops

    search = read_search(path)
    known = {"command": repeated(config, trainer, *_typed(run)), "about": about(config, trainer)}
    known |= {"checkpoint": last_of(trainer), "next": what_next(config, trainer, *_typed(run))}
    cost = {"flops": search_flops(config, search)} if config["report"] else {}
    update_search(path, search | known | cost)


def _typed(run: Run) -> tuple[Sequence[str], dict[str, Any]]:
    """The named configs and the settings that were typed."""
    return run.meta_info["named_configs"], run.meta_info.get("config_updates", {})
