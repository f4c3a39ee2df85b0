"""More than one prompt token, and a prompt at more than one layer, through the commands."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_run import run_folder

import dvp
from dvp.checkpoints import read_checkpoint

SEVERAL = {"insert_layer": "[2,0]", "prompt_tokens": 3}


def checkpoint_of(settings: dict, experiment: str) -> Path:
    return run_folder(settings, experiment) / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("family", ["bert", "t5", "llama"])
def test_several_prompts_at_several_layers_train_answer_and_open(family: str, command, tiny, refused) -> None:
    experiment = f"dvp_adaption_{family}_vqa"
    settings = tiny(experiment)
    command("with", experiment, **settings | SEVERAL)
    path = checkpoint_of(settings, experiment)
    weights, description = read_checkpoint(str(path))
    assert (description["insert_layer"], description["prompt_tokens"]) == ([0, 2], 3)
    assert {name.split(".")[2] for name in weights if name.startswith("model.compressors.")} == {"0", "1"}
    assert len(weights["model.compressors.1.queries.weight"]) == 3

    test = settings | {"test_only": True, "load_path": path}
    places = {key: settings[key] for key in ("data_root", "log_dir", "num_gpus", "num_workers")}
    command("with", test_only=True, load_path=path, **places)  # the rest is told by the checkpoint
    answers = Path(settings["log_dir"]) / "vqa_submit_last.json"
    answered = json.loads(answers.read_text(encoding="utf-8"))
    assert answered

    sentence = refused("with", experiment, **test | {"insert_layer": 2})
    assert "insert_layer is [0, 2] there and 2 here" in sentence
    assert "prompt_tokens is 3 there and 1 here" in refused(
        "with", experiment, **test | {"insert_layer": "[0,2]", "prompt_tokens": 1}
    )

    model = dvp.load(path)
    picture = Image.effect_mandelbrot((40, 30), (-3, -2.5, 2, 2.5), 50).convert("RGB")
    answer = model.answer(picture, "what is it", attention=True)
    assert answer.text in description["answers"]
    torch.testing.assert_close(answer.attention.sum(1), torch.ones(4))  # a map for each head, of all prompts
    assert not model.searched and model.layers == [[0, 2]]


def test_a_search_of_several_prompts_is_gone_on_with_at_several_layers(
    command, tiny, capsys: pytest.CaptureFixture
) -> None:
    settings = tiny("dvp_search_bert_vqa", prompt_tokens=2)
    command("with", "dvp_search_bert_vqa", **settings)
    path = checkpoint_of(settings, "dvp_search_bert_vqa")
    then = settings | {"insert_layer": "[1,2]", "load_path": path, "learning_rate": 0.0, "end_lr": 0, "max_steps": 1}
    command("with", "dvp_adaption_bert_vqa", **then | {"decay_power": "constant"})
    assert "at K = [1, 2]: compressor 1, compressor 2, head" in capsys.readouterr().out
    before, _ = read_checkpoint(str(path))
    after, _ = read_checkpoint(str(checkpoint_of(settings, "dvp_adaption_bert_vqa")))
    for number, arm in enumerate((1, 2)):
        own, there = (f"model.compressors.{one}.queries.weight" for one in (number, arm))
        assert torch.equal(after[own], before[there])


def test_a_search_of_one_prompt_is_no_start_for_more(command, tiny, refused, arm_one_is_better: None) -> None:
    command("with", "dvp_search_bert_vqa", **tiny("dvp_search_bert_vqa"))
    settings = tiny("dvp_adaption_bert_vqa", start_from="search", prompt_tokens=4)
    assert "trained prompt_tokens=1: search with prompt_tokens=4" in refused(
        "with", "dvp_adaption_bert_vqa", **settings
    )


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"insert_layer": "[0,3]"}, "insert_layer=[0, 3] is outside this model"),
        ({"insert_layer": "[1,1]"}, "insert_layer=[1, 1] is wrong"),
        ({"insert_layer": "[]"}, "insert_layer=[] is wrong"),
        ({"insert_layer": "[0,auto]"}, "is wrong"),
        ({"prompt_tokens": 0}, "prompt_tokens=0 is wrong"),
        ({"prompt_tokens": 2, "as_published": True}, "as_published=True has one prompt at one layer"),
        ({"insert_layer": "[0,1]", "as_published": True}, "as_published=True has one prompt at one layer"),
    ],
)
def test_what_is_no_number_of_prompts_or_layers_is_refused(changes: dict, words: str, tiny, refused) -> None:
    assert words in refused("with", "dvp_adaption_bert_vqa", **tiny("dvp_adaption_bert_vqa") | changes)


def test_a_list_of_one_layer_is_that_layer(checkpoint: Callable[..., Path]) -> None:
    _, description = read_checkpoint(str(checkpoint("dvp_adaption_bert_vqa", insert_layer=[2])))
    assert description["insert_layer"] == 2


def test_scienceqa_has_room_for_one_token(refused, science, tmp_path: Path) -> None:
    _, places = science
    settings = places | {"log_dir": tmp_path, "num_gpus": 0, "num_workers": 0, "num_heads": 4, "per_gpu_batchsize": 4}
    words = refused("with", "dvp_adaption_llama_sqa", **settings | {"batch_size": 4, "prompt_tokens": 2})
    assert "prompt_tokens=2 is not offered for scienceqa: set it to 1" in words
