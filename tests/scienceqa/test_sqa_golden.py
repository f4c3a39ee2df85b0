"""Training forward, gradients, search and greedy generation against the published code's numbers."""

import itertools
from contextlib import contextmanager

import pytest
import sqa_golden as golden
import sqa_worlds as worlds
import torch

from dvp.published.scienceqa import rename_published
from dvp.scienceqa.generate import generate, stream
from dvp.search import KArmedBandit
from dvp.tasks import TASKS

LOGITS, HIDDEN, LOSS, GRADIENT, PREFERENCE = 5e-4, 5e-3, 1e-5, 2e-3, 1e-4


def cases(kind):
    folders = golden.folders(kind)
    return pytest.mark.parametrize("folder", folders, ids=golden.name)


def close(ours, theirs, bound):
    torch.testing.assert_close(ours.double(), theirs.double(), atol=bound, rtol=0)


@contextmanager
def watching(model):
    """Collects what goes into and comes out of CLIP's projector, the compressor and the layers."""
    seen, handles = {}, []

    def watch(module, name):
        handles.append(
            module.register_forward_hook(lambda _, args, out: seen.update({f"{name}.in": args, f"{name}.out": out}))
        )

    watch(model.prefix.projector, "projector")
    watch(model.compressors[0], "compressor")
    for index, layer in enumerate(model.backbone.layers):
        watch(layer, f"layer{index}")
    yield seen
    for handle in handles:
        handle.remove()


@cases("train")
@torch.no_grad()
def test_training_forward(folder):
    case = golden.read(folder)
    model, batch = golden.build(case), golden.batch(case, "in")
    chosen = case.meta["insert_layer"]
    has_image = batch["has_image"]
    with watching(model) as seen:
        logits = worlds.logits_everywhere(model, batch, chosen)
    close(seen["projector.in"][0][has_image], case.t["dbg.clip_class_tokens"][has_image], LOGITS)
    close(seen["projector.out"][has_image], case.t["dbg.image_tokens"][has_image], LOGITS)
    close(seen["compressor.in"][0][has_image], case.t["dbg.query"][has_image], LOGITS)
    close(seen["compressor.in"][1][has_image], case.t["dbg.clip_tokens"][has_image], LOGITS)
    close(seen["compressor.out"][has_image], case.t["dbg.dvp"][has_image], HIDDEN)
    close(seen[f"layer{chosen}.in"][0], case.t["dbg.after_replace"], HIDDEN)
    for index in range(model.num_layers):
        close(seen[f"layer{index}.out"], case.t[f"dbg.layer{index}"], HIDDEN)
    close(logits, case.t["out.logits"], LOGITS)
    close(worlds.loss(model, batch, chosen), case.t["out.loss"], LOSS)
    labels = torch.zeros_like(batch["input_ids"])
    labels[batch["read"][0], batch["read"][1] + 1] = batch["targets"]
    assert torch.equal(labels, case.t["dbg.labels"])


@cases("train")
@torch.no_grad()
def test_sequence_and_masks(folder):
    case = golden.read(folder)
    model, batch = golden.build(case), golden.batch(case, "in")
    state, image = model.embed(batch)
    close(state.hidden, case.t["dbg.embeds"], LOGITS)
    inserted = model.inserts(0, image)[0](state)
    front, back = (one.mask[:, 0].expand(len(state.hidden), -1, -1) for one in (state, inserted))
    assert torch.equal(~back, case.t["dbg.mask_back"].bool())
    if "dbg.mask_front" in case.t:
        assert torch.equal(~front, case.t["dbg.mask_front"].bool())


