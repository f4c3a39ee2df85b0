"""The language models: layer by layer they are the Hugging Face model, and what they cannot be is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_world import MODELS, TOKENIZERS, deep
from torch import Tensor

from dvp.backbones import BACKBONES, LanguageBackbone, State, family_of, load_backbone
from dvp.errors import UserError

TEXTS = ["what color is the left square", "is there a red circle", "no"]
LONG = " ".join(["what color is the red square"] * 4)
FAMILIES = pytest.mark.parametrize("family", BACKBONES)


def tokens(family: str, folder: str, texts: list[str] = TEXTS) -> dict[str, Tensor]:
    """A padded batch of the texts, longer than the windows of tiny models."""
    tokenizer = BACKBONES[family].tokenizer(folder)
    batch = tokenizer(texts, padding="max_length", truncation=True, max_length=16, return_tensors="pt")
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def run(backbone: LanguageBackbone, state: State, start: int = 0) -> State:
    for layer in range(start, len(backbone.layers)):
        state = backbone.run_layer(layer, state)
    return state


def whole_model(family: str, model: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The hidden states (B, D) that are read out, from one call of the Hugging Face model."""
    rows, last = torch.arange(len(batch["input_ids"])), batch["attention_mask"].sum(1) - 1
    start = {"decoder_input_ids": torch.zeros(len(rows), 1).long()} if model.config.is_encoder_decoder else {}
    hidden = model(**batch | start).last_hidden_state
    return hidden[rows, {"first": 0, "last": last}[BACKBONES[family].read_token]]


@pytest.fixture(params=MODELS)
def case(request: pytest.FixtureRequest, language_models: dict[str, str]) -> tuple[str, LanguageBackbone, dict]:
    family, folder = MODELS[request.param][0], language_models[request.param]
    return family, load_backbone(folder).eval(), tokens(family, folder)


