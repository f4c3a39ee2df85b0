"""Search, train or test: what `python run.py with ...` does without a verb."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sacred.run import Run

from dvp.config import check, ex

if TYPE_CHECKING:
    import pytorch_lightning as pl


@ex.main
def main(_config, _run):
    """Search, train or test, as configured."""
    carry_out(check(_config), _run)


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

    def fail(words: str) -> None:
        for record in run.observers:
            record.failed_event(datetime.now(UTC).replace(tzinfo=None), [words])

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
                trainer.test(module, datamodule=data)
            else:
                print(f"{module.monitor} picks the checkpoint.")
                trainer.fit(module, datamodule=data, ckpt_path=config["resume_from"])
    return trainer
