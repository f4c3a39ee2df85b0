"""Names in raw data lead nowhere but to the folder of raw pictures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dvp.prepare.custom as custom
import dvp.prepare.custom_row as custom_row
import dvp.prepare.gqa as gqa
import dvp.prepare.scienceqa as scienceqa
from dvp.errors import UserError
from dvp.prepare import convert


def write_sqa(root: Path, pid: str) -> Path:
    """A problem per split, that of train with this id."""
    pids = {"train": [pid], "val": ["v"], "test": ["t"]}
    texts = dict.fromkeys(("question", "hint", "lecture", "solution", "subject", "grade"), "text")
    problem = texts | {"choices": ["a", "b"], "answer": 0, "image": "image.png"}
    root.mkdir(parents=True)
    content = {"problems": {one: problem for (one,) in pids.values()}, "pid_splits": pids, "captions": {"captions": {}}}
    for name, value in content.items():
        (root / f"{name}.json").write_text(json.dumps(value))
    return root


@pytest.fixture
def secret(tmp_path: Path, make_image: Callable[..., bytes]) -> Path:
    """A picture beside the raw folder, under the names that pictures have."""
    for name in ("secret.jpg", "secret/image.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(make_image(99))
    return tmp_path / "secret"


def point_gqa_to(raw: Path, name: str, edit_json: Callable[..., None]) -> None:
    def change(entries: dict[str, Any]) -> dict[str, Any]:
        return entries | {"17": entries["17"] | {"imageId": name}}

    edit_json(raw / "val_balanced_questions.json", change)


OUT = ["../../secret", "{absolute}", "a/../../../secret", "..", ".", "", "n1/", "x\0y", "n" * 5000]


@pytest.mark.parametrize("name", OUT)
def test_a_path_for_an_image_id_of_gqa_is_refused_with_its_question(
    name: str, make_raw: Callable[..., Path], edit_json: Callable[..., None], secret: Path, tmp_path: Path
) -> None:
    raw = make_raw("gqa")
    point_gqa_to(raw, name.format(absolute=secret), edit_json)
    with pytest.raises(UserError, match="val_balanced_questions.json: question '17': the imageId .* plain name"):
        convert("gqa", str(raw), str(tmp_path / "out"))
    assert not list((tmp_path / "out").iterdir())


def test_without_that_the_secret_is_read(
    make_raw: Callable[..., Path], edit_json: Callable[..., None], read_rows: Callable[..., list], secret: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(gqa, "file_name", lambda name, *where: name)
    raw = make_raw("gqa")
    point_gqa_to(raw, "../../secret", edit_json)
    convert("gqa", str(raw), str(tmp_path / "out"))
    stolen = [row["image"] for row in read_rows(tmp_path / "out/gqa_val.arrow")]
    assert secret.with_suffix(".jpg").read_bytes() in stolen


@pytest.mark.parametrize("pid", ["../../../secret", "{absolute}", ".."])
@pytest.mark.parametrize("guard", [True, False])
def test_a_path_for_an_id_of_scienceqa_is_refused(
    pid: str, guard: bool, read_rows: Callable[..., list], secret: Path, tmp_path: Path, make_image: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    raw = write_sqa(tmp_path / "raw", pid.format(absolute=secret))
    for place in ("train", "val/v", "test/t", ""):
        (raw / "images" / place).mkdir(parents=True, exist_ok=True)
        (raw / "images" / place / "image.png").write_bytes(make_image(1))
    if guard:
        with pytest.raises(UserError, match="pid_splits.json, train: the id .* is not a plain name"):
            convert("scienceqa", str(raw), str(tmp_path / "out"))
        return
    monkeypatch.setattr(scienceqa, "file_name", lambda name, *where: name)
    convert("scienceqa", str(raw), str(tmp_path / "out"))
    (row,) = read_rows(tmp_path / "out/scienceqa_train.arrow")
    assert row["image"] == (make_image(1) if pid == ".." else secret.with_suffix(".jpg").read_bytes())


LINKS = {"gqa": "images/3.jpg", "vqa": "val2014/COCO_val2014_000000000012.jpg"}


@pytest.mark.parametrize("task", LINKS)
@pytest.mark.parametrize("to", ["../../secret.jpg", "{absolute}.jpg", "../outside.jpg"])
def test_a_link_out_of_the_folder_of_pictures_is_refused(
    task: str, to: str, make_raw: Callable[..., Path], secret: Path, tmp_path: Path, make_image: Callable[..., bytes]
) -> None:
    raw = make_raw(task)
    (raw / "outside.jpg").write_bytes(make_image(98))
    path = raw / LINKS[task]
    path.unlink()
    path.symlink_to(to.format(absolute=secret))
    with pytest.raises(UserError, match=f"{path.name} is a link to .*, out of .*: put the picture itself there"):
        convert(task, str(raw), str(tmp_path / "out"))


@pytest.mark.parametrize("task", LINKS)
def test_without_that_the_link_is_followed(
    task: str, make_raw: Callable[..., Path], read_rows: Callable[..., list], secret: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(f"dvp.prepare.{task}.inside", Path.joinpath)
    path = make_raw(task) / LINKS[task]
    path.unlink()
    path.symlink_to(secret.with_suffix(".jpg"))
    convert(task, str(tmp_path / "raw"), str(tmp_path / "out"))
    stolen = [row["image"] for table in (tmp_path / "out").glob("*val.arrow") for row in read_rows(table)]
    assert secret.with_suffix(".jpg").read_bytes() in stolen


@pytest.mark.parametrize("guarded", [True, False])
def test_a_problem_whose_folder_is_a_link_out_is_refused(
    guarded: bool, secret: Path, tmp_path: Path, read_rows: Callable[..., list], make_image: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    raw = write_sqa(tmp_path / "raw", "p")
    for place in ("train", "val/v", "test/t"):
        (raw / "images" / place).mkdir(parents=True)
    for place in ("val/v", "test/t"):
        (raw / "images" / place / "image.png").write_bytes(make_image(1))
    (raw / "images" / "train" / "p").symlink_to(secret)
    if guarded:
        with pytest.raises(UserError, match="p/image.png is a link to .*secret/image.png, out of"):
            convert("scienceqa", str(raw), str(tmp_path / "out"))
        return
    monkeypatch.setattr(scienceqa, "inside", Path.joinpath)
    convert("scienceqa", str(raw), str(tmp_path / "out"))
    (row,) = read_rows(tmp_path / "out/scienceqa_train.arrow")
    assert row["image"] == (secret / "image.png").read_bytes()


@pytest.mark.parametrize("guarded", [True, False])
def test_a_path_for_a_picture_of_ones_own_data_is_refused(
    guarded: bool, secret: Path, tmp_path: Path, read_rows: Callable[..., list], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"image": "../secret.jpg", "question": "What?", "answer": answer, "split": "train"} for answer in "ab"]
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    if guarded:
        with pytest.raises(UserError, match="'../secret.jpg' leaves the folder"):
            convert("custom", str(tmp_path / "raw"), str(tmp_path / "out"))
        return
    monkeypatch.setattr(custom_row, "_inside", lambda content: None)
    convert("custom", str(tmp_path / "raw"), str(tmp_path / "out"))
    stolen = [row["image"] for row in read_rows(tmp_path / "out/custom_train.arrow")]
    assert secret.with_suffix(".jpg").read_bytes() in stolen


@pytest.mark.parametrize("image", ["a.jpg", "images/a.jpg", "images/more/a.jpg"])
@pytest.mark.parametrize("guarded", [True, False])
def test_a_link_out_of_ones_own_data_is_refused(
    image: str, guarded: bool, secret: Path, tmp_path: Path, read_rows: Callable[..., list],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    rows = [{"image": image, "question": "What?", "answer": answer, "split": "train"} for answer in "ab"]
    path = tmp_path / "raw" / image
    path.parent.mkdir(parents=True)
    path.symlink_to(secret.with_suffix(".jpg"))
    (tmp_path / "raw" / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    if guarded:
        with pytest.raises(
            UserError, match="line 1, image: .*a.jpg is a link to .*, out of .*: put the picture itself"
        ):
            convert("custom", str(tmp_path / "raw"), str(tmp_path / "out"))
        return
    monkeypatch.setattr(custom, "inside", Path.joinpath)
    convert("custom", str(tmp_path / "raw"), str(tmp_path / "out"))
    stolen = [row["image"] for row in read_rows(tmp_path / "out/custom_train.arrow")]
    assert secret.with_suffix(".jpg").read_bytes() in stolen


def test_the_folder_of_ones_own_pictures_may_be_a_link(secret: Path, tmp_path: Path) -> None:
    rows = [{"image": "images/image.png", "question": "What?", "answer": word, "split": "train"} for word in "ab"]
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "images").symlink_to(secret)
    (tmp_path / "raw" / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    convert("custom", str(tmp_path / "raw"), str(tmp_path / "out"))


def test_the_folder_itself_may_be_a_link_and_pictures_links_within_it(
    make_raw: Callable[..., Path], tmp_path: Path, read_rows: Callable[..., list]
) -> None:
    raw = make_raw("gqa")
    (raw / "images").rename(tmp_path / "elsewhere")
    (raw / "images").symlink_to(tmp_path / "elsewhere")
    (raw / "images" / "3.jpg").rename(raw / "images" / "three.jpg")
    (raw / "images" / "3.jpg").symlink_to("three.jpg")
    convert("gqa", str(raw), str(tmp_path / "out"))
    assert len(read_rows(tmp_path / "out/gqa_val.arrow")) == 1
