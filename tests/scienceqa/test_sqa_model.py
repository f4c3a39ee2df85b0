"""Who sees whom, who is trained, and that answering is the training forward."""

import itertools

import pytest
import sqa_worlds as worlds
import torch

from dvp.families import FAMILIES
from dvp.scienceqa.answering import by_likelihood
from dvp.scienceqa.generate import generate, stream
from dvp.vision import Seen

IMAGE_FIRST = worlds.row(9, has_image=True)
ROWS = [IMAGE_FIRST, worlds.row(14, has_image=False), worlds.row(6, has_image=True), worlds.row(11, has_image=False)]
WRITING = [family for family, row in FAMILIES.items() if row.headed]
EXACT = {"atol": 2e-5, "rtol": 0}


def batch(rows, pictures=None):
    pictures = [worlds.picture(row.ids[1]) for row in rows if row.has_image] if pictures is None else pictures
    return worlds.LAYOUT.batch(rows, pictures)


def layer_outputs(model, inputs, insert_layer):
    outputs = []
    handles = [layer.register_forward_hook(lambda *args: outputs.append(args[2])) for layer in model.backbone.layers]
    worlds.logits_everywhere(model, inputs, insert_layer)
    for handle in handles:
        handle.remove()
    return outputs


logits_of = worlds.logits_everywhere


def test_a_row_does_not_depend_on_its_neighbours():
    model = worlds.model()
    together = logits_of(model, batch(ROWS))
    for index, row in enumerate(ROWS):
        alone = logits_of(model, batch([row]))[0]
        torch.testing.assert_close(together[index, : len(alone)], alone, **EXACT)


def test_as_published_the_first_picture_routes_for_all():
    model = worlds.model(as_published=True)
    pictures = [worlds.picture(seed) for seed in range(4)]
    changed = [worlds.picture(9), *pictures[1:]]
    before, after = (logits_of(model, batch(ROWS, given))[2] for given in (pictures, changed))
    assert (before - after).abs().max() > 1e-3


@pytest.mark.parametrize("family", WRITING)
@pytest.mark.parametrize("insert_layer", [0, 1, 2])
def test_all_of_the_text_sees_the_picture_from_the_insert_layer_on(insert_layer, family):
    # Class tokens stand in the sequence before the slot, so only what the compressor reads is exchanged.
    model, inputs = worlds.model(family=family), batch([IMAGE_FIRST])
    outputs = []
    for seed in (1, 2):
        tokens = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(seed))
        model.vision.forward = lambda batch, tokens=tokens: Seen(tokens, torch.ones(1, 2, 16))
        outputs.append(layer_outputs(model, inputs, insert_layer))
    text = slice(worlds.LAYOUT.text_start(True), None)
    for index, (one, other) in enumerate(zip(*outputs, strict=True)):
        moved = (one[:, text] - other[:, text]).abs().amax(2)
        assert moved.min() > 1e-5 if index >= insert_layer else moved.max() == 0


def test_as_published_the_text_never_sees_the_prompt():
    model, inputs = worlds.model(as_published=True), batch([IMAGE_FIRST])
    logits = model.forward_arms(inputs, range(3))
    assert torch.equal(logits[0], logits[1]) and torch.equal(logits[0], logits[2])
    worlds.loss(model, inputs).backward()
    assert all(not parameter.grad.any() for parameter in model.compressors.parameters())


def test_no_other_position_attends_to_the_modality_token():
    model, inputs = worlds.model(), batch([IMAGE_FIRST])
    for module in model.modules():  # it routes the adapters, and this is all it does
        if hasattr(module, "router"):
            torch.nn.init.zeros_(module.router.weight)
    before = logits_of(model, inputs)[:, 1:]
    torch.nn.init.normal_(model.prefix.modality.weight)
    torch.testing.assert_close(logits_of(model, inputs)[:, 1:], before, **EXACT)


