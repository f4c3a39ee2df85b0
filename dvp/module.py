"""The LightningModule: what is trained and scored in which step, and the search that `optimizer_step` drives."""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from dvp.checkpoints import (
    FORMAT,
    accumulated,
    begin_streams,
    current_generators,
    fingerprint,
    generator_states,
    load_trained,
    name_then,
    progress_of,
    refuse_other,
    refuse_to_go_on,
    reopen_epoch,
    take_up,
    trained_state,
)
from dvp.evaluation.submission import Submission, gather, write_submission
from dvp.model import DVP
from dvp.optim import OPTIMIZERS, build_schedule, parameter_groups
from dvp.report.search import report_search, search_lines
from dvp.search import RULES, result_lines, tables_of, write_search
from dvp.tasks import Answerer, Answers, Task
from dvp.vision import exchanged


class DVPModule(pl.LightningModule):
    """Trains, searches, validates and answers with a DVP model on one task.

    insert_layer: K, or several, of an adaption; None while searching. pick: the splits whose score rewards the search
    and picks the checkpoint. answer: what answers a batch while validating and in the test; submit: what makes a file
    of the answers to the test questions. optimizer: settings of `dvp.optim`. described: what else a checkpoint must
    agree on. config: the run's settings, to be written down with its results.
    """

    def __init__(
        self,
        model: DVP,
        task_name: str,
        task: Task,
        answers: list[str],
        *,
        pick: tuple[str, ...],
        insert_layer: int | list[int] | None,
        optimizer: dict[str, Any],
        answer: dict[str, Answerer] | None = None,
        submit: Callable[[list[tuple[Any, str]], Any], Submission] | None = None,
        kab: str = "published",
        search_sample: int | str = 5,
        search_warmup_steps: int = 0,
        seed: int = 0,
        as_published: bool = False,
        described: dict[str, Any] | None = None,
        config: dict[str, Any] | None = None,
        predictions_path: Path | None = None,
    ):
        super().__init__()
        self.model = model
        self.task_name, self.task, self.answers = task_name, task, answers
        self.pick, self.insert_layer = pick, insert_layer
        self.optimizer_settings = optimizer
        self.answer, self.submit = answer or {}, submit
        self.search_sample, self.search_warmup_steps = search_sample, search_warmup_steps
        self.seed, self.as_published = seed, as_published
        self.described, self.config = described or {}, config
        self.predictions_path = predictions_path
        self.bandit = RULES[kab](model.num_layers, seed, task.search_step) if insert_layer is None else None
        self.arm = self.bandit.random_arm() if self.bandit else insert_layer
        self.search_batches: Iterator[dict[str, Any]] | None = None
        self.search_seconds, self.search_began = 0.0, time.perf_counter()  # the seconds of before it was resumed
        self.standing: dict[str, Any] = {}  # of the run that is gone on with: generators by rank, gradients
        self.within_update = False  # passes have been accumulated
        self.strict_loading = False  # a checkpoint has no frozen weights; on_load_checkpoint is exact about the others
        self.totals: dict[str, Tensor] = {}  # split -> (sum of scores, rows)
        self.answered: list[tuple[Any, str]] = []  # question and answer of the test
        self.written: Path | None = None  # where the answers to the test lie

    @property
    def monitor(self) -> str:
        """The metric that picks the checkpoint."""
        return self._metric_name("+".join(self.pick), self.task.metric)

    @property
    def best_layer(self) -> int | list[int]:
        """K: as configured, or the search's best so far."""
        return self.bandit.best if self.bandit else self.insert_layer

    # Training and search

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        loss = self.task.loss(self.model(batch, self.arm), batch["targets"])
        self.log(self._metric_name("train", "loss"), loss, prog_bar=True, batch_size=len(batch["input_ids"]))
        self.within_update = True
        return loss * batch["weight"]  # an update is by the mean over its rows, however they are split

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Optimizer, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """One update of the weights; while searching, then one of the bandit if due, and a random arm for the next."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.within_update = False
        if self.bandit:
            updates = self.trainer.global_step + 1  # this one is counted after the hook
            if updates > self.search_warmup_steps and updates % self.bandit.every == 0:
                self.search_step()
            self.arm = self.bandit.random_arm()

    def search_step(self) -> None:
        """Score arms on a batch of the search split, averaged over ranks, and update the bandit; it may end the run."""
        arms = self.bandit.scored(self.search_sample)
        batch = self._next_search_batch()
        scores = self._mean_scores(batch, arms)
        self.bandit.update(arms, scores)
        if self.bandit.doubts and self.trainer.datamodule.search_batch_size > 1:
            self.bandit.note_blind(*self._mean_scores(exchanged(batch), [self.bandit.best]))
        self.log_dict(self.bandit.progress() | {"score": sum(scores) / len(scores)}, prog_bar=True)
        if self.bandit.ended:  # on all ranks alike: they share the scores
            self.trainer.should_stop = True

    def _mean_scores(self, batch: dict[str, Any], arms: list[int]) -> list[float]:
        scores = self.score_arms(batch, arms) * batch["weight"]
        return self.trainer.strategy.reduce(scores, reduce_op="mean").tolist()

    @torch.no_grad()
    def score_arms(self, batch: dict[str, Any], arms: list[int]) -> Tensor:
        """Scores (arms,) from 0 to 100 on the batch, without dropout."""
        self.model.eval()
        with self.trainer.precision_plugin.forward_context():
            logits = self.model.forward_arms(batch, arms)
        self.model.train()
        reward = {"published": self.task.reward, "accuracy": self.task.accuracy}[self.bandit.score]
        finite = {arm: logits[arm].isfinite().all() for arm in logits}  # else any answer is as good as another
        scores = {arm: reward(self.task, logits[arm], batch).where(finite[arm], float("nan")) for arm in logits}
        return torch.stack([scores[arm] for arm in arms])

    def _next_search_batch(self) -> dict[str, Any]:
        data = self.trainer.datamodule  # outside Lightning's loops its hooks are ours to call
        if self.search_batches is None:
            self.search_batches = data.search_batches(skip=len(self.bandit.trace))  # a resumed one goes on where it was
        batch = data.on_before_batch_transfer(next(self.search_batches), 0)
        return data.on_after_batch_transfer(self.transfer_batch_to_device(batch, self.device, 0), 0)

    def on_train_start(self) -> None:
        self.search_began = time.perf_counter()
        ranks = {"rank": self.global_rank, "ranks": self.trainer.world_size}
        begin_streams(self.standing.get("rng", []), self.device, self.seed, self.trainer.global_step, **ranks)
        take_up(self, gradients := self.standing.get("gradients", {}))
        self.within_update, self.standing = bool(gradients), {}
        self.trainer.should_stop |= bool(self.bandit and self.bandit.ended)  # in the checkpoint

    def on_fit_end(self) -> None:  # a training that goes on where nothing is left has no end
        self.search_batches = None  # ends the processes that load them
        if self.bandit and not self.trainer.fast_dev_run:
            self._write_search(Path(self.trainer.log_dir))  # asked on all ranks, since it talks to them

    def _write_search(self, folder: Path) -> None:
        if not self.trainer.is_global_zero:
            return
        updates, data_root = self.trainer.global_step, self.trainer.datamodule.data_root
        search = {
            "finished": self.bandit.ended or updates >= self.trainer.estimated_stepping_batches,
            "task": self.task_name,
            "as_published": self.as_published,
            "updates": updates,
            "seconds": self._searched(),
            "ran_on": str(self.trainer.strategy.root_device),
            "world_size": self.trainer.world_size,
            "torch": torch.__version__,
            "tables": tables_of(data_root, self.task.files),
            **self.bandit.summary(),
            "config": self.config,
        }
        write_search(folder / "search.json", search)
        report_search(folder, search, self.trainer.loggers)
        print(search_lines(search) + result_lines(search, folder / "search.html"))

    def _searched(self) -> float:
        return self.search_seconds + time.perf_counter() - self.search_began

    # Evaluation

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> Answers:
        return self._evaluate("validate", self.task.validate[dataloader_idx], batch)

    def on_validation_epoch_end(self) -> None:
        self._report(self.task.validate)

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        found = self._evaluate("test", self.trainer.datamodule.test[dataloader_idx], batch)
        if self.submit:
            self.answered += zip(batch["question_id"], found.texts, strict=True)

    def on_test_epoch_end(self) -> None:
        data, scores = self.trainer.datamodule, {}
        if self.submit:
            answered, self.answered = gather(self.answered), []
            submission = self.submit(answered, data)
            scores = submission.scores
            self.log_dict({self._metric_name("test", name): value for name, value in scores.items()}, sync_dist=True)
            if self.trainer.is_global_zero:
                about = {"splits": data.test, "truncated": data.truncated}
                about |= {"as_published": self.as_published, "config": self.config}
                checkpoint = self.config["load_path"] if self.config else ""
                self.written = write_submission(self.predictions_path, submission, about, checkpoint)
        if not scores and data.labelled(data.test):
            self._report(data.test)

    def _evaluate(self, stage: str, split: str, batch: dict[str, Any]) -> Answers:
        found = self.answer[stage](self.model, batch, self.best_layer)
        total = torch.stack([found.scores.sum(), found.scores.new_tensor(len(found.scores))])
        self.totals[split] = self.totals.get(split, 0) + total
        return found

    def _report(self, splits: Sequence[str]) -> None:
        none = torch.zeros(2, device=self.device)
        totals = {
            split: self.trainer.strategy.reduce(self.totals.get(split, none), reduce_op="sum") for split in splits
        }
        self.totals = {}
        if len(self.pick) > 1 and set(self.pick) <= set(splits):  # as published: SNLI-VE picks by dev and test together
            totals["+".join(self.pick)] = sum(totals[split] for split in self.pick)
        for split, (score, rows) in totals.items():
            self.log(self._metric_name(split, self.task.metric), 100 * score / rows, prog_bar=True, sync_dist=True)
        if self.as_published:
            self.log("as_published", 1.0)  # the stamp in metrics.csv

    def _metric_name(self, split: str, metric: str) -> str:
        return f"{self.task_name}/{split}/{metric}"

    # Checkpoints

    def describe(self, renamed: Callable[[str], str] = str) -> dict[str, Any]:
        """What a checkpoint must agree on with the run that loads it; `renamed` are the parameters there."""
        return {
            "task": self.task_name,
            "language_model": type(self.model.backbone).__name__,
            "search_stage": self.bandit is not None,
            "insert_layer": self.insert_layer,
            "as_published": self.as_published,
            "answers": self.answers,
            **self.described,
            "frozen": fingerprint(self.model, renamed),
        }

    def load_weights(self, weights: dict[str, Tensor], description: dict[str, Any]) -> None:
        """Take up trained weights, exactly, from a run of the same description."""
        refuse_other(description, self.describe(name_then(description)))
        load_trained(self, weights)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = trained_state(self)
        checkpoint["description"] = {"format": FORMAT} | self.describe() | {"config": self.config}
        checkpoint["rng"] = gather([generator_states(self.device)])
        if self.within_update:
            total = functools.partial(self.trainer.strategy.reduce, reduce_op="sum")
            checkpoint["gradients"] = accumulated(self, total, self.trainer.world_size)
        if self.bandit:
            checkpoint["bandit"] = self.bandit.state_dict() | {"arm": self.arm, "seconds": self._searched()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        refuse_to_go_on(checkpoint["description"])
        self.load_weights(checkpoint["state_dict"], checkpoint["description"])
        reopen_epoch(checkpoint)
        progress = progress_of(checkpoint)
        self.trainer.datamodule.position = progress["epochs"], progress["passes"]
        self.standing = {"rng": current_generators(checkpoint["rng"]), "gradients": checkpoint.get("gradients", {})}
        if self.bandit:
            self.arm = checkpoint["bandit"].pop("arm")
            self.search_seconds = checkpoint["bandit"].pop("seconds", 0.0)
            self.bandit.load_state_dict(checkpoint["bandit"])

    # Optimiser

    def configure_optimizers(self) -> dict[str, Any]:
        settings, task = self.optimizer_settings, self.task
        rate = settings["learning_rate"]
        decay = settings["weight_decay"], settings["lr_mult"]
        groups = parameter_groups(self.model.named_parameters(), rate, *decay, self.as_published, task.decayed)
        optimizer = OPTIMIZERS[settings["optim_type"]]([one for one in groups if one["params"]], rate, task.betas)
        schedule = build_schedule(
            optimizer,
            int(self.trainer.estimated_stepping_batches),
            settings["warmup_steps"],
            settings["decay_power"],
            settings["end_lr"],
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