@cases("grad")
def test_gradients(folder):
    case = golden.read(folder)
    model, batch = golden.build(case), golden.batch(case, "in")
    loss = worlds.loss(model, batch, case.meta["insert_layer"])
    loss.backward()
    close(loss, case.t["out.loss"], LOSS)
    theirs = {key.removeprefix("grad."): value for key, value in case.t.items() if key.startswith("grad.")}
    theirs = rename_published(theirs)
    zero = rename_published(dict.fromkeys(case.meta["gradient_exactly_zero"], torch.zeros(1)))
    ours = {key: parameter.grad for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert ours.keys() == theirs.keys()
    for key, gradient in ours.items():
        if key in zero:
            assert not gradient.any(), key
        elif not key.endswith("key.bias"):  # softmax cancels it: rounding noise
            close(gradient, theirs[key], GRADIENT * theirs[key].abs().max().item())


@cases("kab")
@torch.no_grad()
def test_search(folder):
    case = golden.read(folder)
    model, batch = golden.build(case), golden.batch(case, "val")
    logits = model.forward_arms(batch, range(model.num_layers))
    losses = {arm: TASKS["scienceqa"].loss(found, batch["targets"]) for arm, found in logits.items()}
    for arm in range(model.num_layers):
        close(worlds.logits_everywhere(model, batch, arm), case.t[f"arm{arm}.logits"], LOGITS)
    bandit = KArmedBandit(model.num_layers, step_size=10)
    bandit.preferences = case.t["alphas.0"].clone()
    for step, drawn in enumerate(case.meta["steps"]):
        arms = drawn["arms"]
        close(bandit.probabilities, case.t[f"step{step}.probs"], PREFERENCE)
        close(torch.stack([losses[arm] for arm in arms]), case.t[f"step{step}.losses"], LOSS)
        scores = [100 * torch.exp(-losses[arm]).item() for arm in arms]
        close(torch.tensor(scores), case.t[f"step{step}.scores"], PREFERENCE)
        close(torch.tensor(bandit.update(arms, scores)), case.t[f"step{step}.rewards"], PREFERENCE)
        close(bandit.preferences, case.t[f"alphas.{step + 1}"], PREFERENCE)
    assert bandit.best == case.meta["chosen_after"]


@cases("gen_recompute")
@torch.no_grad()
def test_greedy_generation(folder):
    case = golden.read(folder)
    model, meta = golden.build(case), case.meta
    rows = [[meta["dims"]["bos"], *prompt] for prompt in meta["prompts"]]
    columns = (rows, [[0] * len(row) for row in rows], [len(row) - 1 for row in rows], meta["indicators"])
    batch = model.prefix.layout.batch([golden.Row(*row) for row in zip(*columns, strict=True)], case.t["in.images"])
    theirs = case.t["out.logits"]
    for ours, logits in zip(
        itertools.islice(stream(model, batch, meta["insert_layer"]), len(theirs)), theirs, strict=True
    ):
        there = ~logits.isnan()
        close(ours[there], logits[there], LOGITS)
    eos = meta["dims"]["eos"]
    expected = [row[: row.index(eos)] if eos in row else row for row in meta["generated"]]
    most = golden.layout(meta["dims"]).max_length
    assert generate(model, batch, meta["insert_layer"], eos, most, meta["max_gen_len"]) == expected


@cases("clip_batch_order")
@torch.no_grad()
def test_clip_routes_by_the_first_picture_as_published_and_else_by_each(folder):
    case = golden.read(folder)
    case.meta |= {"variant": "published"}
    model, pictures, order = golden.build(case), case.t["in.images"], case.meta["order"]
    everywhere = {"has_image": torch.ones(len(pictures), dtype=torch.bool)}
    seen = {
        key: model.vision(everywhere | {"pixel_values": pictures[rows]})
        for key, rows in {"": ..., "ordered": order}.items()
    }
    for key, suffix in (("", ""), ("ordered", f"_order_{'_'.join(map(str, order))}")):
        close(seen[key].class_tokens, case.t[f"out.class_tokens{suffix}"], LOGITS)
        close(seen[key].tokens, case.t[f"out.tokens{suffix}"], LOGITS)
    for layer in model.vision.encoder.encoder.layers:
        layer.layer_norm1.adapter.by_first_row = False
    for one, other in zip(
        model.vision(everywhere | {"pixel_values": pictures}),
        model.vision(everywhere | {"pixel_values": pictures[order]}),
        strict=True,
    ):
        close(one[order], other, 1e-5)
