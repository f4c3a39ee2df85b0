"""The published numbers: every golden case under DVP_GOLDEN, computed through our own model, optimiser and search.

BERT's pooler is left out throughout: the published code trains it, but no output depends on it, and ours has none.
"""

import json
from collections.abc import Iterable

import pytest
import pytorch_lightning as pl
import torch
from golden_cases import ROOT, Case, cases
from torch import Tensor

from dvp.optim import OPTIMIZERS, build_schedule, parameter_groups
from dvp.tasks import TASKS

TOLERANCE = 1e-4  # of values; of gradients, times the largest entry of the tensor
PREFERENCES = 1e-5
ARMS = 2e-4  # of logits and losses in the search; an independent float32 implementation was 8e-5 off
ZERO = 1e-7  # a gradient that is 0 there may be rounding noise here


def near(ours: Tensor | float, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(torch.as_tensor(ours).double(), theirs.double(), rtol=0, atol=tolerance)


def without_pooler(names: Iterable[str]) -> set[str]:
    return {name for name in names if not name.startswith("bert_model.pooler.")}


def check_gradients(case: Case, model: torch.nn.Module, prefix: str) -> None:
    """Every stored gradient equals ours, up to the tolerance times its largest entry."""
    parameters = dict(model.named_parameters())
    gradients = {theirs: parameters[ours].grad for ours, theirs in case.published_names(model).items()}
    stored = {name.removeprefix(prefix): value for name, value in case.tensors.items() if name.startswith(prefix)}
    assert stored
    for name, theirs in stored.items():
        if name.endswith(("linear_k.bias", "key.bias")):  # softmax cancels a key's bias: rounding noise around 0
            assert gradients[name].abs().max() < TOLERANCE
        else:
            near(gradients[name], theirs, max(TOLERANCE * theirs.abs().max().item(), ZERO))


def test_the_folder_holds_cases() -> None:
    assert cases("forward") or cases("gradient") or cases("optimizer") or cases("search"), f"no golden cases in {ROOT}"


@pytest.mark.parametrize("case", cases("forward"), ids=str)
@torch.no_grad()
def test_forward(case: Case) -> None:
    model, batch = case.model(), case.batch()
    features = []
    model.head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    logits = model(batch, case.arm)
    near(model.vision(batch).tokens, case.tensors["out.clip_tokens"])
    near(features[0], case.tensors["out.feats"])
    near(logits, case.tensors["out.logits"])
    near(TASKS[case.meta["task"]].loss(logits, batch["targets"]), case.tensors["out.loss"])


@pytest.mark.parametrize("case", [*cases("forward"), *cases("gradient")], ids=str)
def test_targets(case: Case) -> None:
    near(case.targets(), case.tensors["in.targets"], 1e-6)


@pytest.mark.parametrize("case", cases("gradient"), ids=str)
def test_gradients_and_what_is_trained(case: Case) -> None:
    model, batch = case.model().train(), case.batch()
    logits = model(batch, case.arm)
    loss = TASKS[case.meta["task"]].loss(logits, batch["targets"])
    near(logits, case.tensors["out.logits"])
    near(loss, case.tensors["out.loss"])
    names = case.published_names(model)
    trained = {names[name] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == without_pooler(case.meta["requires_grad_true"])
    loss.backward()
    check_gradients(case, model, "grad.")


@pytest.mark.parametrize("case", cases("optimizer"), ids=str)
def test_parameter_groups(case: Case) -> None:
    model, config = case.model(), case.meta["config"]
    names = case.published_names(model)
    settings = config["learning_rate"], config["weight_decay"], config["lr_mult"]
    groups = parameter_groups(model.named_parameters(), *settings, as_published=True)
    assert len(groups) == len(case.meta["groups"])
    for ours, theirs in zip(groups, case.meta["groups"], strict=True):
        assert (ours["weight_decay"], ours["lr"]) == (theirs["weight_decay"], theirs["initial_lr"])
        assert {names[name] for name in ours["names"]} == without_pooler(theirs["trainable"])


@pytest.mark.parametrize("path", sorted(ROOT.rglob("lr_schedules.json")), ids=str)
def test_learning_rates(path: str) -> None:
    for setting in json.loads(path.read_text(encoding="utf-8")):
        parameters = [("weight", torch.nn.Parameter(torch.zeros(1)))]
        groups = parameter_groups(parameters, setting["learning_rate"], 0.0, setting["lr_mult"])
        optimizer = OPTIMIZERS["adamw"](groups, setting["learning_rate"])
        rest = (setting[key] for key in ("max_steps", "warmup_steps", "decay_power", "end_lr"))
        schedule = build_schedule(optimizer, *rest)
        for rates in setting["lr_of_groups_at_step"]:
            assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(rates, rel=1e-9, abs=1e-12)
            optimizer.step()
            schedule.step()


@pytest.mark.parametrize("case", cases("search"), ids=str)
def test_search_training_step(case: Case) -> None:
    model, train, about = case.model().train(), case.batch("train"), case.meta["train"]
    logits = model(train, about["arm"])
    loss = TASKS[case.meta["task"]].loss(logits, train["targets"])
    near(logits, case.tensors["train.logits"], ARMS)
    near(loss, case.tensors["train.loss"], ARMS)
    loss.backward()
    names = case.published_names(model)
    moved = {names[name] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert moved == without_pooler(about["params_with_gradient"])
    check_gradients(case, model, "train.grad.")


@pytest.mark.parametrize("case", cases("search"), ids=str)
@torch.no_grad()
def test_bandit(case: Case) -> None:
    module, task = case.module(case.model()), TASKS[case.meta["task"]]
    module.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    bandit = module.bandit
    bandit.preferences = case.tensors["alphas.0"].clone()
    for index, step in enumerate(case.meta["steps"]):
        prefix = f"step{index}."
        expected = {key.removeprefix(prefix): value for key, value in case.tensors.items() if key.startswith(prefix)}
        batch = case.batch("minival", step["minival_rows"]) | {"targets": expected["targets"]}
        near(bandit.probabilities, expected["probs"], PREFERENCES)
        scores = module.score_arms(batch, step["arms"])
        near(scores, expected["scores"])
        rewards = bandit.update(step["arms"], scores.tolist())
        near(rewards, expected["rewards"])
        near(bandit.preferences, case.tensors[f"alphas.{index + 1}"], PREFERENCES)
        logits = module.model.eval().forward_arms(batch, step["arms"])
        near(torch.stack([logits[arm] for arm in step["arms"]]), expected["logits"], ARMS)
        losses = [task.loss(logits[arm], batch["targets"]) for arm in step["arms"]]
        near(torch.stack(losses), expected["losses"], ARMS)
    assert module.best_layer == case.meta["eval"]["arm"]
    near(module.model(case.batch("train"), module.best_layer), case.tensors["eval.logits"], ARMS)
