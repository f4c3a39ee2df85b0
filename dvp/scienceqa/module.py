"""The LightningModule of ScienceQA: the loss that is trained and scored, and the answers in the official layout."""

import random
from typing import Any

import torch
from torch import Tensor

from dvp.checkpoints import fingerprint
from dvp.evaluation.inputs import check_ids
from dvp.evaluation.scienceqa import score, table
from dvp.evaluation.submission import gather, write_answers
from dvp.module import DVPModule
from dvp.optim import build_schedule
from dvp.scienceqa.generate import generate, letter_logits
from dvp.scienceqa.model import ScienceQAModel
from dvp.scienceqa.text import ANSWER_STEM, LETTERS, answers_first, read_answer
from dvp.scienceqa.tokens import Tokens
from dvp.tasks import TASKS

STEP_SIZE = 10  # of the bandit, whose scores 100 * exp(-loss) lie close together
BETAS = (0.9, 0.95)


class ScienceQAModule(DVPModule):
    """Trains, searches, validates and answers with a ScienceQAModel.

    Validation takes the likeliest letter after "The answer is", or reads what is generated where the target begins with
    something else; the test does as answer_by says. The other arguments are those of DVPModule.
    """

    def __init__(
        self,
        model: ScienceQAModel,
        tokens: Tokens,
        *,
        prompt_format: str,
        use_caption: bool,
        answer_by: str = "generate",
        max_new_tokens: int = 64,
        **options: Any,
    ):
        super().__init__(model, "scienceqa", TASKS["scienceqa"], list(LETTERS), pick=("val",), **options)
        self.tokens = tokens
        self.letters = [tokens.encode(f"{ANSWER_STEM} {letter}")[-1] for letter in LETTERS]
        self.prompt_format, self.use_caption = prompt_format, use_caption
        self.answer_by, self.max_new_tokens = answer_by, max_new_tokens
        self.seed = options.get("seed", 0)
        if self.bandit:
            self.bandit.step_size = STEP_SIZE

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        loss = self.model(batch, self.arm)
        self.log(self._metric_name("train", "loss"), loss, prog_bar=True, batch_size=len(batch["answer"]))
        return loss

    @torch.no_grad()
    def score_arms(self, batch: dict[str, Any], arms: list[int]) -> Tensor:
        """Scores (arms,), 100 * exp(-loss) on the batch, without dropout."""
        self.model.eval()
        with self.trainer.precision_plugin.forward_context():
            losses = self.model.forward_arms(batch, arms)
        self.model.train()
        return torch.stack([100 * torch.exp(-losses[arm]) for arm in arms])

    def _evaluate(self, split: str, batch: dict[str, Any]) -> Tensor:
        chosen = self.likeliest(batch) if answers_first(self.prompt_format) else self.read_choices(batch)
        right = (chosen == batch["answer"]).float()
        self.totals[split] = self.totals.get(split, 0) + torch.stack([right.sum(), right.new_tensor(len(right))])
        return chosen

    def likeliest(self, batch: dict[str, Any]) -> Tensor:
        """The choice (B,) whose letter is likeliest to come next."""
        logits = letter_logits(self.model, batch, self.best_layer, self.letters)  # (B, letters)
        beyond = torch.arange(len(self.letters), device=logits.device) >= batch["num_choices"][:, None]
        return logits.masked_fill(beyond, -torch.inf).argmax(1)

    def read_choices(self, batch: dict[str, Any]) -> Tensor:
        """The choice (B,) that the generated text names, -1 where it names none."""
        texts, counts = self.generate_texts(batch), batch["num_choices"].tolist()
        choices = [read_answer(text, count, self.as_published) for text, count in zip(texts, counts, strict=True)]
        return batch["answer"].new_tensor([-1 if choice is None else choice for choice in choices])

    def generate_texts(self, batch: dict[str, Any]) -> list[str]:
        """What the model writes after each prompt."""
        generated = generate(self.model, batch, self.best_layer, self.tokens.eos, self.max_new_tokens)
        return [self.tokens.decode(ids) for ids in generated]

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        if self.answer_by == "likelihood":
            texts = [f"{ANSWER_STEM} {LETTERS[choice]}." for choice in self.likeliest(batch).tolist()]
        else:
            texts = self.generate_texts(batch)
        self.predictions += zip(batch["question_id"], texts, strict=True)

    def on_test_epoch_end(self) -> None:
        answers, self.predictions = gather(self.predictions), []
        problems = self.trainer.datamodule.problems("test")
        check_ids((pid for pid, _ in answers), problems, ("the answers", "the test problems"))
        outputs = dict(answers)
        read = {
            pid: read_answer(outputs[pid], len(problem["choices"]), self.as_published)
            for pid, problem in problems.items()
        }
        results = {pid: self._drawn(pid, problems[pid]) if choice is None else choice for pid, choice in read.items()}
        scores = score(results, problems)
        self.log_dict({self._metric_name("test", name): value for name, value in scores.items()}, sync_dist=True)
        if self.trainer.is_global_zero:
            right = sum(results[pid] == problem["answer"] for pid, problem in problems.items())
            about = {"scores": scores, "unparsed": list(read.values()).count(None)}
            content = {"acc": 100 * right / len(results), "correct": right, "count": len(results), "results": results}
            self._write(content | {"outputs": {pid: outputs[pid] for pid in problems}}, about)

    def _drawn(self, pid: str, problem: dict[str, Any]) -> int:
        # Published: an answer that cannot be read is drawn at random. Right: it is wrong.
        return random.Random(f"{self.seed} {pid}").randrange(len(problem["choices"])) if self.as_published else -1

    def _write(self, content: dict[str, Any], about: dict[str, Any]) -> None:
        truncated = self.trainer.datamodule.truncated
        ran = {"truncated": truncated, "as_published": self.as_published, "config": self.config}
        checkpoint = self.config["load_path"] if self.config else ""
        place = write_answers(self.predictions_path, content, about | ran, checkpoint)
        fate = "drawn at random" if self.as_published else "scored wrong"
        print(f"{content['count']} answers written to {place}.")
        print(f"{about['unparsed']} could not be read and are {fate}.")
        print(table(about["scores"]))

    def describe(self) -> dict[str, Any]:
        """What a checkpoint must agree on with the run that loads it."""
        return {
            "task": self.task_name,
            "language_model": "Llama",
            "search_stage": self.bandit is not None,
            "insert_layer": self.insert_layer,
            "as_published": self.as_published,
            "prompt_format": self.prompt_format,
            "use_caption": self.use_caption,
            "frozen": fingerprint(self.model),
            **self.described,
        }

    def configure_optimizers(self) -> dict[str, Any]:
        settings = self.optimizer_settings
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        groups = [
            {"params": [one for one in trained if one.ndim > 1], "weight_decay": settings["weight_decay"]},
            {"params": [one for one in trained if one.ndim == 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, settings["learning_rate"], betas=BETAS)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = build_schedule(
            optimizer, steps, settings["warmup_steps"], settings["decay_power"], settings["end_lr"]
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
