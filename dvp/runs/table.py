"""metrics.csv, of which every checkpoint keeps what was written until then: a run that goes on goes on with it."""

import csv
import io
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger, Logger


class Table(pl.Callback):
    """Keeps the rows of metrics.csv in checkpoints.

    pending: a checkpoint is being saved before Lightning has written the row of the update, which then goes along.
    """

    def __init__(self) -> None:
        self.pending = False
        self.trainer: pl.Trainer | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        """The rows so far, as the text of the file, and the one that is pending."""
        trainer = self.trainer
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return {}
        writer = _writer(trainer)
        writer.save()
        path = Path(writer.metrics_file_path)
        state = {"text": path.read_text(encoding="utf-8") if path.is_file() else "", "row": {}}
        connector = trainer._logger_connector  # what it would write next, nothing public tells
        if self.pending and connector.should_update_logs:
            values = {name: float(value) for name, value in connector.metrics["log"].items()}
            step = trainer.fit_loop.epoch_loop._batches_that_stepped
            state["row"] = values | {"epoch": trainer.current_epoch, "step": step} if values else {}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Write what the checkpoint kept; Lightning has removed what a killed run had written beyond it."""
        if not self.trainer.is_global_zero:
            return
        writer = _writer(self.trainer)
        writer.metrics = list(csv.DictReader(io.StringIO(state_dict.get("text", ""), newline="")))
        writer.save()
        row = dict(state_dict.get("row", {}))
        if row:
            step = int(row.pop("step"))
            for logger in self.trainer.loggers:
                logger.log_metrics(row, step)


def _writer(trainer: pl.Trainer) -> Any:
    logger: Logger = next(logger for logger in trainer.loggers if isinstance(logger, CSVLogger))
    return logger.experiment
