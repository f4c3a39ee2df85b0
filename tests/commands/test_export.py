"""A checkpoint that was exported: it answers elsewhere as it did here, says what it is, and is whole or not there."""

import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_world import NAMED_FAMILIES, SENTENCES, fit, picture
from transformers import AutoModel, AutoTokenizer

import dvp
from dvp.build import load_vision
from dvp.checkpoints import read_checkpoint
from dvp.config.rules import PEFT
from dvp.errors import UserError
from dvp.files import read_json, write_checksums, write_json
from dvp.sharing import folder as exporting

ROOT = Path(__file__).parents[2]
BERT = "dvp_adaption_bert_vqa"
QUESTION = "is there a red circle"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (f"dvp_adaption_{family}_vqa", {}) for family in NAMED_FAMILIES},
    "adapters": ("dvp_adaption_bert_gqa", {"use_adapter": True}),
    **{kind: ("dvp_adaption_bert_gqa", {"use_adapter": kind}) for kind in (*PEFT, "frozen")},
    "as published": ("dvp_adaption_t5_gqa", {"as_published": True}),
    "blind": ("dvp_adaption_bert_gqa", {"image_tokens": "zero"}),
}


@pytest.fixture
def export(command: Callable[..., None], tmp_path: Path) -> Callable[..., Path]:
    """Exports a checkpoint to a folder of this test; returns it."""

    def call(checkpoint: Path, **options: Any) -> Path:
        command("export", "with", load_path=checkpoint, to=tmp_path / "out", **options)
        return tmp_path / "out"

    return call


def base_of(checkpoint: Path) -> dict[str, str]:
    config = read_json(checkpoint / "description.json")["config"]
    return {key: config[key] for key in ("tokenizer", "clip_model")}


def asked(model: Any) -> Any:
    choices = ["red", "blue"] if model.takes_choices else []
    return model.answer(picture(5), [QUESTION, "no circle is yellow"], choices)


@pytest.fixture(params=[*CASES, "scienceqa"])
def last(request: pytest.FixtureRequest, checkpoint: Callable[..., Path], science: Any) -> Path:
    """The checkpoint of a case."""
    if request.param == "scienceqa":
        return checkpoint("dvp_adaption_llama_sqa", prompt_format="QCM-ALE", **science[1])
    experiment, changes = CASES[request.param]
    return checkpoint(experiment, **changes)


@pytest.mark.parametrize("with_base", [True, False])
def test_it_answers_elsewhere_as_the_checkpoint_does(with_base: bool, last: Path, export, tmp_path) -> None:
    expected, base = asked(dvp.load(last)), base_of(last)
    elsewhere = shutil.move(export(last, with_base=with_base), tmp_path / "elsewhere")
    model = dvp.load(elsewhere, **({} if with_base else base))
    assert asked(model) == expected
    places = [model.config[key] for key in base]
    assert all(place.startswith(str(elsewhere)) for place in places) == with_base
    told = "".join(path.read_text() for path in Path(elsewhere).iterdir() if path.suffix in (".json", ".md"))
    assert not [place for place in (*base.values(), str(last.parents[3])) if place in told]


@pytest.mark.parametrize("beside", [None, "__init__.py"])
def test_without_its_base_the_setting_is_named_and_another_vocabulary_refused(
    beside: str | None, export, checkpoint, tmp_path, monkeypatch
) -> None:
    last = checkpoint(BERT)
    out = export(last)
    monkeypatch.chdir(tmp_path)
    for place in base_of(last).values() if beside else ():  # of the same name, and no model
        Path(Path(place).name).mkdir()
        (Path(place).name / Path(beside)).touch()
    with pytest.raises(
        UserError, match=r"needs tokenizer=\./bert\d+ and clip_model=\./clip\d+, where no model is: say"
    ):
        dvp.load(out)
    other = shutil.copytree(base_of(last)["tokenizer"], tmp_path / "other")
    words = (other / "vocab.txt").read_text().split("\n")
    (other / "vocab.txt").write_text("\n".join([*words[:5], *reversed(words[5:])]))
    with pytest.raises(UserError, match="vocab.txt is not the vocabulary that .*out was trained with"):
        dvp.load(out, **base_of(last) | {"tokenizer": other})


