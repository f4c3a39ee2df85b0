"""Files of older versions keep opening; those of each lie in tests/golden/formats, with the models they need."""

import json
import os
import shutil
from pathlib import Path

OLD = Path(__file__).parents[1] / "golden" / "formats" / "unversioned"
BERT = {
    "data_root": OLD / "bert/data", "clip_model": OLD / "bert/clip", "tokenizer": OLD / "bert/model", "image_size": 16,
    "num_heads": 4, "num_gpus": 0, "num_workers": 0, "batch_size": 8, "per_gpu_batchsize": 4, "image_tokens": "live",
}  # fmt: skip
SCIENCE_QA = BERT | {
    "data_root": OLD / "scienceqa/data", "clip_model": OLD / "scienceqa/clip", "tokenizer": OLD / "scienceqa/llama",
    "image_size": 32, "max_text_len": 64, "answer_by": "likelihood",
}  # fmt: skip


def test_adapters_answer_what_they_answered(command, tmp_path: Path) -> None:
    settings = BERT | {"log_dir": tmp_path, "insert_layer": 1, "use_adapter": True}
    command("with", "dvp_adaption_bert_vqa", test_only=True, load_path=OLD / "bert/adapters.ckpt", **settings)
    answers = json.loads((tmp_path / "vqa_submit_adapters.json").read_text())
    assert answers == json.loads((OLD / "bert/answers.json").read_text())


def test_science_qa_answers_what_it_answered_although_its_parts_bear_other_names(command, tmp_path: Path) -> None:
    settings = SCIENCE_QA | {"log_dir": tmp_path, "insert_layer": 1}
    command("with", "dvp_adaption_llama_sqa", test_only=True, load_path=OLD / "scienceqa/adapters.ckpt", **settings)
    answers = json.loads((tmp_path / "sqa_adapters.json").read_text())
    assert answers == json.loads((OLD / "scienceqa/answers.json").read_text())


def test_other_frozen_weights_are_seen_under_the_names_of_then(refused, tmp_path: Path) -> None:
    other = tmp_path / "clip"
    shutil.copytree(OLD / "scienceqa/clip", other)
    weights = (other / "model.safetensors").read_bytes()
    (other / "model.safetensors").write_bytes(weights[:-64] + bytes(64))
    settings = SCIENCE_QA | {"log_dir": tmp_path, "insert_layer": 1, "clip_model": other}
    options = {"test_only": True, "load_path": OLD / "scienceqa/adapters.ckpt"}
    assert "frozen weights" in refused("with", "dvp_adaption_llama_sqa", **settings | options)


def test_a_search_goes_on(command, tmp_path: Path) -> None:
    settings = BERT | {"log_dir": tmp_path, "max_steps": 3}
    command("with", "dvp_search_bert_vqa", resume_from=OLD / "bert/search.ckpt", **settings)
    before = json.loads((OLD / "bert/search.json").read_text())
    after = json.loads(next(tmp_path.rglob("search.json")).read_text())
    assert after["trace"][: len(before["trace"])] == before["trace"] and len(after["trace"]) == 3


def test_science_qa_is_not_gone_on_with(refused, tmp_path: Path) -> None:
    settings = SCIENCE_QA | {"log_dir": tmp_path, "insert_layer": 1, "max_epoch": 2}
    error = refused("with", "dvp_adaption_llama_sqa", resume_from=OLD / "scienceqa/adapters.ckpt", **settings)
    assert "start from its weights with load_path" in error


def test_pictures_are_not_encoded_again(command, tmp_path: Path, capsys) -> None:
    data = Path(shutil.copytree(OLD / "bert/data", tmp_path / "data"))
    kept = Path(shutil.copytree(OLD / "bert/image_tokens", data / "image_tokens"))
    before = {path: path.read_bytes() for path in kept.rglob("*.*")}
    for note in (kept / "pictures").iterdir():
        name, _, changed = note.stem.rsplit("-", 2)  # of the table that it tells of
        os.utime(data / f"{name}.arrow", ns=(int(changed), int(changed)))
    settings = BERT | {"data_root": data, "image_tokens": "cache", "precision": 32}
    command("encode", "with", "dvp_adaption_bert_vqa", **settings)
    assert "Encoding" not in capsys.readouterr().out
    assert {path: path.read_bytes() for path in kept.rglob("*.*")} == before
