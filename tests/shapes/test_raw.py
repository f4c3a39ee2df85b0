"""The embedded world in the official raw formats, and what the converter makes of it."""

import base64
import io
import json
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from dvp.errors import UserError
from dvp.shapes import build
from dvp.shapes.world import SIZE, scenes

PICTURES = {"train": 40, "val": 12, "test": 6}
FILES = {
    "vqav2": ("train", "trainable_val", "val", "rest_val", "test", "test-dev"),
    "gqa": ("train", "val", "test-dev"),
    "snli_ve": ("train", "dev", "test"),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    build(str(root), pictures_per_split=PICTURES)
    return root


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_same_seed_gives_the_same_bytes(built, tmp_path):
    build(str(tmp_path), pictures_per_split=PICTURES)
    relative = sorted(path.relative_to(built) for path in built.rglob("*") if path.is_file())
    assert relative == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert all((built / path).read_bytes() == (tmp_path / path).read_bytes() for path in relative)


def test_another_seed_gives_other_scenes(built, tmp_path):
    build(str(tmp_path), seed=1, pictures_per_split=PICTURES)
    name = "raw/vqa/v2_OpenEnded_mscoco_train2014_questions.json"
    assert (built / name).read_bytes() != (tmp_path / name).read_bytes()


@pytest.mark.parametrize("files", FILES)
def test_every_table_is_converted_and_none_is_empty(built, files):
    for split in FILES[files]:
        table = pa.ipc.open_file(pa.memory_map(str(built / f"{files}_{split}.arrow"))).read_all()
        assert len(table) > 0, split


@pytest.mark.parametrize("year", ["train2014", "val2014", "test2015"])
def test_vqa_files_have_the_official_fields(built, year):
    root = built / "raw/vqa"
    questions = read(root / f"v2_OpenEnded_mscoco_{year}_questions.json")
    annotations = read(root / f"v2_mscoco_{year}_annotations.json")
    assert {"info", "license", "data_type", "data_subtype", "task_type", "questions"} == set(questions)
    assert {"info", "license", "data_type", "data_subtype", "annotations"} == set(annotations)
    assert questions["data_subtype"] == annotations["data_subtype"] == year
    ids = [(entry["question_id"], entry["image_id"]) for entry in questions["questions"]]
    assert ids == [(entry["question_id"], entry["image_id"]) for entry in annotations["annotations"]]
    assert len({question for question, _ in ids}) == len(ids)
    for entry in questions["questions"]:
        types = {name: type(value) for name, value in entry.items()}
        assert types == {"question": str, "image_id": int, "question_id": int}
        with Image.open(root / year / f"COCO_{year}_{entry['image_id']:012d}.jpg") as image:
            assert (image.size, image.format) == ((SIZE, SIZE), "JPEG")
    for entry in annotations["annotations"]:
        fields = {"question_type", "multiple_choice_answer", "answers", "image_id", "answer_type", "question_id"}
        assert set(entry) == fields
        assert entry["answer_type"] in ("yes/no", "number", "other")
        assert [answer["answer_id"] for answer in entry["answers"]] == list(range(1, 11))
        assert {answer["answer_confidence"] for answer in entry["answers"]} <= {"yes", "maybe", "no"}
        given = [answer["answer"] for answer in entry["answers"]]
        assert given.count(entry["multiple_choice_answer"]) == max(map(given.count, given))


def test_some_annotators_disagree(built):
    annotations = read(built / "raw/vqa/v2_mscoco_train2014_annotations.json")["annotations"]
    split = [entry for entry in annotations if len({answer["answer"] for answer in entry["answers"]}) > 1]
    assert 0.2 < len(split) / len(annotations) < 0.5


def test_test_dev_is_a_part_of_test(built):
    paths = [built / f"raw/vqa/v2_OpenEnded_mscoco_{year}_questions.json" for year in ("test2015", "test-dev2015")]
    whole, part = ({entry["question_id"] for entry in read(path)["questions"]} for path in paths)
    assert part < whole and part


@pytest.mark.parametrize("split", ["train", "val", "testdev"])
def test_gqa_files_have_the_official_fields(built, split):
    root = built / "raw/gqa"
    entries = read(root / f"{split}_balanced_questions.json")
    assert entries
    for question_id, entry in entries.items():
        fields = {
            *("semantic", "entailed", "equivalent", "question", "imageId", "isBalanced", "groups", "answer"),
            *("semanticStr", "annotations", "types", "fullAnswer"),
        }
        assert set(entry) == fields
        assert question_id.isdecimal() and (root / "images" / f"{entry['imageId']}.jpg").is_file()
        assert entry["isBalanced"] is True and entry["equivalent"] == [question_id]
        assert entry["types"]["structural"] in ("query", "verify", "choose", "logical", "compare")
        assert entry["types"]["semantic"] in ("attr", "obj", "rel", "cat", "global")
        assert set(entry["groups"]) == {"global", "local"}
        assert all(set(step) == {"operation", "dependencies", "argument"} for step in entry["semantic"])
        assert entry["semanticStr"].count("->") == len(entry["semantic"]) - 1


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_snli_ve_files_are_ofas_tsv(built, split):
    for line in (built / f"raw/snli_ve/snli_ve_{split}.tsv").read_text(encoding="utf-8").splitlines():
        uniq_id, image_id, image, hypothesis, caption, label = line.split("\t")
        assert uniq_id.startswith(f"{image_id}.jpg#") and uniq_id[-1] == label[0]
        assert label in ("entailment", "neutral", "contradiction")
        assert hypothesis and caption
        with Image.open(io.BytesIO(base64.b64decode(image, validate=True))) as picture:
            assert picture.size == (SIZE, SIZE)


def test_no_picture_is_in_two_splits(built):
    # The files hold pictures, not scenes; that `scenes`, their source, shares no content is promised elsewhere.
    folders = [built / "raw/vqa" / year for year in ("train2014", "val2014", "test2015")]
    found = [{path.read_bytes() for path in folder.iterdir()} for folder in folders]
    assert [len(pictures) for pictures in found] == list(PICTURES.values())
    assert len(set.union(*found)) == sum(PICTURES.values())
    assert len({scene for split, count in PICTURES.items() for scene in scenes(split, count)}) == sum(PICTURES.values())


def test_a_place_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/world' cannot be made .Not a directory.: choose another"):
        build(str(tmp_path / "file" / "world"))