def test_what_opens_a_checkpoint_opens_an_export(export, checkpoint, command, refused, data_root, tmp_path) -> None:
    last = checkpoint("dvp_adaption_bert_gqa")
    out = export(last, with_base=True)
    options = {"data_root": data_root, "num_gpus": 0, "num_workers": 0}
    for place in (last, out):
        command("with", test_only=True, load_path=place, log_dir=tmp_path / place.name, **options)
    first, second = (tmp_path / place.name / f"gqa_submit_{place.stem}.json" for place in (last, out))
    assert json.loads(first.read_text()) == json.loads(second.read_text())
    assert "was exported, without the state of a run" in refused("with", "dvp_adaption_bert_gqa", resume_from=out)


# The field's names


def test_tools_of_the_field_read_tokenizer_and_preprocessing(export, checkpoint) -> None:
    last = checkpoint(BERT)
    out, model = export(last), dvp.load(last)
    theirs = AutoTokenizer.from_pretrained(out)(QUESTION)["input_ids"]
    assert theirs == model.reader.collate([model.prepare(picture(5), QUESTION).row])["input_ids"][0].tolist()
    assert read_json(out / "config.json")["answers"] == model.reader.answers


def test_the_licence_of_llamas_tokenizer_is_kept(export, checkpoint) -> None:
    last = checkpoint("dvp_adaption_llama_vqa")
    assert not list(export(last).glob("tokenizer*"))
    assert (export(last, with_base=True, overwrite=True) / "language_model" / "tokenizer.model").is_file()


def test_an_encoder_of_openais_goes_along_in_the_fields_format(configure, clip_folder, tmp_path: Path) -> None:
    base = {"tokenizer": configure(BERT)["tokenizer"], "clip_model": clip_folder}
    exporting._write_base(tmp_path, base, configure(BERT), exporting.BASE, None)
    first, second = (
        load_vision(configure(BERT) | {"clip_model": place}).encoder.state_dict()
        for place in (base["clip_model"], str(tmp_path / "image_encoder"))
    )
    assert all(torch.equal(first[name], second[name]) for name in first) and first.keys() == second.keys()


# PEFT's adapters


LEARNT = {"learning_rate": 0.05, "decay_power": "constant", "warmup_steps": 0, "max_steps": 3}
BY_PEFT = pytest.mark.parametrize("kind", PEFT)
FAMILIES = pytest.mark.parametrize("family", NAMED_FAMILIES)


def texts_of(model: Any) -> dict[str, torch.Tensor]:
    """The ids of some questions, and what of them is text."""
    batch = model.reader.collate([model.prepare(picture(5), text).row for text in SENTENCES[:3]])
    return {key: batch[key] for key in ("input_ids", "attention_mask")}


@torch.no_grad()
def read_by_ours(model: Any, texts: dict[str, torch.Tensor]) -> torch.Tensor:
    """What a loaded checkpoint's language model reads out of texts alone."""
    backbone, whole = model.model.backbone, model.model
    return backbone.read_out(whole.run(backbone.embed(texts), {}))


@torch.no_grad()
def read_by_theirs(language_model: Any, backbone: Any, texts: dict[str, torch.Tensor]) -> torch.Tensor:
    """The same by the whole model of transformers."""
    language_model.eval()
    if language_model.config.is_encoder_decoder:
        texts = texts | {"decoder_input_ids": torch.zeros_like(texts["input_ids"][:, :1])}
    hidden = language_model(**texts).last_hidden_state
    last = backbone.read_token == "last" and not language_model.config.is_encoder_decoder
    places = texts["attention_mask"].sum(1) - 1 if last else torch.zeros(len(hidden), dtype=torch.long)
    return hidden[torch.arange(len(hidden)), places]


