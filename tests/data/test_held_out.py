"""GQA without its val, as the published code's users have it: training images take its place, or nothing does."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tiny_world import fit, rows_of, write_data, write_table

from dvp.build import build_data
from dvp.data.arrow import Table, open_table
from dvp.data.held_out import open_splits, split_off
from dvp.data.token_cache import TokenCache
from dvp.errors import UserError
from dvp.manifest import image_hash
from dvp.tasks import TASKS

IMAGES = 40


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """The two tables of GQA that the published code reads, no list of answers, and those of the other tasks."""
    folder = tmp_path / "data"
    folder.mkdir()
    for task in ("gqa", "vqa"):
        write_data(folder, task)
    write_table(folder / "gqa_train.arrow", rows_of("gqa", "train", images=IMAGES))
    (folder / "gqa_val.arrow").unlink()
    return folder


def images(table: pa.Table) -> list[str]:
    return table["image_id"].to_pylist()


@pytest.mark.parametrize("count, share, held", [(40, 0.05, 2), (1000, 0.05, 50), (3, 0.05, 1), (10, 0.5, 5)])
def test_two_parts_that_together_are_all(count: int, share: float, held: int) -> None:
    rest, part = split_off(count, share, 0)
    assert len(part) == held and np.array_equal(np.sort(np.concatenate([rest, part])), np.arange(count))
    assert np.all(np.diff(rest) > 0) and np.all(np.diff(part) > 0)
    again, other = split_off(count, share, 0)[1], [tuple(split_off(count, share, seed)[1]) for seed in range(20)]
    assert np.array_equal(again, part) and len(set(other)) > 1


def test_rows_are_taken_and_not_copied(theirs: Path) -> None:
    table = open_table(str(theirs), "gqa", "train")
    rows = np.array([0, 1, 5, 7, 8, 9, 39])
    before = pa.total_allocated_bytes()
    taken = Table(table.path, table.columns, rows)
    assert pa.total_allocated_bytes() == before
    assert taken.to_pylist() == table.take(rows).to_pylist()


def test_training_images_take_the_place_of_val(
    theirs: Path, configure: Callable[..., dict[str, Any]], capsys: Any
) -> None:
    options = {"data_root": str(theirs)}
    data = build_data(configure("dvp_adaption_bert_gqa", **options))
    said = capsys.readouterr().out
    assert f"{theirs}/gqa_val.arrow is missing: 2 of the 40 images of gqa_train.arrow (5%), chosen by seed=0," in said
    whole = images(open_table(str(theirs), "gqa", "train"))
    train, val = images(data.tables["train"]), images(data.tables["val"])
    assert sorted(train + val) == sorted(whole) and len(val) == 2
    assert len(data.questions(("val",))) == 4 and len(data.questions(("train",), "train")) == 76
    others = [
        images(build_data(configure("dvp_adaption_bert_gqa", seed=seed, **options)).tables["val"]) for seed in (1, 2)
    ]
    assert val not in others
    assert val == images(build_data(configure("dvp_adaption_bert_gqa", **options)).tables["val"])


@pytest.mark.parametrize("as_published, splits", [(True, ["test-dev"]), (False, ["test-dev", "val"])])
@pytest.mark.parametrize("stage", ["search", "adaption"])
@pytest.mark.parametrize("image_tokens", ["live", "cache"])
def test_a_run_without_val(
    stage: str, as_published: bool, splits: list[str], image_tokens: str, theirs: Path,
    configure: Callable[..., dict[str, Any]], capsys: Any,
) -> None:  # fmt: skip
    """As published it reads what the published code reads. A cache of image tokens finds the pictures of the parts."""
    options = {"data_root": str(theirs), "as_published": as_published, "image_tokens": image_tokens}
    options |= {"max_steps": None, "max_epoch": 1}
    config = configure(f"dvp_{stage}_bert_gqa", **options)
    trainer = fit(config)
    assert ("take its place" in capsys.readouterr().out) != as_published
    (metrics,) = Path(config["log_dir"]).rglob("metrics.csv")
    with open(metrics, encoding="utf-8", newline="") as file:
        reported = {
            key for row in csv.DictReader(file) for key, value in row.items() if value and key.endswith("accuracy")
        }
    assert sorted(reported) == [f"gqa/{split}/accuracy" for split in splits]
    assert trainer.lightning_module.monitor == f"gqa/{'test-dev' if as_published else 'val'}/accuracy"


def test_pictures_of_the_parts_are_found_by_the_rows_of_the_whole(
    theirs: Path, configure: Callable[..., dict[str, Any]]
) -> None:
    data = build_data(configure("dvp_adaption_bert_gqa", data_root=str(theirs)))
    cache = TokenCache(theirs / "cache", {}, (1, 1), torch.float32)
    for split in ("train", "val", "test-dev"):
        assert data._picture_hashes(split, cache) == list(map(image_hash, data.tables[split]["image"].to_pylist()))


def test_with_val_as_published_reports_it_too(theirs: Path, configure: Callable[..., dict[str, Any]]) -> None:
    write_table(theirs / "gqa_val.arrow", rows_of("gqa", "val"))
    data = build_data(configure("dvp_adaption_bert_gqa", data_root=str(theirs), as_published=True))
    assert data.task.validate == ("val", "test-dev")


@pytest.mark.parametrize("lacking", ["gqa_train", "gqa_test-dev", "vqav2_rest_val"])
def test_no_other_table_may_be_missing(lacking: str, theirs: Path, configure: Callable[..., dict[str, Any]]) -> None:
    (theirs / f"{lacking}.arrow").unlink()
    task = "vqa" if "vqa" in lacking else "gqa"
    for as_published in (False, True):
        with pytest.raises(UserError, match=f"{lacking}.arrow is missing"):
            build_data(configure(f"dvp_adaption_bert_{task}", data_root=str(theirs), as_published=as_published))


def test_one_image_cannot_be_both(theirs: Path) -> None:
    write_table(theirs / "gqa_train.arrow", rows_of("gqa", "train", images=1))
    with pytest.raises(UserError, match="gqa_train.arrow has too few images"):
        open_splits(str(theirs), TASKS["gqa"], ("train", "val"), ("image",), 0)
