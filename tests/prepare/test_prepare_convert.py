"""What holds for every task: same bytes, all tables or none, bounded memory."""

import errno
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dvp.config import ex
from dvp.errors import UserError
from dvp.prepare import convert


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_same_input_and_seed_give_the_same_bytes_in_any_order_of_the_files(make_raw, tmp_path):
    first, second = make_raw("vqa", "first"), make_raw("vqa", "second", reverse=True)
    convert("vqa", first, tmp_path / "a", rest_val_images=3)
    convert("vqa", second, tmp_path / "b", rest_val_images=3)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_the_seed_chooses_the_held_out_images_and_nothing_else(make_raw, tmp_path):
    raw = make_raw("vqa")
    for seed in (0, 1):
        convert("vqa", raw, tmp_path / str(seed), rest_val_images=3, seed=seed)
    first, second = contents(tmp_path / "0"), contents(tmp_path / "1")
    changed = [name for name in first if first[name] != second[name]]
    tables = ["vqav2_rest_val.arrow", "vqav2_trainable_val.arrow"]
    assert changed == ["vqav2_manifest.json", "vqav2_pictures.json", *tables]


@pytest.mark.parametrize("task", ["vqa", "gqa", "snli_ve"])
def test_a_failure_leaves_the_old_tables_and_no_temporaries(make_raw, tmp_path, task):
    raw, out = make_raw(task), tmp_path / "out"
    convert(task, raw, out)
    before = contents(out)
    last = {"vqa": "v2_OpenEnded_mscoco_test-dev2015_questions.json", "gqa": "testdev_balanced_questions.json"}
    path = raw / last.get(task, "snli_ve_test.tsv")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=path.name):
        convert(task, raw, out, seed=1)
    assert contents(out) == before


@pytest.mark.parametrize("name", ["gqa_val.arrow", "gqa_answers.json", "gqa_pictures.json", "gqa_manifest.json"])
def test_a_full_disk_is_told_and_leaves_nothing(make_raw, tmp_path, monkeypatch, name):
    out, sync = tmp_path / "out", os.fsync

    def full(handle):
        if os.readlink(f"/proc/self/fd/{handle}").endswith(name):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full"):
        convert("gqa", make_raw("gqa"), out)
    assert contents(out) == {}


# Not getrusage: its peak is inherited from the process that starts this one.
MEASURE = """
import re, sys
from dvp.prepare import convert
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = peak()
convert("gqa", sys.argv[1], sys.argv[2])
print((peak() - before) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc, which Linux has")
def test_memory_does_not_grow_with_the_images_or_the_json(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    (raw / "images").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(raw / "images" / "noise.jpg", quality=95)
    for i in range(150):
        (raw / "images" / f"{i}.jpg").symlink_to("noise.jpg")
    bulk = {"semantic": "x" * 600_000}
    entries = {str(i): {"imageId": str(i), "question": "What?", "answer": "noise"} | bulk for i in range(150)}
    small = {"0": {"imageId": "0", "question": "What?", "answer": "noise"}}
    for split, rows in (("train", entries), ("val", small), ("testdev", small)):
        (raw / f"{split}_balanced_questions.json").write_text(json.dumps(rows))
    command = [sys.executable, "-c", MEASURE, str(raw), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True)
    megabytes = (out / "gqa_train.arrow").stat().st_size / 2**20
    shutil.rmtree(out)
    grown = int(done.stdout.split()[-1])
    assert megabytes > 240
    assert grown < 130


def test_the_command_asks_for_a_folder_to_write_to(make_raw, tmp_path, refused, monkeypatch):
    raw = make_raw("gqa")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert "convert needs data_root=<folder>" in refused("convert", "with", "datasets=gqa", raw_root=raw)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("held_out, said", [(8, True), (7, False)])
def test_the_command_says_where_rest_val_takes_all_of_val(make_raw, tmp_path, command, capsys, held_out, said):
    raw, out = make_raw("vqa"), tmp_path / "out"
    command("convert", "with", "datasets=vqa", raw_root=raw, data_root=out, rest_val_images=held_out)
    assert ("rest_val takes all 8 pictures of val, and trainable_val has none" in capsys.readouterr().out) is said


@pytest.mark.parametrize("task", ["vqa", "gqa", "snli_ve"])
def test_the_command_says_where_the_tables_lie_and_what_searches_on_them(make_raw, tmp_path, command, capsys, task):
    out = tmp_path / "out here"
    command("convert", "with", datasets=task, raw_root=make_raw(task), data_root=out)
    *_, said, typed = capsys.readouterr().out.splitlines()
    assert f"The tables lie in {out}." in said
    program, words = typed.strip().split(" with ")
    updates = ex.check_command_line(None, shlex.split(words))
    assert program == "python run.py" and f"dvp_search_bert_{task} " in words
    assert updates["data_root"] == str(out) and updates["per_gpu_batchsize"] > 0
