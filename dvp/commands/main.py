"""Search, train or test: what `python run.py with ...` does without a verb."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sacred.run import Run

from dvp.commands.next import what_next
from dvp.config import check, ex

if TYPE_CHECKING:
    import pytorch_lightning as pl


@ex.main
def main(_config, _run):
    """Search, train or test, as configured."""
    config = check(_config)
    trainer = carry_out(config, _run)
    if trainer.is_global_zero and not config["fast_dev_run"] and not config["test_only"]:
        print(what_next(config, trainer, _run.meta_info["named_configs"], _run.meta_info.get("config_updates", {})))


def carry_out(
    config: dict[str, Any], run: Run, callbacks: Callable[[str], Sequence[Any]] = lambda monitor: ()
) -> "pl.Trainer":
    """The trainer of a checked config after it has searched, trained or tested; from its start on the run has begun.

    callbacks: further ones of Lightning's, by the metric that picks the checkpoint.
    """
    import pytorch_lightning as pl  # here, so that help and mistakes answer at once

    from dvp.build import build
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
                trainer.fit(module, datamodule=data, ckpt_path=config["resume_from"])
        if trainer.is_global_zero:
            print(end_lines(config, trainer, time.perf_counter() - start), flush=True)
    return trainer
