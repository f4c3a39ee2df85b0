"""Search, train, resume and answer by the command line, on invented problems and tiny random models."""

import json
from argparse import Namespace
from pathlib import Path

import pytest
import pytorch_lightning as pl
import sqa_worlds as worlds
import torch
from safetensors.torch import load_file
from two_processes import in_two_processes

from dvp.backbones import BACKBONES
from dvp.checkpoints import read_progress
from dvp.data.arrow import open_table
from dvp.evaluation.scienceqa import score_files
from dvp.module import DVPModule
from dvp.prepare import convert
from dvp.runs.progress import ValidatesAtEnd
from dvp.scienceqa import answering
from dvp.scienceqa.data import ProblemReader
from dvp.scienceqa.tokens import Layout
from dvp.search import KArmedBandit
from dvp.tasks import TASKS

COUNTS = {"train": 16, "val": 8, "test": 9}


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Raw data, Arrow tables and tiny models, made once."""
    root = tmp_path_factory.mktemp("sqa")
    worlds.write_raw(root, COUNTS)
    convert("scienceqa", str(root), str(root / "arrow"))
    clip, llama = worlds.write_models(root)
    return root, {"data_root": root / "arrow", "clip_model": clip, "tokenizer": llama}


@pytest.fixture
def settings(folders, tmp_path):
    """What makes an experiment one of a second."""
    return folders[1] | {
        "log_dir": tmp_path, "image_size": 32, "num_gpus": 0, "num_workers": 0, "batch_size": 8,
        "per_gpu_batchsize": 4, "max_text_len": 64, "max_epoch": 2, "num_heads": 4, "max_new_tokens": 4,
    }  # fmt: skip


@pytest.fixture
def run(settings, command, tmp_path):
    """Runs one of the two experiments, small; returns the folder of its results."""

    def call(experiment, **changes):
        command("with", f"dvp_{experiment}_llama_sqa", **settings | changes)
        return tmp_path

    return call


def last(root, stage="adaption"):
    return next(path for path in root.rglob("last.ckpt") if f"dvp_{stage}" in str(path))


def test_search_then_train_there_then_answer(run, folders, capsys):
    root = run("search")
    search = json.loads(next(root.rglob("search.json")).read_text())
    assert search["finished"] and len(search["preferences"]) == 3
    assert len(search["trace"]) == 4 and all(len(step["arms"]) == 10 for step in search["trace"])
    assert all(0 < value < 100 for step in search["trace"] for value in step["scores"])

    assert not search["found"]  # a handful of updates tells nothing, and K is not taken from it
    with pytest.raises(SystemExit):
        run("adaption", insert_layer="auto", max_epoch=1)
    assert "is undecided" in capsys.readouterr().err
    run("adaption", insert_layer=search["insert_layer"], max_epoch=1)
    checkpoint = last(root)
    names = load_file(checkpoint / "weights.safetensors").keys()
    kinds = ("prefix.projector", "prefix.modality", "prefix.slot", "compressors.0")
    assert all(".adapter." in name or name.removeprefix("model.").startswith(kinds) for name in names)

    capsys.readouterr()
    run("adaption", insert_layer=search["insert_layer"], test_only=True, load_path=checkpoint)
    printed = capsys.readouterr().out
    results = json.loads((root / "sqa_last.json").read_text())
    assert results["results"].keys() == results["outputs"].keys() and len(results["results"]) == COUNTS["test"]
    scores = score_files(str(root / "sqa_last.json"), str(folders[0] / "problems.json"))
    about = json.loads((root / "sqa_last.about.json").read_text())
    assert about["scores"] == scores and round(results["acc"], 2) == scores["Avg"]
    assert about["unparsed"] == sum(choice == -1 for choice in results["results"].values())
    assert f"{about['unparsed']} could not be read and are scored wrong" in printed and "G7-12" in printed


def test_the_bandit_moves_by_the_published_rule(run):
    search = json.loads(next(run("search", search_sample=3).rglob("search.json")).read_text())
    bandit = KArmedBandit(3, step_size=10)
    for step in search["trace"]:
        bandit.update(step["arms"], step["scores"])
    assert bandit.preferences.tolist() == search["preferences"] and bandit.preferences.any()


@torch.no_grad()
def test_an_arm_scores_by_its_loss():
    model = worlds.model(arms=3)
    module = DVPModule(
        model, "scienceqa", TASKS["scienceqa"], list("ABCDE"), pick=("val",), insert_layer=None, optimizer={}
    )
    module.trainer = pl.Trainer(accelerator="cpu", logger=False)
    batch = worlds.LAYOUT.batch([worlds.row(9, True), worlds.row(7, False)], [worlds.picture()])
    scores = module.score_arms(batch, [2, 0, 2])
    model.eval()
    torch.testing.assert_close(
        scores, torch.stack([100 * torch.exp(-worlds.loss(model, batch, arm)) for arm in (2, 0, 2)])
    )


def test_the_optimiser_is_the_published_one(run, monkeypatch):
    seen, original = [], DVPModule.configure_optimizers

    def configure(module):
        seen.append(original(module))
        return seen[-1]

    monkeypatch.setattr(DVPModule, "configure_optimizers", configure)
    run("adaption", max_epoch=20, fast_dev_run=True)
    optimizer, schedule = seen[0]["optimizer"], seen[0]["lr_scheduler"]["scheduler"]
    decayed, others = optimizer.param_groups
    assert decayed["weight_decay"] == 0.05 and others["weight_decay"] == 0
    assert {parameter.ndim > 1 for parameter in decayed["params"]} == {True}
    assert {parameter.ndim for parameter in others["params"]} == {1}
    assert decayed["betas"] == (0.9, 0.95)
    assert schedule.base_lrs == [1e-2 * 8 / 256] * 2 and seen[0]["lr_scheduler"]["interval"] == "step"


def test_a_blind_run_needs_no_picture(run):
    root = run("adaption", max_epoch=1, image_tokens="zero")
    run("adaption", test_only=True, load_path=last(root), image_tokens="zero")
    assert json.loads((root / "sqa_last.json").read_text())["count"] == COUNTS["test"]


def test_answers_by_likelihood_are_always_one_of_the_choices(run, folders):
    root = run("adaption", max_epoch=1)
    run("adaption", test_only=True, load_path=last(root), answer_by="likelihood")
    results = json.loads((root / "sqa_last.json").read_text())["results"]
    problems = json.loads((folders[0] / "problems.json").read_text())
    assert all(0 <= choice < len(problems[pid]["choices"]) for pid, choice in results.items())
    assert json.loads((root / "sqa_last.about.json").read_text())["unparsed"] == 0


def test_a_format_that_explains_first_is_validated_by_what_is_written(run, monkeypatch):
    right = iter("ABBAABBAABBA")  # what is written, whatever was asked
    read = answering.read_answer
    monkeypatch.setattr(answering, "generate", lambda model, batch, *rest: [[7]] * len(batch["answer"]))
    monkeypatch.setattr(
        answering, "read_answer", lambda text, *rest: read(f"So it is. The answer is {next(right)}.", *rest)
    )
    chosen, original = [], answering._right
    monkeypatch.setattr(answering, "_right", lambda *inputs: chosen.append(inputs[0]) or original(*inputs))
    run("adaption", max_epoch=1, prompt_format="QCM-EA")
    choices = torch.cat(chosen).tolist()
    assert choices == ["AB".index(letter) for letter in "ABBAABBAABBA"[: len(choices)]] and choices


def test_as_published_unreadable_answers_are_drawn_alike_every_time(run, folders):
    root = run("adaption", max_epoch=1, as_published=True)
    drawn = []
    for name in ("one", "two"):
        run("adaption", test_only=True, load_path=last(root), as_published=True, log_dir=root / name, max_new_tokens=1)
        drawn.append(json.loads((root / name / "sqa_last.json").read_text())["results"])
        about = json.loads((root / name / "sqa_last.about.json").read_text())
        assert about["unparsed"] == COUNTS["test"] and about["as_published"]
    assert drawn[0] == drawn[1] and min(drawn[0].values()) >= 0


@pytest.mark.parametrize("stage", ["adaption", "search"])
def test_a_resumed_run_ends_as_one_that_never_stopped(run, stage, tmp_path, monkeypatch):
    monkeypatch.setattr(ValidatesAtEnd, "on_train_batch_end", lambda *_: None)  # a killed run does not come to its end
    options = {"decay_power": "constant", "warmup_steps": 0, "batch_size": 6, "per_gpu_batchsize": 2}
    whole = run(stage, log_dir=tmp_path / "whole", **options) / "whole"
    ends = [load_file(last(whole, stage) / "weights.safetensors")]
    # At an epoch's end, and within the second, behind 2 of the 3 passes of an update
    for name, stop in (("end", {"max_epoch": 1}), ("within", {"max_steps": 5, "val_check_interval": 5 / 8})):
        run(stage, log_dir=tmp_path / name, **options | {"max_epoch": 2} | stop)
        stopped = last(tmp_path / name, stage).resolve()
        if name == "within":
            (stopped,) = stopped.parent.glob("last-epoch=1-pass=5.ckpt")
            assert read_progress(str(stopped))["passes"] == 5
        run(stage, log_dir=tmp_path / f"{name}-rest", resume_from=stopped, num_workers=2, **options)
        ends.append(load_file(last(tmp_path / f"{name}-rest", stage) / "weights.safetensors"))
    for end in ends[1:]:
        assert all(torch.equal(end[name], tensor) for name, tensor in ends[0].items())
    if stage == "search":
        roots = (whole, tmp_path / "end-rest", tmp_path / "within-rest")
        traces = [json.loads(next(root.rglob("search.json")).read_text())["trace"] for root in roots]
        assert traces[0] == traces[1] == traces[2]


@pytest.mark.two_processes
def test_an_update_is_the_mean_of_its_labelled_tokens_however_it_is_split(run, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda module, x: x)  # of the adapters
    options = {"batch_size": 12, "optim_type": "sgd", "decay_power": "constant", "warmup_steps": 0, "drop_rate": 0.0}
    options |= {"learning_rate": 1.0}  # of 16 problems, the last update has 4
    run("adaption", log_dir=tmp_path / "whole", per_gpu_batchsize=12, **options)
    run("adaption", log_dir=tmp_path / "passes", per_gpu_batchsize=3, **options)
    in_two_processes(run, "adaption", log_dir=tmp_path / "both", per_gpu_batchsize=3, cpu_processes=2, **options)
    whole, *others = (load_file(last(tmp_path / name) / "weights.safetensors") for name in ("whole", "passes", "both"))
    for other in others:
        assert max((other[name] - tensor).abs().max().item() for name, tensor in whole.items()) < 1e-5


@pytest.mark.two_processes
def test_two_processes_search_alike_and_answer_every_problem_once(run, tmp_path):
    in_two_processes(run, "search", max_epoch=1, cpu_processes=2)
    search = json.loads(next(tmp_path.rglob("search.json")).read_text())
    assert search["world_size"] == 2 and len(search["trace"]) == 2
    in_two_processes(run, "adaption", max_epoch=1, cpu_processes=2)
    options = {"test_only": True, "load_path": last(tmp_path), "answer_by": "likelihood"}
    run("adaption", **options, log_dir=tmp_path / "alone")
    in_two_processes(run, "adaption", **options, log_dir=tmp_path / "both", cpu_processes=2)
    results = [json.loads((tmp_path / name / "sqa_last.json").read_text())["results"] for name in ("alone", "both")]
    assert results[0] == results[1] and len(results[0]) == COUNTS["test"]


@pytest.mark.parametrize(
    "changes, word",
    [
        ({"insert_layer": 3}, "layers 0 to 2"),
        ({"image_size": 48}, "32 pixels"),
        ({"prompt_format": "QCM-XX"}, "QCM-ALE"),
        ({"answer_by": "guess"}, "likelihood"),
        ({"prompt_format": "QCM-EA", "answer_by": "likelihood"}, "answer_by=generate"),
        ({"data_root": "nowhere"}, "nowhere"),
        ({"image_tokens": "cache"}, "live or zero"),
    ],
)
def test_wrong_settings_are_refused(changes, word, run, capsys):
    with pytest.raises(SystemExit):
        run("adaption", **changes)
    assert word in capsys.readouterr().err


def test_a_checkpoint_of_another_layer_is_refused(run, capsys):
    root = run("adaption", max_epoch=1)
    with pytest.raises(SystemExit):
        run("adaption", test_only=True, load_path=last(root), insert_layer=1)
    assert "insert_layer is 0 there and 1 here" in capsys.readouterr().err


def test_a_published_checkpoint_is_taken_up(run, folders, tmp_path):
    from dvp.published.scienceqa import TRAINED, rename_published

    root = run("adaption", max_epoch=1)
    weights = load_file(last(root) / "weights.safetensors")
    published = {_published(name.removeprefix("model.")): tensor for name, tensor in weights.items()}
    published = {
        name: value[..., None] if "conv_A.weight" in name and "adapter_attn" in name else value
        for name, value in published.items()
    }
    assert TRAINED and rename_published(published).keys() == {name.removeprefix("model.") for name in weights}
    content = {"model": {f"module.{name}": value for name, value in published.items()}, "args": Namespace(lr=0.1)}
    torch.save(content, tmp_path / "adapters.pth")
    run("adaption", test_only=True, load_path=last(root), answer_by="likelihood")
    run("adaption", test_only=True, load_path=tmp_path / "adapters.pth", answer_by="likelihood")
    files = [json.loads((Path(root) / f"sqa_{name}.json").read_text()) for name in ("last", "adapters")]
    assert files[0]["results"] == files[1]["results"]


def _published(name):
    """The published name of a trained parameter, by hand."""
    for ours, theirs in {
        "backbone.model.layers.": "layers.", "input_layernorm.adapter": "adapter_attn",
        "vision.encoder.encoder.layers.": "backbone.visual.transformer.resblocks.",
        "layer_norm1.adapter": "adapter_attn",
        "down.": "conv_A.", "ups.0.": "conv_B.", "ups.1.": "conv_D.", "router.": "expert_weights.",
        "prefix.projector.0.": "adapter_proj.conv_A.", "prefix.projector.2.": "adapter_proj.conv_B.",
        "prefix.modality.": "adapter_modality_embedding.", "prefix.slot": "image_params",
        "compressors.0.": "cross_attn.linear_",
        "linear_query": "linear_q", "linear_key": "linear_k", "linear_value": "linear_v",
    }.items():  # fmt: skip
        name = name.replace(ours, theirs)
    return name


@torch.no_grad()
def test_by_the_mean_an_arm_scores_by_the_letter_that_is_likeliest_where_the_answer_names_one(folders):
    tokens = BACKBONES["llama"].tokenizer(str(folders[1]["tokenizer"]))
    layout = Layout((3, 4), (3, 5, 6), class_tokens=2, max_length=64)
    reader = ProblemReader(tokens, layout, None, prompt_format="QCM-ALE", use_caption=False)
    table = open_table(str(folders[1]["data_root"]), "scienceqa", "train", reader.columns)
    problems = reader.dataset({"train": table}, "train")
    batch = reader.collate([problems[item] for item in range(len(problems))])
    letters = batch["targets"][batch["letter"]]
    assert letters.tolist() == reader.letters[batch["answer"]].tolist() and (batch["letter"] >= 0).all()
    logits = torch.zeros(len(batch["targets"]), 60)
    logits[batch["letter"][:3], letters[:3]] = 1.0  # the first three are known, the others are a guess: A
    logits[batch["letter"], reader.letters[4]] = 2.0  # E, which none of them offers
    right = [place < 3 or answer == 0 for place, answer in enumerate(batch["answer"].tolist())]
    accuracy = TASKS["scienceqa"].accuracy(TASKS["scienceqa"], logits, batch)
    assert accuracy.item() == pytest.approx(100 * sum(right) / len(right)) and not all(right)
    reader.prompt_format = "QCM-EA"  # the letter would only repeat what is explained: all that is written counts
    explained = reader.collate([problems[item] for item in range(len(problems))])
    likely = torch.nn.functional.one_hot(explained["targets"], 60).float()
    likely[:5] = 0
    accuracy = TASKS["scienceqa"].accuracy(TASKS["scienceqa"], likely, explained)
    assert accuracy.item() == pytest.approx(100 * (1 - 5 / len(likely)))