@torch.no_grad()
def test_layer_by_layer_equals_the_whole_model(case: tuple) -> None:
    family, backbone, batch = case
    read = backbone.read_out(run(backbone, backbone.embed(batch)))
    torch.testing.assert_close(read, whole_model(family, backbone.model, batch), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_layers_may_return_hidden_states_or_a_tuple_of_them_and_more(case: tuple) -> None:
    _, backbone, batch = case
    expected = backbone.read_out(run(backbone, backbone.embed(batch)))
    for layer in backbone.layers:
        layer.register_forward_hook(lambda layer, args, made: made[0] if isinstance(made, tuple) else (made, None))
    assert torch.equal(backbone.read_out(run(backbone, backbone.embed(batch))), expected)


@torch.no_grad()
def test_padding_does_not_count(case: tuple) -> None:
    _, backbone, batch = case
    other = batch | {"input_ids": torch.where(batch["attention_mask"].bool(), batch["input_ids"], 5)}
    states = [backbone.embed(rows) for rows in (batch, other)]
    for look in (backbone.query, lambda state: backbone.read_out(run(backbone, state))):
        torch.testing.assert_close(look(states[0]), look(states[1]), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("rows", [slice(0, 1), slice(1, 3)])
def test_a_row_does_not_depend_on_its_batch(rows: slice, case: tuple) -> None:
    _, backbone, batch = case
    alone = backbone.read_out(run(backbone, backbone.embed({key: value[rows] for key, value in batch.items()})))
    together = backbone.read_out(run(backbone, backbone.embed(batch)))
    torch.testing.assert_close(alone, together[rows], atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 3])
def test_query_and_read_out_move_with_the_text(length: int, case: tuple) -> None:
    _, backbone, batch = case
    state = backbone.embed(batch)
    longer = backbone.put_in(state, torch.randn(len(TEXTS), length, backbone.hidden_size))
    assert longer.slot == slice(0, length)
    assert longer.keep[:, :length].all()
    torch.testing.assert_close(longer.hidden[:, length:], state.hidden)
    torch.testing.assert_close(backbone.query(longer), backbone.query(state))
    torch.testing.assert_close(backbone.read_out(longer), backbone.read_out(state))


@torch.no_grad()
def test_a_masked_slot_in_front_changes_nothing_and_is_where_the_prompt_goes(case: tuple) -> None:
    _, backbone, batch = case
    state, prompt = backbone.embed(batch), torch.randn(len(TEXTS), 1, backbone.hidden_size)
    slotted = backbone.put_in(state, torch.randn_like(prompt), seen=False)
    assert slotted.slot == slice(0, 1) and not slotted.keep[:, 0].any()
    for layer in range(len(backbone.layers)):
        plain, replaced = (run(backbone, backbone.put_in(s, prompt), layer) for s in (state, slotted))
        torch.testing.assert_close(backbone.read_out(replaced), backbone.read_out(plain))
        if layer < len(backbone.layers) - 1:  # the trunk goes no further
            state, slotted = (backbone.run_layer(layer, s) for s in (state, slotted))
            torch.testing.assert_close(slotted.hidden[:, 1:][state.keep], state.hidden[state.keep])


@torch.no_grad()
def test_the_prompt_reaches_the_read_out_from_every_layer(case: tuple) -> None:
    _, backbone, batch = case
    for layer in range(len(backbone.layers)):
        state = backbone.embed(batch)
        for below in range(layer):
            state = backbone.run_layer(below, state)
        first, second = (
            backbone.read_out(run(backbone, backbone.put_in(state, prompt), layer))
            for prompt in torch.randn(2, len(TEXTS), 1, backbone.hidden_size)
        )
        assert ((first - second).abs().amax(1) > 1e-4).all()


@torch.no_grad()
def test_all_of_the_text_sees_the_prompt_at_once_however_far_it_is(case: tuple) -> None:
    _, backbone, batch = case
    state = backbone.run_layer(0, backbone.embed(batch))
    one, other = (
        backbone.run_layer(1, backbone.put_in(state, prompt)).hidden[:, 1:]
        for prompt in torch.randn(2, len(TEXTS), 1, backbone.hidden_size)
    )
    assert ((one - other).abs().amax(2)[state.keep] > 1e-6).all()


@pytest.mark.parametrize("model", MODELS)
def test_a_fresh_backbone_is_in_training_mode(model: str, language_models: dict[str, str]) -> None:
    assert all(module.training for module in load_backbone(language_models[model]).modules())


@FAMILIES
@pytest.mark.parametrize("kind", ["tiny", "real"])
def test_texts_become_sixteen_tokens(
    family: str, kind: str, language_models: dict, real_data: Callable[[], Path], tmp_path: Path
) -> None:
    folder = Path(language_models[family])
    if kind == "real":
        found = next((real_data() / "tokenizers").glob(f"{family}-*"), None)
        if found is None:
            pytest.skip(f"the small real data has no tokenizer of {family}")
        folder = shutil.copytree(found, tmp_path / "tokenizer")
        size = BACKBONES[family].tokenizer(str(folder)).size
        (folder / "config.json").write_text(json.dumps({"vocab_size": size}), encoding="utf-8")
    ids, keep = (tokens(family, str(folder), ["is it red", LONG])[key] for key in ("input_ids", "attention_mask"))
    tokenizer = BACKBONES[family].tokenizer(str(folder))
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert ids.shape == keep.shape == (2, 16)
    length = int(keep[0].sum())
    assert keep.tolist() == [[1] * length + [0] * (16 - length), [1] * 16]
    assert ids[0, length:].tolist() == [BACKBONES[family].pad_id] * (16 - length)
    assert ids[0, length - 1] == ids[1, -1] == end  # also where the text is cut
    assert (ids == end).sum() == 2
    assert begin is None or ids[:, 0].tolist() == [begin] * 2


@FAMILIES
def test_family_and_sizes_come_from_the_config(family: str, make_language_model: Callable[..., str]) -> None:
    folder = make_language_model(family, **deep(family, 2))
    assert family_of(folder) == family
    assert len(load_backbone(folder).layers) == 2


@FAMILIES
def test_weights_in_pickled_shards_are_read(family: str, language_models: dict[str, str], tmp_path: Path) -> None:
    folder = shutil.copytree(language_models[family], tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards = [f"pytorch_model-{part:05d}-of-00002.bin" for part in (1, 2)]
    place = {name: shards[number % 2] for number, name in enumerate(weights)}
    for shard in shards:
        torch.save({name: weights[name] for name in weights if place[name] == shard}, folder / shard)
    index = {"metadata": {}, "weight_map": place}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")
    expected = load_backbone(language_models[family]).state_dict()
    for name, tensor in load_backbone(str(folder)).state_dict().items():
        torch.testing.assert_close(tensor, expected[name])


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_folder_with_any_kind_of_tokenizer_is_taken(kind: str, language_models: dict, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(Path(language_models["bert"]) / name, tmp_path)
    with pytest.raises(UserError, match="holds no tokenizer"):
        family_of(str(tmp_path))
    TOKENIZERS[kind](tmp_path)
    assert family_of(str(tmp_path)) == "bert"


class _Code:
    def __reduce__(self) -> tuple:
        return (print, ("code in a weight file was run",))


def _pickled_code(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"embed": _Code()}, folder / "pytorch_model.bin")


def _drop_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights[sorted(weights)[-1]]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


BREAK: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
    "no tokenizer": (lambda folder: [path.unlink() for path in folder.glob("*.model")], "no tokenizer"),
    "truncated": (lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 20), "cannot be read"),
    "a weight missing": (_drop_a_weight, "do not cover"),
    "code": (_pickled_code, "cannot be read"),
    "unknown family": (lambda folder: (folder / "config.json").write_text('{"model_type": "opt"}'), "opt.*BERT, T5"),
    "damaged config": (lambda folder: (folder / "config.json").write_text("{"), "could not be read"),
}


@pytest.mark.parametrize("fault", BREAK)
def test_broken_folders_are_refused(
    fault: str, language_models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = shutil.copytree(language_models["llama"], tmp_path / "model")
    spoil, message = BREAK[fault]
    spoil(folder)
    with pytest.raises(UserError, match=message):
        load_backbone(str(folder))
    assert "was run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "name, message", [("bert-base-nowhere", "without network, copy its folder"), ("./nowhere", "no folder ./nowhere")]
)
def test_a_model_that_is_not_at_hand_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        family_of(name)