def test_pictures_are_encoded_for_the_rows_that_have_one_only():
    model, seen = worlds.model(), []
    model.vision.encoder.register_forward_hook(
        lambda module, args, kwargs, out: seen.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    model(batch(ROWS), 1)
    assert seen == [2]
    model(batch([row for row in ROWS if not row.has_image]), 1)
    assert seen == [2]


def test_trained_are_adapters_projector_modality_slot_and_compressors():
    trained = {name for name, parameter in worlds.model().named_parameters() if parameter.requires_grad}
    kinds = {"prefix.projector", "prefix.modality", "prefix.slot", "compressors.0"}
    assert {".".join(name.split(".")[:2]) for name in trained if ".adapter." not in name} == kinds
    adapters = {name.partition(".adapter.")[0] for name in trained if ".adapter." in name}
    clip = {f"vision.encoder.encoder.layers.{index}.layer_norm1" for index in range(8)}
    assert adapters == clip | {f"backbone.model.layers.{index}.input_layernorm" for index in range(3)}


def test_a_new_model_is_the_language_model_of_the_text():
    torch.manual_seed(0)
    fresh = worlds.build(worlds.clip_model(), worlds.llama_model())
    hidden = torch.randn(2, 7, 32)
    adapted = fresh.backbone.layers[0].input_layernorm
    torch.testing.assert_close(adapted(hidden), adapted.base(hidden))


@pytest.mark.parametrize("family", WRITING)
def test_all_arms_at_once_give_the_logits_of_each_alone(family):
    model, inputs = worlds.model(arms=3, family=family), batch(ROWS)
    together = model.forward_arms(inputs, [2, 0, 1, 0])
    assert set(together) == {0, 1, 2} and len({logits.sum().item() for logits in together.values()}) == 3
    for layer, logits in together.items():
        torch.testing.assert_close(logits, model(inputs, layer), **EXACT)


def test_a_layer_runs_once_for_all_arms_on_the_shared_trunk():
    model, inputs, rows = worlds.model(arms=3), batch(ROWS), []
    for layer in model.backbone.layers:
        layer.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    model.forward_arms(inputs, range(3))
    assert rows == [2 * len(ROWS), 3 * len(ROWS), 3 * len(ROWS)]  # trunk and branches; in the end without the trunk


def test_arms_of_a_batch_without_a_picture_are_the_text_alone():
    model, inputs = worlds.model(arms=3), batch([row for row in ROWS if not row.has_image])
    together = model.forward_arms(inputs, range(3))
    for logits in together.values():
        torch.testing.assert_close(logits, model(inputs, 0), **EXACT)


@pytest.mark.parametrize("family, as_published", [*((family, False) for family in WRITING), ("llama", True)])
@pytest.mark.parametrize("insert_layer", [0, 1, 2, [0, 2]])
def test_generation_equals_teacher_forcing_position_by_position(insert_layer, family, as_published):
    model = worlds.model(as_published, arms=2 if isinstance(insert_layer, list) else 1, family=family)
    pictures = [worlds.picture(seed) for seed in range(4)] if as_published else None
    prompts = [row._replace(ids=row.ids[:-2], labels=row.labels[:-2], prompt_length=len(row.ids) - 3) for row in ROWS]
    steps = [logits.clone() for logits in itertools.islice(stream(model, batch(prompts, pictures), insert_layer), 6)]
    chosen = torch.stack([logits.argmax(-1) for logits in steps], dim=1)  # (B, steps)
    full = [row._replace(ids=[*row.ids, *ids.tolist()]) for row, ids in zip(prompts, chosen, strict=True)]
    forced = logits_of(model, batch(full, pictures), insert_layer)
    for index, row in enumerate(prompts):
        last = worlds.LAYOUT.length(row) - 1
        for step, logits in enumerate(steps):
            torch.testing.assert_close(logits[index], forced[index, last + step], atol=1e-4, rtol=0)


def test_generation_leaves_the_model_as_it_was():
    model, inputs = worlds.model(), batch(ROWS)
    before = logits_of(model, inputs)
    generate(model, inputs, 1, eos=2, max_length=40, max_new_tokens=3)
    torch.testing.assert_close(logits_of(model, inputs), before)


def test_generation_ends_at_eos_at_the_length_and_at_the_limit():
    model, inputs = worlds.model(), batch(ROWS)
    free = generate(model, inputs, 1, eos=-1, max_length=40, max_new_tokens=100)
    assert [len(ids) for ids in free] == [41 - length for length in inputs["length"].tolist()]
    assert generate(model, inputs, 1, eos=-1, max_length=40, max_new_tokens=4) == [ids[:4] for ids in free]
    eos = free[0][2]
    ended = generate(model, inputs, 1, eos=eos, max_length=40, max_new_tokens=100)
    assert ended == [ids[: ids.index(eos)] if eos in ids else ids for ids in free]


def test_the_likeliest_letter_is_read_after_the_last_token_of_each_row():
    rows = [row._replace(ended=False) for row in ROWS]
    model, inputs = worlds.model(), worlds.LAYOUT.question_batch(rows, batch(ROWS)["pixel_values"])
    inputs |= {"letters": torch.arange(4, 9), "num_choices": torch.tensor([2, 5, 3, 4]), "answer": torch.zeros(4)}
    letters = next(stream(model, batch(ROWS), 1))[:, 4:9]
    expected = [row[:count].argmax().item() for row, count in zip(letters, (2, 5, 3, 4), strict=True)]
    scores, texts = by_likelihood(model, inputs, 1)
    assert texts == [f"The answer is {'ABCDE'[choice]}." for choice in expected]
    assert scores.tolist() == [float(choice == 0) for choice in expected]


def test_a_batch_whose_prompts_fill_the_length_has_no_loss():
    long = worlds.row(60, has_image=False, prompt_length=60)
    assert worlds.loss(worlds.model(), batch([long])) == 0
