"""The doctor: a sound run is let through, and what would stop one is named, all of it, without a traceback."""

import json
import re
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from tiny_world import rows_of, write_data, write_language_model, write_table
from torch import nn

from dvp.build import build
from dvp.commands.doctor import LOOKS
from dvp.config import SHAPES_MODELS
from dvp.config.rules import PEFT
from dvp.doctor import room
from dvp.doctor.models import count
from dvp.doctor.packages import requirements

SEARCH, TRAIN = "dvp_search_bert_vqa", "dvp_adaption_bert_vqa"


@pytest.fixture
def doctor(command: Callable[..., None], capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, str]]:
    """Runs the doctor; returns its exit code and what it prints."""

    def call(experiment: str, **settings: Any) -> tuple[int, str]:
        capsys.readouterr()
        try:
            command("doctor", "with", experiment, **settings)
            code = 0
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return code, said.out + said.err

    return call


def lines(said: str, state: str) -> list[tuple[str, str]]:
    """What is looked at and what is said of it, of the lines that are ok, a note or a fault."""
    return re.findall(rf"^  {state:6}(.{{16}})(.*)$", said, re.MULTILINE)


@pytest.mark.parametrize("experiment", [SEARCH, TRAIN, "dvp_adaption_t5_gqa", "dvp_search_llama_snli_ve"])
def test_a_sound_run_can_start(experiment: str, doctor, tiny) -> None:
    code, said = doctor(experiment, **tiny(experiment, batch_size=8, max_steps=2))
    assert code == 0 and "The run can start." in said and not lines(said, "fault"), said
    looked_at = {what.strip() for what, _ in lines(said, "ok")}
    assert looked_at == {
        "packages", "settings", "devices", "tables", "language model", "image encoder", "layers", "disk", "memory"
    }  # fmt: skip


def test_sciences_run_can_start(doctor, tiny, science) -> None:
    _, settings = science
    options = tiny(TRAIN) | settings
    code, said = doctor("dvp_search_llama_sqa", **options)
    assert code == 0, said


def test_a_test_of_a_checkpoint_is_looked_at_as_such(doctor, tiny, checkpoint) -> None:
    last = checkpoint(TRAIN)
    settings = {key: value for key, value in tiny(TRAIN).items() if key in ("data_root", "log_dir", "num_gpus")}
    code, said = doctor("test_only=True", load_path=last, per_gpu_batchsize=4, **settings)
    assert code == 0, said
    assert [told for what, told in lines(said, "ok") if what.startswith("tables")] == [
        "vqav2_test.arrow: 4 rows, without a manifest, as of the published scripts"
    ]
    assert f"{last}: vqa, " in said


# Faults: what spoils the settings, and what is named


def own(settings: dict[str, Any], key: str, place: Path) -> Path:
    """A copy of a folder that a setting names, which is then that folder."""
    settings[key] = str(shutil.copytree(settings[key], place / key))
    return Path(settings[key])


def cut(settings: dict[str, Any], place: Path) -> None:
    """Half of the language model's weights."""
    weights = own(settings, "tokenizer", place) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def another_vocabulary(settings: dict[str, Any], place: Path) -> None:
    """A tokenizer of more tokens than there are embeddings, and a config that agrees with it."""
    folder = own(settings, "tokenizer", place)
    with open(folder / "vocab.txt", "a") as file:
        file.write("\nworld")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": config["vocab_size"] + 1}))


def more_layers(settings: dict[str, Any], place: Path) -> None:
    """A config.json that asks for layers that the weights lack."""
    folder = own(settings, "tokenizer", place)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 5}))


def bad_picture(settings: dict[str, Any], place: Path) -> None:
    """A table with bytes that are no picture."""
    rows = rows_of("vqa", "train")
    rows[2]["image"] = b"no picture"
    write_table(own(settings, "data_root", place) / "vqav2_train.arrow", rows)