@FAMILIES
@BY_PEFT
def test_pefts_tools_open_it_with_the_same_hidden_states(family: str, kind: str, export, checkpoint) -> None:
    from peft import AutoPeftModelForFeatureExtraction, PeftModel

    last = checkpoint(f"dvp_adaption_{family}_vqa", use_adapter=kind, adapter_rank=3, lora_alpha=7, **LEARNT)
    out, model, base = export(last), dvp.load(last), base_of(last)["tokenizer"]
    texts = texts_of(model)
    ours, backbone = read_by_ours(model, texts), model.model.backbone
    plain = AutoModel.from_pretrained(base)
    assert not torch.allclose(read_by_theirs(plain, backbone, texts), ours, atol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of keys that are missing or left over
        theirs = PeftModel.from_pretrained(plain, out / "adapter")
    torch.testing.assert_close(read_by_theirs(theirs, backbone, texts), ours, atol=1e-5, rtol=1e-4)
    told = read_json(out / "adapter" / "adapter_config.json")
    assert told["base_model_name_or_path"].startswith("./") and "PeftModel" in (out / "README.md").read_text()
    write_json(out / "adapter" / "adapter_config.json", told | {"base_model_name_or_path": base})
    alone = AutoPeftModelForFeatureExtraction.from_pretrained(out / "adapter")
    torch.testing.assert_close(read_by_theirs(alone, backbone, texts), ours, atol=1e-5, rtol=1e-4)


@FAMILIES
@BY_PEFT
def test_merged_it_is_a_plain_language_model_that_answers_the_same(
    family: str, kind: str, export, checkpoint, tmp_path: Path
) -> None:
    last = checkpoint(f"dvp_adaption_{family}_vqa", use_adapter=kind, adapter_rank=3, lora_alpha=7, **LEARNT)
    before, base = dvp.load(last), base_of(last)
    out = shutil.move(export(last, merge=True), tmp_path / "elsewhere")
    merged = dvp.load(out, clip_model=base["clip_model"])
    expected, found = asked(before), asked(merged)
    assert [one.text for one in found] == [one.text for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert [c.probability for c in one.candidates] == pytest.approx(
            [c.probability for c in other.candidates], abs=1e-5
        )
    texts = texts_of(before)
    plain = AutoModel.from_pretrained(Path(out) / "language_model")
    ours = read_by_ours(before, texts)
    torch.testing.assert_close(read_by_theirs(plain, before.model.backbone, texts), ours, atol=1e-5, rtol=1e-4)
    assert AutoTokenizer.from_pretrained(Path(out) / "language_model")(QUESTION)["input_ids"]
    assert (
        not (Path(out) / "adapter").exists()
        and "merged into the language model" in (Path(out) / "README.md").read_text()
    )
    weights, description = read_checkpoint(str(out))
    assert not [name for name in weights if ".backbone." in name]
    assert (description["use_adapter"], description["merged"]) == ("frozen", kind)


def test_beside_16_bit_it_is_merged_in_16_bit(export, checkpoint) -> None:
    options = {"use_adapter": "lora", "precision": "bf16", "backbone_dtype": "bfloat16"} | LEARNT
    last = checkpoint("dvp_adaption_llama_vqa", **options)
    out = export(last, merge=True, with_base=True)
    assert {one.dtype for one in load_file(out / "language_model" / "model.safetensors").values()} == {torch.bfloat16}
    expected, found = asked(dvp.load(last)), asked(dvp.load(out))
    for one, other in zip(found, expected, strict=True):
        theirs = {c.text: c.probability for c in other.candidates}
        assert all(theirs[c.text] == pytest.approx(c.probability, abs=0.05) for c in one.candidates)


def test_a_search_is_merged_at_its_k(trained, export) -> None:
    search = trained("dvp_search_bert_gqa", search_sample="all", use_adapter="lora", learning_rate=1e-2)
    searched(search, **FOUND)
    out = export(search, merge=True, with_base=True)
    expected = dvp.load(search).answer(picture(5), QUESTION, insert_layer=2)
    assert dvp.load(out).answer(picture(5), QUESTION).text == expected.text


UNMERGED = {
    "published": ({"use_adapter": True}, "has published ones, which are layers more: leave merge out"),
    "whole": ({}, "has none: leave merge out"),
    "frozen": ({"use_adapter": "frozen"}, "has none: leave merge out"),
}


@pytest.mark.parametrize("case", UNMERGED)
def test_what_no_weight_can_take_in_is_not_merged(case: str, checkpoint, refused, tmp_path: Path) -> None:
    changes, message = UNMERGED[case]
    last = checkpoint("dvp_adaption_bert_gqa", **changes)
    assert message in refused("export", "with", load_path=last, to=tmp_path / "out", merge=True)
    assert not (tmp_path / "out").exists()


def test_beside_rounded_weights_it_is_not_merged(checkpoint, refused, tmp_path: Path) -> None:
    last = checkpoint("dvp_adaption_bert_gqa", use_adapter="lora")
    changed = shutil.copytree(last, tmp_path / "last.ckpt")
    write_json(changed / "description.json", read_json(changed / "description.json") | {"quantize": "4bit"})
    write_checksums(changed)
    assert "trained with quantize=4bit" in refused("export", "with", load_path=changed, to=tmp_path / "out", merge=True)


# The card


def front_matter(out: Path) -> dict[str, Any]:
    return yaml.safe_load((out / "README.md").read_text().split("---\n")[1])


@pytest.fixture
def trained(configure: Callable[..., dict]) -> Callable[..., Path]:
    """Trains or searches, and validates; returns the last checkpoint."""

    def train(experiment: str, **changes: Any) -> Path:
        (last,) = Path(fit(configure(experiment, **changes)).log_dir).rglob("last.ckpt")
        return last

    return train


def searched(last: Path, **changes: Any) -> dict[str, Any]:
    """search.json beside a checkpoint, changed: so short a search finds nothing."""
    path = last.parents[1] / "search.json"
    write_json(path, record := read_json(path) | changes)
    return record


FOUND = {"found": True, "decided": True, "finished": True, "verdict": "K = 2; 0 and 1 are worse", "insert_layer": 2}


def test_the_card_tells_scores_data_k_and_its_search(trained, command, export, tmp_path, data_root) -> None:
    search = trained("dvp_search_bert_gqa", search_sample="all", log_dir=str(tmp_path / "s"))
    searched(search, **FOUND)
    last = trained("dvp_adaption_bert_gqa", insert_layer="auto", start_from="search", log_dir=str(tmp_path / "s"))
    command("with", test_only=True, load_path=last, data_root=data_root, log_dir=tmp_path / "s", num_gpus=0, num_workers=0)  # fmt: skip  # noqa: E501
    out = export(last, license="apache-2.0")
    table = (last.parents[1] / "metrics.csv").read_text().splitlines()
    column = table[0].split(",").index("gqa/val/accuracy")
    value = [line.split(",")[column] for line in table[1:] if line.split(",")[column]][-1]
    card, front = (out / "README.md").read_text(), front_matter(out)
    assert f"| gqa/val/accuracy | {float(value):.2f} |" in card and "| gqa/test-dev/accuracy | " in card
    assert "a search said: K = 2; 0 and 1 are worse (kab=published, 2 updates)" in card
    assert ", from the weights of that search |" in card
    assert "K | 2" in card and "as_published | False" in card and "**`as_published`**" not in card
    assert f"{sum(one.numel() for one in load_file(out / 'model.safetensors').values()):,}" in card
    assert front["license"] == "apache-2.0" and "base_model" not in front
    (val,) = [one for one in front["model-index"][0]["results"] if one["dataset"]["split"] == "val"]
    assert val["metrics"][0]["value"] == round(float(value), 2)


def test_what_ran_as_published_is_stamped(export, checkpoint) -> None:
    out = export(checkpoint("dvp_adaption_t5_gqa", as_published=True))
    assert "**`as_published`**: this model" in (out / "README.md").read_text()
    assert "as_published" in front_matter(out)["tags"] and read_json(out / "config.json")["as_published"] is True


def test_a_search_gives_the_compressor_of_its_k(trained, export, refused, tmp_path) -> None:
    search = trained("dvp_search_bert_gqa", search_sample="all")
    searched(search, found=False, verdict="undecided")
    assert "found no K (undecided): search longer" in refused("export", "with", load_path=search, to=tmp_path / "no")
    searched(search, **FOUND)
    blind = trained("dvp_search_bert_gqa", image_tokens="zero", log_dir=str(tmp_path / "blind"))
    said = refused("export", "with", load_path=blind, to=tmp_path / "no")
    assert "is of a blind search" in said and "search longer" not in said
    out = export(search)
    assert "a search said: K = 2" in (out / "README.md").read_text()
    weights, description = read_checkpoint(str(out))
    theirs, _ = read_checkpoint(str(search))
    assert description["insert_layer"] == 2 and not description["search_stage"]
    part = "attention.query.weight" if "model.compressors.0.attention.query.weight" in weights else "query.weight"
    assert torch.equal(weights[f"model.compressors.0.{part}"], theirs[f"model.compressors.2.{part}"])
    whole = dvp.load(search)
    expected = whole.answer(picture(5), QUESTION, insert_layer=2)
    assert dvp.load(out, **base_of(search)).answer(picture(5), QUESTION) == expected


# Whole or not there


def test_what_is_there_stays(export, checkpoint, refused, tmp_path: Path) -> None:
    out = export(checkpoint(BERT))
    before = (out / "README.md").read_text()
    options = {"load_path": checkpoint(BERT), "license": "mit"}
    assert "is an export already: add overwrite=True" in refused("export", "with", to=out, **options)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("a")
    error = refused("export", "with", to=tmp_path / "mine", overwrite=True, **options)
    assert "is no export, and stays as it is" in error and (tmp_path / "mine" / "a.txt").is_file()
    assert (out / "README.md").read_text() == before
    assert "mit" in (export(checkpoint(BERT), overwrite=True, license="mit") / "README.md").read_text()


@pytest.mark.parametrize("there", [True, False])
def test_a_failure_leaves_what_was_there(there: bool, export, checkpoint, refused, monkeypatch, tmp_path) -> None:
    if there:
        export(checkpoint(BERT))
    before = sorted(path.name for path in tmp_path.rglob("*"))

    def fail(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "write_checksums", fail)
    error = refused("export", "with", load_path=checkpoint(BERT), to=tmp_path / "out", overwrite=True)
    assert "could not be written (No space left on device)" in error
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_damage_is_named(export, checkpoint, refused, tmp_path: Path) -> None:
    out = export(checkpoint(BERT), with_base=True)
    data = bytearray((out / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (out / "model.safetensors").write_bytes(data)
    with pytest.raises(UserError, match="model.safetensors is not as it was written"):
        dvp.load(out)
    assert set(read_json(out / "checksums.json")["sha256"]) == {
        path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file() and path.name != "checksums.json"
    }


EARLY = {
    "nothing": ({"to": "out"}, "export needs load_path"),
    "no place": ({"load_path": "last.ckpt"}, "needs a place: give to=<folder>"),
    "no checkpoint": ({"load_path": "none.ckpt", "to": "out"}, "none.ckpt: there is no such"),
    "a file": ({"load_path": "last.ckpt/description.json", "to": "out"}, "is a part of a checkpoint"),
    "no name": ({"load_path": "last.ckpt", "push_to": "name"}, "push_to='name' is wrong"),
    "no licence": ({"load_path": "last.ckpt", "to": "out", "license": "My own"}, "license='My own' is wrong"),
    "moved": ({"load_path": "last.ckpt", "to": "out", "clip_model": "./gone"}, "say with clip_model="),
}


def test_what_is_wrong_is_seen_before_torch_is_imported(checkpoint, tmp_path: Path) -> None:
    shutil.copytree(checkpoint(BERT), tmp_path / "last.ckpt")
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import run\n"
        f"for settings, message in {list(EARLY.values())!r}:\n"
        "    try: run.ex.run_commandline(['run.py', 'export', 'with', *(f'{k}={v}' for k, v in settings.items())])\n"
        "    except SystemExit as ended: print(message, ended.code, 'torch' in sys.modules, file=sys.stderr)\n"
    )
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    for settings, message in EARLY.values():
        assert f"{message} 1 False" in ended.stderr, settings
        assert ended.stderr.count(message) >= 2, message
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt"}


def test_an_export_that_has_lost_its_description_names_that_file(export, checkpoint) -> None:
    out = export(checkpoint(BERT))
    (out / "config.json").unlink()
    with pytest.raises(UserError, match="out is damaged, config.json is missing"):
        dvp.load(out)
