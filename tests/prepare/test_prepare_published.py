"""The mini sets of real data, against the tables that the published scripts made from them."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pytest

from dvp.errors import UserError
from dvp.prepare import convert

pytestmark = pytest.mark.skipif("DVP_REAL_DATA" not in os.environ, reason="DVP_REAL_DATA names no small real data")

FOLDERS = {"vqa": "mini_vqav2", "gqa": "mini_gqa", "snli_ve": "mini_snli_ve"}
TABLES = {
    "vqa": ["vqav2_train", "vqav2_val", "vqav2_rest_val", "vqav2_trainable_val", "vqav2_test", "vqav2_test-dev"],
    "gqa": ["gqa_train", "gqa_val", "gqa_test-dev"],
    "snli_ve": ["snli_ve_train", "snli_ve_dev", "snli_ve_test"],
}


def mini(task):
    return Path(os.environ["DVP_REAL_DATA"]) / FOLDERS[task]


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    out = tmp_path_factory.mktemp("converted")
    for task in FOLDERS:
        convert(task, mini(task), out, allow_missing_images=True)
    return out


def both(ours, name):
    published = Path(os.environ["DVP_REAL_DATA"]) / "ref_arrow"
    return [pa.ipc.open_file(folder / f"{name}.arrow").read_all() for folder in (published, ours)]


def by_image(table):
    key = "identifier" if "identifier" in table.column_names else "image_id"
    return {row[key]: row for row in table.to_pylist()}


def known(row):
    """The questions of a row that have a known answer: the published scripts drop the others from val too."""
    columns = [name for name, value in row.items() if isinstance(value, list)]
    kept = [place for place, answers in enumerate(row["answers"]) if answers]
    return row | {name: [row[name][place] for place in kept] for name in columns}


@pytest.mark.parametrize("name", [name for names in TABLES.values() for name in names])
def test_columns_and_types(ours, name):
    published, mine = both(ours, name)
    assert mine.column_names == published.column_names
    null_typed = {
        "vqav2_trainable_val": {"image", "questions", "question_id"},
        "vqav2_test": set(),
        "vqav2_test-dev": set(),
    }
    answers = {"answers", "answer_labels", "answer_scores"} if name in null_typed else set()
    differ = {f.name for f in published.schema if f.type != mine.schema.field(f.name).type}
    assert differ == null_typed.get(name, set()) | answers


@pytest.mark.parametrize("name", ["vqav2_train", "vqav2_test", "vqav2_test-dev", *TABLES["snli_ve"]])
def test_rows_equal_the_published(ours, name):
    published, mine = map(by_image, both(ours, name))
    assert mine == published


@pytest.mark.parametrize("name", ["vqav2_val", "vqav2_rest_val"])
def test_val_keeps_the_questions_that_the_published_scripts_drop(ours, name):
    published, mine = map(by_image, both(ours, name))
    assert {image_id: known(row) for image_id, row in mine.items() if known(row)["questions"]} == published
    assert sum(len(row["questions"]) for row in mine.values()) == 72


@pytest.mark.parametrize("name", TABLES["gqa"])
def test_gqa_equals_the_published_but_for_the_vocabulary(ours, name):
    # The published labels count in the full set's vocabulary, ours in that of the mini set.
    published, mine = map(by_image, both(ours, name))
    answers = json.loads((ours / "gqa_answers.json").read_text())
    assert mine.keys() == published.keys()
    for image_id, row in published.items():
        here = [[answer for answer in given if answer in answers] for given in row["answers"]]
        labels = [[answers.index(answer) for answer in given] for given in here]
        scores = [[1.0] * len(given) for given in here]
        expected = row | {"answers": here, "answer_labels": labels, "answer_scores": scores}
        assert mine[image_id] == expected


def test_vqa_images_that_are_not_there_stop_with_the_numbers(tmp_path):
    with pytest.raises(UserError, match="16 of the 18 images of vqav2_train are missing"):
        convert("vqa", mini("vqa"), tmp_path)


def test_edge_rows_of_snli_ve(tmp_path, read_rows):
    edge = (mini("snli_ve") / "extras" / "edge_rows.tsv").read_bytes()
    for split in ("train", "dev", "test"):
        (tmp_path / f"snli_ve_{split}.tsv").write_bytes(edge)
    convert("snli_ve", tmp_path, tmp_path / "out")
    (row,) = read_rows(tmp_path / "out/snli_ve_dev.arrow")
    assert row["questions"] == [line.split("\t")[3] for line in edge.decode().splitlines()]
