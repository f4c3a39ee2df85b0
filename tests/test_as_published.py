"""as_published: what switching it off changes, that this is right, and that what ran with it on says so."""

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_cases import Case, cases
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import T5Model

from dvp.build import build_data, build_module
from dvp.optim import parameter_groups

T5_CASES = cases("forward", "t5")
PLAIN_T5 = [case for case in T5_CASES if not case.meta["use_adapter"]][:1]


def stock_t5(case: Case) -> T5Model:
    """transformers' own T5 with the weights of the case."""
    model = T5Model(case.model().backbone.model.config)
    model.load_state_dict({key[9:]: value for key, value in case.state().items() if key.startswith("t5_model.")})
    return model.eval()


@contextmanager
def outputs_of(modules: list[nn.Module], place: int) -> Iterator[list[Tensor]]:
    """Collects the output `place` of each call of the modules."""
    found: list[Tensor] = []
    hooks = [module.register_forward_hook(lambda *call: found.append(call[2][place])) for module in modules]
    yield found
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("as_published", [False, True])
@pytest.mark.parametrize("case", PLAIN_T5, ids=str)
@torch.no_grad()
def test_every_t5_block_computes_what_stock_t5_does(case: Case, as_published: bool) -> None:
    """Encoder and decoder before the prompt comes; as published, only the first encoder block does."""
    backbone, stock, batch = case.model(as_published).backbone, stock_t5(case), case.batch()
    with outputs_of([*stock.encoder.block, *stock.decoder.block], 0) as theirs:
        start = torch.zeros_like(batch["input_ids"][:, :1])
        stock(batch["input_ids"], attention_mask=batch["attention_mask"], decoder_input_ids=start)
    with outputs_of([*backbone.model.encoder.block, *backbone.model.decoder.block], 0) as ours:
        state = backbone.embed(batch)
        for index in range(len(backbone.layers)):
            state = backbone.run_layer(index, state)
    real = batch["attention_mask"].bool()  # the rows of padding in the encoder mean nothing
    same = [
        torch.allclose(our[real], their[real], atol=1e-4) if our.shape[1] > 1 else torch.allclose(our, their, atol=1e-4)
        for our, their in zip(ours, theirs, strict=True)
    ]
    assert same == ([True] + [False] * (len(same) - 1) if as_published else [True] * len(same))


@pytest.mark.parametrize("as_published", [False, True])
@pytest.mark.parametrize("case", PLAIN_T5, ids=str)
@torch.no_grad()
def test_every_t5_block_gets_the_bias_of_stock_t5(case: Case, as_published: bool) -> None:
    """Also over [prompt, start]; as published, the blocks after the first of each stack get none."""
    model, stock, batch = case.model(as_published), stock_t5(case), case.batch()

    def attentions(t5: T5Model) -> list[nn.Module]:
        return [block.layer[0].SelfAttention for stack in (t5.encoder, t5.decoder) for block in stack.block]

    with outputs_of(attentions(stock), 1) as theirs:
        two = torch.zeros(len(batch["input_ids"]), 2, dtype=torch.long)
        stock(batch["input_ids"], attention_mask=batch["attention_mask"], decoder_input_ids=two)
    with outputs_of(attentions(model.backbone.model), 1) as ours:
        model(batch, 0)
    blocks = len(model.backbone.model.encoder.block)
    for index, (our, their) in enumerate(zip(ours, theirs, strict=True)):
        right = torch.zeros_like(their) if as_published and index not in (0, blocks) else their
        torch.testing.assert_close(our, right, rtol=0, atol=0)


@pytest.mark.parametrize("case", T5_CASES, ids=str)
@torch.no_grad()
def test_padding_moves_t5s_logits_only_as_published(case: Case) -> None:
    batch = case.batch()
    longer = {name: F.pad(batch[name], (0, 3)) for name in ("input_ids", "attention_mask")}
    moved = [
        (model(batch | longer, case.arm) - model(batch, case.arm)).abs().max()
        for model in (case.model(as_published=False), case.model(as_published=True))
    ]
    assert moved[0] < 1e-4 < 1e-3 < moved[1]


@pytest.mark.parametrize("case", cases("forward", "bert", "llama"), ids=str)
@torch.no_grad()
def test_bert_and_llama_compute_the_same_in_both(case: Case) -> None:
    batch = case.batch()
    assert torch.equal(case.model(False)(batch, case.arm), case.model(True)(batch, case.arm))


def test_the_heads_norm_is_decayed_only_as_published() -> None:
    model = cases("forward")[0].empty_model()
    decayed = [
        {name for group in groups if group["weight_decay"] for name in group["names"]}
        for groups in (parameter_groups(model.named_parameters(), 0.1, 0.1, 1, switch) for switch in (False, True))
    ]
    assert decayed[1] - decayed[0] == {"head.norm.weight"}
    assert not decayed[0] - decayed[1]


@pytest.mark.parametrize(
    "task, right, published",
    [("gqa", ("val",), ("test-dev",)), ("snli_ve", ("dev",), ("dev", "test")), ("vqa", ("rest_val",), ("rest_val",))],
)
def test_the_split_that_rewards_and_picks(
    task: str, right: tuple[str, ...], published: tuple[str, ...], configure: Callable[..., dict[str, Any]]
) -> None:
    for switch, split in ((False, right), (True, published)):
        config = configure(f"dvp_search_bert_{task}", as_published=switch)
        data = build_data(config)
        assert data.pick == split
        assert build_module(config, data).monitor.split("/")[1] == "+".join(split)


@pytest.mark.parametrize("as_published", [False, True])
def test_a_search_and_its_metrics_are_stamped(
    as_published: bool, command: Callable[..., None], tiny: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    command("with", "dvp_search_bert_gqa", **tiny("dvp_search_bert_gqa", as_published=as_published))
    (search,) = (tmp_path / "result").rglob("search.json")
    assert json.loads(search.read_text(encoding="utf-8"))["as_published"] is as_published
    (metrics,) = (tmp_path / "result").rglob("metrics.csv")
    with open(metrics, encoding="utf-8", newline="") as file:
        stamps = [row.get("as_published") for row in csv.DictReader(file) if row.get("gqa/val/accuracy")]
    assert set(stamps) == {"1.0" if as_published else None}
