"""A run at K that starts from a search: it takes exactly what the search's model computes there, and says what."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_world import fit

from dvp.build import build, build_data, build_module
from dvp.checkpoints import read_checkpoint, read_description
from dvp.errors import UserError

TASK = "bert_vqa"


@pytest.fixture
def search(configure: Callable[..., dict[str, Any]], request: pytest.FixtureRequest) -> tuple[dict, Path, Any]:
    """A search, with adapters or not: config, last checkpoint, module."""
    adapters = getattr(request, "param", True)
    config = configure(f"dvp_search_{TASK}", use_adapter=adapters, learning_rate=1e-2)
    module = fit(config).lightning_module
    return config, next(Path(config["log_dir"]).rglob("last.ckpt")), module


def logits(module: Any, data: Any, layer: int) -> torch.Tensor:
    rows = data.questions(data.task.train, "train")
    with torch.no_grad():
        return module.eval().cpu().model(data.reader.collate([rows[item] for item in range(4)]), layer)


@pytest.mark.parametrize("search", [True, False], indirect=True)
@pytest.mark.parametrize("layer", [0, 2])
def test_it_starts_as_the_searchs_model_at_that_layer(layer: int, search, configure, capsys) -> None:
    config, last, module = search
    adaption = configure(f"dvp_adaption_{TASK}", use_adapter=config["use_adapter"], insert_layer=layer)
    data, started = build(adaption | {"load_path": str(last)})
    torch.testing.assert_close(logits(started, data, layer), logits(module, data, layer), rtol=0, atol=0)
    assert len(started.model.compressors) == 1
    parts = "adapters, head, norms" if config["use_adapter"] else "head, language model"
    left = ", ".join(str(arm) for arm in range(3) if arm != layer)
    told = f"From the search {last}, at K = {layer}: compressor {layer}, {parts}; the compressors of {left} are left.\n"
    assert told in capsys.readouterr().out


def test_the_whole_model_takes_all_but_the_adapters(search, configure, capsys) -> None:
    config, last, _ = search
    adaption = configure(f"dvp_adaption_{TASK}", insert_layer=1)
    data = build_data(adaption)
    fresh, started = (build_module(adaption | {"load_path": path}, data) for path in ("", str(last)))
    weights, _ = read_checkpoint(str(last))
    plain = dict(fresh.named_parameters())
    said = capsys.readouterr().out
    assert "its adapters are left, since the whole language model is trained" in said and ", adapters," not in said
    seen = set()
    for name, parameter in started.named_parameters():
        there = name.replace("compressors.0.", "compressors.1.")
        torch.testing.assert_close(parameter, weights.get(there, plain[name]), rtol=0, atol=0, msg=name)
        seen |= {there} & weights.keys()
    assert {name for name in weights if ".adapter." not in name and "compressors." not in name} <= seen
    assert any("LayerNorm" in name for name in seen) and any("compressors.1." in name for name in seen)


def test_the_frozen_weights_have_to_be_the_same_for_it(search, configure, make_language_model) -> None:
    config, last, _ = search
    adaption = configure(f"dvp_adaption_{TASK}", insert_layer=1, load_path=str(last))
    other = Path(make_language_model("bert"))
    weights = load_file(other / "model.safetensors")
    name = next(name for name in weights if name.endswith("attention.output.dense.weight"))
    save_file(weights | {name: weights[name] + 0.01}, other / "model.safetensors", {"format": "pt"})
    build(adaption | {"tokenizer": str(other.parent / other.name)} | {"tokenizer": config["tokenizer"]})
    with pytest.raises(UserError, match="the frozen weights are others"):
        build(adaption | {"tokenizer": str(other)})


@pytest.mark.parametrize("search", [False], indirect=True)
def test_adapters_do_not_start_from_a_whole_model(search, configure) -> None:
    with pytest.raises(UserError, match="use_adapter is False there and True here"):
        build(configure(f"dvp_adaption_{TASK}", use_adapter=True, load_path=str(search[1])))


def test_a_whole_model_is_not_tested_with_the_weights_of_adapters(search, configure) -> None:
    with pytest.raises(UserError, match="use_adapter is True there and False here"):
        build(configure(f"dvp_adaption_{TASK}", load_path=str(search[1]), test_only=True))


def test_a_blind_search_starts_nothing_that_sees(configure) -> None:
    config = configure(f"dvp_search_{TASK}", image_tokens="zero", use_adapter=True)
    fit(config)
    last = next(Path(config["log_dir"]).rglob("last.ckpt"))
    with pytest.raises(UserError, match=r"run: blind \(image_tokens=zero\) is True there and False here\. Give"):
        build(configure(f"dvp_adaption_{TASK}", use_adapter=True, load_path=str(last)))


def test_a_blind_search_is_named_so_before_anything_is_taken_from_it(search, configure, command, refused, tiny, capsys) -> None:  # fmt: skip  # noqa: E501
    config = configure(f"dvp_search_{TASK}", image_tokens="zero", use_adapter=True)
    fit(config)
    last = next(Path(config["log_dir"]).rglob("version_1/checkpoints/last.ckpt"))
    note_found(last, 1)
    settings = tiny(f"dvp_adaption_{TASK}", use_adapter=True, load_path=last)
    assert "is of a blind search (image_tokens=zero)" in refused("with", f"dvp_adaption_{TASK}", **settings)
    assert "of a search" not in capsys.readouterr().out
    command("with", f"dvp_adaption_{TASK}", **settings | {"image_tokens": "zero"})


# By the command line


def note_found(last: Path, layer: int) -> None:
    """Let the record of the search say that it found this layer."""
    import json

    path = last.parents[1] / "search.json"
    found = {"found": True, "decided": True, "verdict": f"K = {layer} it is", "insert_layer": layer}
    path.write_text(json.dumps(json.loads(path.read_text()) | found))


@pytest.mark.parametrize(
    "words, layer",
    [
        ({"start_from": "search"}, 2),
        ({"start_from": "search", "insert_layer": "auto"}, 2),
        ({"start_from": "search", "insert_layer": 1}, 1),
        ({"load_path": "last"}, 2),
        ({"load_path": "last", "insert_layer": 0}, 0),
    ],
)
def test_k_is_the_searchs_unless_it_is_typed(words: dict, layer: int, search, command, tiny, capsys) -> None:
    config, last, _ = search
    note_found(last, 2)
    words = words | ({"load_path": last} if "load_path" in words else {})
    command("with", f"dvp_adaption_{TASK}", **tiny(f"dvp_adaption_{TASK}", use_adapter=True) | words)
    out = capsys.readouterr().out
    assert f"From the search {last}, at K = {layer}: compressor {layer}," in out
    assert ("K = 2 it is" in out) == ("insert_layer" not in words or "start_from" in words)
    overrides = f"insert_layer={layer} is taken, not the search's K = 2." in out
    assert overrides == ("start_from" in words and words.get("insert_layer") == 1)
    (trained,) = Path(config["log_dir"]).glob("dvp_adaption*/version_0/checkpoints/last.ckpt")
    assert read_description(str(trained))["insert_layer"] == layer
    assert read_description(str(trained))["config"]["load_path"] == str(last)


def test_where_a_search_left_no_record_k_has_to_be_typed(search, refused, command, tiny) -> None:
    _, last, _ = search
    (last.parents[1] / "search.json").unlink()
    settings = tiny(f"dvp_adaption_{TASK}", use_adapter=True, load_path=last)
    assert "has not ended, or was moved" in refused("with", f"dvp_adaption_{TASK}", **settings)
    starts = settings | {"load_path": "", "start_from": "search"}
    interrupted = f"it was interrupted, or still runs; resume_from={last} goes on with it"
    assert interrupted in refused("with", f"dvp_adaption_{TASK}", **starts)
    command("with", f"dvp_adaption_{TASK}", **settings, insert_layer=1)


def test_a_search_whose_checkpoint_is_gone_is_no_start(search, refused, tiny) -> None:

    note_found(search[1], 1)
    search[1].unlink()  # the link
    settings = tiny(f"dvp_adaption_{TASK}", use_adapter=True, start_from="search")
    assert "to start from: search again" in refused("with", f"dvp_adaption_{TASK}", **settings)
