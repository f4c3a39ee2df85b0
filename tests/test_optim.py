"""Parameter groups, and how far torch's AdamW is from the published one over the four golden steps."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from golden_cases import Case, cases
from torch import Tensor, nn

from dvp.optim import OPTIMIZERS, build_schedule, parameter_groups
from dvp.tasks import TASKS

TRACES = [case for case in cases("optimizer") if case.tensors]


class PublishedAdamW(torch.optim.Optimizer):
    """AdamW as transformers had it: eps beside the uncorrected moment, decay after the step."""

    def __init__(self, groups: list[dict], rate: float, betas: tuple[float, float] = (0.9, 0.98), eps: float = 1e-8):
        super().__init__(groups, {"lr": rate, "betas": betas, "eps": eps, "steps": 0})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            group["steps"] += 1
            (beta1, beta2), steps = group["betas"], group["steps"]
            rate = group["lr"] * (1 - beta2**steps) ** 0.5 / (1 - beta1**steps)
            for parameter in group["params"]:
                state = self.state[parameter]
                mean = state.setdefault("mean", torch.zeros_like(parameter)).lerp_(parameter.grad, 1 - beta1)
                square = state.setdefault("square", torch.zeros_like(parameter)).lerp_(parameter.grad**2, 1 - beta2)
                parameter -= rate * mean / (square.sqrt() + group["eps"])
                parameter -= group["lr"] * group["weight_decay"] * parameter


def four_steps(case: Case, make: Callable[..., torch.optim.Optimizer]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """After the trace's four steps: trained parameters by published names, losses (4,) and rates (4, groups)."""
    model, batch, config = case.model().train(), case.batch(), case.meta["config"]
    settings = config["learning_rate"], config["weight_decay"], config["lr_mult"]
    optimizer = make(parameter_groups(model.named_parameters(), *settings, as_published=True), config["learning_rate"])
    rest = (config[key] for key in ("max_steps", "warmup_steps", "decay_power", "end_lr"))
    schedule = build_schedule(optimizer, *rest)
    losses, rates = [], []
    for _ in range(len(case.tensors["out.losses"])):
        rates.append([group["lr"] for group in optimizer.param_groups])
        loss = TASKS[case.meta["task"]].loss(model(batch, case.arm), batch["targets"])
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    names, parameters = case.published_names(model), dict(model.named_parameters())
    trained = {theirs: parameters[ours].detach() for ours, theirs in names.items() if parameters[ours].requires_grad}
    return trained, torch.tensor(losses, dtype=torch.float64), torch.tensor(rates, dtype=torch.float64)


def distances(case: Case, trained: dict[str, Tensor]) -> tuple[float, float]:
    """The largest difference from the stored parameters; and the whole one as a share of the way that those went.

    Key biases are left out: their gradient is rounding noise, which Adam blows up.
    """
    stored = {name[7:]: value for name, value in case.tensors.items() if name.startswith("after4.")}
    assert {name for name in stored if not name.startswith("bert_model.pooler.")} == trained.keys()
    names, start = [name for name in trained if not name.endswith("linear_k.bias")], case.state()
    off, way = (
        torch.cat([(stored[name] - other[name]).flatten() for name in names]).double() for other in (trained, start)
    )
    return off.abs().max().item(), (off.norm() / way.norm()).item()


@pytest.mark.parametrize("case", TRACES, ids=str)
def test_torch_adamw_stays_near_the_published_trace(case: Case) -> None:
    trained, losses, rates = four_steps(case, OPTIMIZERS["adamw"])
    torch.testing.assert_close(rates, case.tensors["out.lrs"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(losses, case.tensors["out.losses"], rtol=5e-3, atol=0)
    assert distances(case, trained)[1] < 0.02


@pytest.mark.parametrize("case", TRACES, ids=str)
def test_the_documented_differences_are_all_there_are(case: Case) -> None:
    trained, losses, _ = four_steps(case, PublishedAdamW)
    torch.testing.assert_close(losses, case.tensors["out.losses"], rtol=0, atol=2e-4)
    assert distances(case, trained)[0] < 2e-3


def test_what_stands_in_no_golden_case_is_trained_too() -> None:
    """Adam and SGD, and a frozen parameter, which no group takes."""
    weight, frozen = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2), requires_grad=False)
    for name in ("adam", "sgd"):
        groups = parameter_groups([("weight", weight), ("frozen", frozen)], 0.1, 0.0, 1)
        optimizer = OPTIMIZERS[name](groups, 0.1)
        before = weight.detach().clone()
        weight.sum().backward()
        optimizer.step()
        assert (weight < before).all() and (frozen == 1).all()


@pytest.mark.parametrize("updates, warmup", [(10, 0), (10, 3), (10, 0.25), (7, 7), (1, 0)])
@pytest.mark.parametrize("power, end", [("constant", 0.0), ("cosine", 0.0), (1, 0.0), (2, 1e-5), (0.5, 1e-4)])
def test_rates_are_those_of_transformers_schedules(
    updates: int, warmup: int | float, power: int | float | str, end: float
) -> None:
    def rates(build: Callable[[torch.optim.Optimizer], Any]) -> list[float]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1e-3)
        schedule, found = build(optimizer), []
        for _ in range(updates):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return found

    count = int(updates * warmup) if isinstance(warmup, float) else warmup
    theirs = {
        "constant": lambda optimizer: transformers.get_constant_schedule_with_warmup(optimizer, count),
        "cosine": lambda optimizer: transformers.get_cosine_schedule_with_warmup(optimizer, count, updates),
    }.get(power) or (
        lambda optimizer: transformers.get_polynomial_decay_schedule_with_warmup(
            optimizer, count, updates + (count == updates), lr_end=end, power=power
        )
    )
    assert rates(lambda optimizer: build_schedule(optimizer, updates, warmup, power, end)) == rates(theirs)
