"""Where metrics go beside metrics.csv and TensorBoard: the trackers of `logger=`, imported when they are asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

PROJECT = "dvp"


class TrackioLogger(Logger):
    """Hands metrics on to trackio, for which Lightning has no logger."""

    def __init__(self, name: str):
        super().__init__()
        self._name, self.run, self.settings = name, None, {}

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        self.settings = params

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        import trackio

        self.run = self.run or trackio.init(project=PROJECT, name=self._name, config=self.settings)
        self.run.log(metrics, step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self.run:
            self.run.finish()


def tracker(config: dict[str, Any], folder: Path) -> list[Logger]:
    """The logger that a checked config asks for, named after the run's folder, with the settings in it; or none."""
    if config["logger"] is None or config["fast_dev_run"]:
        return []
    logger = TRACKERS[config["logger"]](f"{folder.parent.name}/{folder.name}", Path(config["log_dir"]))
    logger.log_hyperparams(config)
    return [logger]


def _wandb(name: str, log_dir: Path) -> Logger:
    from pytorch_lightning.loggers import WandbLogger

    return WandbLogger(project=PROJECT, name=name, save_dir=log_dir)


def _mlflow(name: str, log_dir: Path) -> Logger:
    from pytorch_lightning.loggers import MLFlowLogger

    # MLFLOW_TRACKING_URI, where it is set, names a server
    return MLFlowLogger(experiment_name=PROJECT, run_name=name, save_dir=str(log_dir.absolute() / "mlruns"))


TRACKERS: dict[str, Callable[[str, Path], Logger]] = {
    "wandb": _wandb,
    "mlflow": _mlflow,
    "trackio": lambda name, log_dir: TrackioLogger(name),
}