def shared_questions(settings: dict[str, Any], place: Path) -> None:
    """The validation table is the training's."""
    folder = own(settings, "data_root", place)
    shutil.copy(folder / "vqav2_train.arrow", folder / "vqav2_rest_val.arrow")


def no_table(settings: dict[str, Any], place: Path) -> None:
    """A training table is not there."""
    (own(settings, "data_root", place) / "vqav2_train.arrow").unlink()


def file_as_log_dir(settings: dict[str, Any], place: Path) -> None:
    """A file where the runs' folder goes."""
    (place / "file").touch()
    settings["log_dir"] = str(place / "file")


FAULTS: dict[str, tuple[Callable[[dict[str, Any], Path], None] | dict[str, Any], str, str]] = {
    "no data": ({"data_root": "/nowhere"}, "tables", "give the folder with the Arrow files"),
    "a table is missing": (no_table, "tables", "vqav2_train.arrow is missing ("),
    "a picture is damaged": (bad_picture, "tables", "row 2"),
    "questions are shared": (shared_questions, "tables", "questions of"),
    "batches do not divide": ({"per_gpu_batchsize": 3}, "settings", "not a multiple of"),
    "settings contradict": ({"end_lr": 1}, "settings", "cannot decay"),
    "no GPU": ({"num_gpus": 99, "per_gpu_batchsize": 1, "batch_size": 99}, "devices", "ask for fewer"),
    "no logger": ({"logger": "trackio"}, "devices", "pip install trackio"),
    "weights are cut": (cut, "language model", "copy the weights again"),
    "tokens without embeddings": (another_vocabulary, "language model", "they are of different models"),
    "weights lack layers": (more_layers, "layers", "asks for"),
    "a layer that is none": ({"insert_layer": 3}, "language model", "has layers 0 to 2"),
    "pictures of another size": ({"image_size": 32}, "image encoder", "set image_size=16"),
    "no checkpoint": ({"load_path": "/nowhere/last.ckpt"}, "checkpoint", "there is no such checkpoint"),
    "no search": ({"insert_layer": "auto"}, "layers", "first, or give a layer"),
    "nothing can be written": (file_as_log_dir, "disk", "choose another log_dir"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_remedy(fault: str, doctor, tiny, tmp_path: Path) -> None:
    settings, (spoil, where, remedy) = tiny(TRAIN), FAULTS[fault]
    spoil(settings, tmp_path) if callable(spoil) else settings.update(spoil)
    code, said = doctor(TRAIN, **settings)
    found = lines(said, "fault")
    assert code == 1 and "The run cannot start: mend the" in said
    assert [told for what, told in found if what.strip() == where and remedy in told], said
    assert {what.strip() for what, _ in found} == {where}, said  # and nothing else is blamed for it


BUILDING = {"layers", "disk", "memory"}  # looks that build the model, and so meet what others look for


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("fault", FAULTS)
def test_without_its_look_a_fault_passes_unseen(fault: str, guarded: bool, doctor, tiny, tmp_path, monkeypatch) -> None:
    settings, (spoil, where, _) = tiny(TRAIN), FAULTS[fault]
    spoil(settings, tmp_path) if callable(spoil) else settings.update(spoil)
    for look in BUILDING - {where} if guarded else BUILDING | {where}:
        monkeypatch.setitem(LOOKS, look, lambda config: iter(()))
    code, said = doctor(TRAIN, **settings)
    assert (code == 1) == guarded and ("The run can start." in said) != guarded, said


def test_no_fault_hides_another(doctor, tiny, tmp_path: Path, monkeypatch) -> None:
    spoilt = {"data_root": "/nowhere", "image_size": 32, "per_gpu_batchsize": 3, "end_lr": 1}
    code, said = doctor(TRAIN, **tiny(TRAIN) | spoilt)
    assert code == 1 and "mend the 4 faults above" in said
    assert {what.strip() for what, _ in lines(said, "fault")} == {"settings", "tables", "image encoder"}
    monkeypatch.setattr("dvp.doctor.findings.UserError", ImportError)  # not caught
    code, said = doctor(TRAIN, **tiny(TRAIN) | spoilt)
    assert code == 1 and {what.strip() for what, _ in lines(said, "fault")} == {"settings"}


def test_a_damaged_checkpoint_is_named(doctor, tiny, checkpoint, tmp_path: Path, monkeypatch) -> None:
    last = Path(shutil.copytree(checkpoint(TRAIN), tmp_path / "last.ckpt"))
    weights = last / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    for settings in ({"load_path": last}, {"resume_from": last}):
        code, said = doctor(TRAIN, **tiny(TRAIN) | settings)
        assert code == 1 and "weights.safetensors is not as it was written" in said
    monkeypatch.setitem(LOOKS, "checkpoint", lambda config: iter(()))
    assert [doctor(TRAIN, **tiny(TRAIN, **{key: last}))[0] for key in ("load_path", "resume_from")] == [0, 0]


def test_a_package_outside_its_range_is_named(doctor, tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    there = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "9.0" if name == "sacred" else there(name))
    code, said = doctor(TRAIN, **tiny(TRAIN))
    assert code == 1 and re.search(r"fault packages +sacred 9.0 is not \S+, as is needed: pip install 'sacred", said)
    monkeypatch.setitem(LOOKS, "packages", lambda config: iter(()))
    assert doctor(TRAIN, **tiny(TRAIN))[0] == 0


def test_all_requirements_are_read() -> None:
    assert {"torch", "transformers", "setuptools", "packaging"} <= {one.name for one in requirements()}


def test_what_does_nothing_and_shared_pictures_are_notes(doctor, tiny, tmp_path: Path) -> None:
    settings = tiny(TRAIN)
    rows = rows_of("vqa", "rest_val")
    rows[0] |= {key: rows_of("vqa", "train")[0][key] for key in ("image", "image_id")}
    write_table(own(settings, "data_root", tmp_path) / "vqav2_rest_val.arrow", rows)
    code, said = doctor(TRAIN, **settings, search_sample=3)
    assert code == 0
    told = " ".join(told for _, told in lines(said, "note"))
    assert "search_sample=3 has no effect" in told and "1 of the 4 of vqav2_rest_val" in told


def test_a_blind_search_is_no_start_for_a_run_that_sees(doctor, tiny, checkpoint) -> None:
    last = checkpoint(SEARCH, image_tokens="zero")
    code, said = doctor(TRAIN, **tiny(TRAIN, load_path=last, insert_layer=1))
    ((what, told),) = lines(said, "fault")
    assert code == 1 and what.strip() == "checkpoint" and "is of a blind search (image_tokens=zero)" in told


def test_what_is_said_of_a_search_is_said_once(doctor, tiny, checkpoint) -> None:
    code, said = doctor(TRAIN, **tiny(TRAIN, load_path=checkpoint(SEARCH), use_adapter=True, insert_layer="auto"))
    assert said.count("is of a search: K = ") == 1


# Room


def test_too_full_a_disk_is_a_fault(doctor, tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_place", lambda folder, setting: (Path(folder), 1000))
    settings = tiny(TRAIN)
    shutil.rmtree(own(settings, "data_root", tmp_path) / "image_tokens", ignore_errors=True)  # of other tests
    code, said = doctor(TRAIN, **settings)
    assert code == 1 and [what.strip() for what, _ in lines(said, "fault")] == ["disk"]
    code, said = doctor(TRAIN, **settings | {"image_tokens": "cache"})
    assert code == 1 and "or use image_tokens=live" in said
    code, said = doctor(TRAIN, **settings | {"image_tokens": "auto"})
    assert "they will be encoded live" in said
    monkeypatch.setitem(LOOKS, "disk", lambda config: iter(()))
    assert doctor(TRAIN, **settings)[0] == 0


@pytest.mark.parametrize("megabytes, state, told", [(81559, "ok", "of 85.5 GB"), (0, "fault", "a larger device")])
def test_memory_is_held_against_what_the_driver_says(
    megabytes: int, state: str, told: str, configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho {megabytes}\necho 99999\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    ((found, sentence),) = room.look_at_memory(configure(TRAIN, num_gpus=1, batch_size=8))
    assert found == state and told in sentence


def test_a_missing_table_is_told_once(doctor, tiny, tmp_path: Path) -> None:
    settings = tiny("dvp_adaption_bert_gqa")
    (own(settings, "data_root", tmp_path) / "gqa_train.arrow").unlink()
    (tmp_path / "data_root" / "gqa_answers.json").unlink(missing_ok=True)  # then the vocabulary is the table's
    code, said = doctor("dvp_adaption_bert_gqa", **settings)
    assert code == 1 and said.count("gqa_train.arrow is missing") == 1 and "mend the 1 fault above" in said


def test_on_a_cpu_the_program_takes_memory_too(configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "memory_of_device", lambda config: 0.9e9)
    ((found, sentence),) = room.look_at_memory(configure(TRAIN, num_gpus=0))
    assert found == "fault" and "Python and its packages 1.0 GB" in sentence
    monkeypatch.setattr(room, "memory_of_device", lambda config: 2e9)
    ((found, sentence),) = room.look_at_memory(configure(TRAIN, num_gpus=0))
    assert found == "ok" and "estimated 1.0 GB, of 2.0 GB" in sentence
    ((_, sentence),) = room.look_at_memory(configure(TRAIN, num_gpus=1, batch_size=8))
    assert "Python" not in sentence


@pytest.mark.parametrize(
    "experiment, changes",
    [(SEARCH, {}), (TRAIN, {}), ("dvp_search_llama_vqa", {}), *((TRAIN, {"use_adapter": kind}) for kind in PEFT)],
)
def test_what_is_counted_without_weights_is_what_a_run_trains(experiment: str, changes: dict, configure) -> None:
    config = configure(experiment, **changes)
    empty, real = room.build_empty(config), build(config)[1].model
    assert count(empty) == count(real)
    parameters = {name: one for name, one in real.named_parameters() if one.requires_grad}
    sure = room.standing(empty, config)
    assert sure["trained weights"] == sum(one.nbytes for one in parameters.values())
    assert sure["frozen weights"] == sum(one.nbytes for one in real.parameters()) - sure["trained weights"]
    assert room.activations(empty, config) > 0


def test_llama_of_seven_billions_is_counted_without_its_weights(configure, tmp_path: Path) -> None:
    folder = shutil.copytree(SHAPES_MODELS / "llama", tmp_path / "llama")
    sizes = {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
             "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128}  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | sizes))
    config = configure("dvp_adaption_llama_vqa", tokenizer=str(folder), num_heads=16, backbone_dtype="bfloat16")
    model = room.build_empty(config)
    base = sum(one.numel() for name, one in model.backbone.named_parameters() if ".adapter" not in name)
    assert base == 6_738_415_616 - 32000 * 4096  # without the head that writes
    assert 13.2e9 < room.standing(model, config)["frozen weights"] < 13.3e9
    assert {one.device.type for one in model.backbone.parameters()} == {"meta"}


def test_metas_layout_is_counted_too(tmp_path: Path) -> None:
    import torch

    from dvp.backbones import load_backbone

    folder = tmp_path / "llama"
    folder.mkdir()
    write_language_model(folder, "llama")
    assert isinstance(load_backbone(str(folder), empty=True), nn.Module)
    assert {one.device for one in load_backbone(str(folder), empty=True).parameters()} == {torch.device("meta")}


def test_data_of_ones_own_is_known_by_its_tables(doctor, tiny, tmp_path: Path) -> None:
    write_data(tmp_path, "custom")
    code, said = doctor("dvp_adaption_bert_custom", **tiny("dvp_adaption_bert_custom") | {"data_root": str(tmp_path)})
    assert code == 0 and "custom_train.arrow: 4 rows" in said, said
