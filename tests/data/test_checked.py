"""What a doctor is told of the tables: rows, bytes, pictures, vocabulary, splits."""

import shutil
from pathlib import Path

import pytest
from tiny_world import picture, rows_of, write_table

from dvp.data.checked import check_tables
from dvp.prepare import convert
from dvp.scienceqa.data import COLUMNS
from dvp.shapes import WRITERS, build
from dvp.tasks import TASKS

FEW = {"train": 24, "val": 16, "test": 16}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded world, converted, with few pictures."""
    root = tmp_path_factory.mktemp("world")
    build(str(root), pictures_per_split=FEW)
    return root


@pytest.fixture
def own(world: Path, tmp_path: Path) -> Path:
    """A copy of it to be spoilt."""
    return Path(shutil.copytree(world, tmp_path / "own", ignore=shutil.ignore_patterns("raw")))


def faults(root: Path, task: str, **options: bool) -> list[str]:
    columns = COLUMNS if task == "scienceqa" else TASKS[task].columns
    return [fault for one in check_tables(str(root), TASKS[task], columns, **options) for fault in one.faults]


@pytest.mark.parametrize("manifest", [True, False])
@pytest.mark.parametrize("task", WRITERS)
def test_sound_tables_have_rows_and_no_faults(task: str, manifest: bool, own: Path) -> None:
    files = TASKS[task].files
    if not manifest:
        (own / f"{files}_manifest.json").unlink()
    columns = COLUMNS if task == "scienceqa" else TASKS[task].columns
    *tables, together = check_tables(str(own), TASKS[task], columns)
    assert together.name == files and together.rows == sum(one.rows for one in tables)
    assert all(one.rows and one.converted == manifest and not one.faults and not one.notes for one in tables)
    assert not together.faults and not together.notes


def spoil(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data and len(old) == len(new)
    path.write_bytes(data.replace(old, new, 1))


@pytest.mark.parametrize("manifest", [True, False])
def test_damage_is_told_and_not_raised(manifest: bool, own: Path) -> None:
    path = own / "vqav2_rest_val.arrow"
    if not manifest:
        (own / "vqav2_manifest.json").unlink()
    jpeg = b"\xff\xd8\xff\xe0\x00\x10JFIF"
    spoil(path, jpeg, b"spoilt" + jpeg[6:])
    (fault,) = faults(own, "vqa")
    assert "vqav2_rest_val.arrow (row 0, image_id" in fault
    assert ("not the one that was converted" if manifest else "no picture") in fault
    assert not faults(own, "vqa", pictures=False)


def test_many_bad_pictures_are_counted(own: Path) -> None:
    (own / "gqa_manifest.json").unlink()
    rows = [row | {"image": b"no picture"} for row in rows_of("gqa", "val", images=9)]
    (own / "gqa_answers.json").unlink()
    for split in ("train", "test-dev"):
        write_table(own / f"gqa_{split}.arrow", rows_of("gqa", split))
    write_table(own / "gqa_val.arrow", rows)
    found = faults(own, "gqa")
    assert len(found) == 6 and found[-1].startswith("4 more pictures of")


def test_what_is_wrong_between_tables_is_told_under_their_common_name(own: Path) -> None:
    shutil.copy(own / "gqa_answers.json", own / "vqav2_answers.json")
    assert "vqav2_answers.json is damaged or of another conversion" in faults(own, "vqa")[-1]
    (own / "gqa_train.arrow").unlink()
    assert "gqa_train.arrow is missing" in faults(own, "gqa")[0]
    (own / "gqa_manifest.json").write_text("{")
    assert "gqa_manifest.json is damaged" in faults(own, "gqa")[0]


def test_shared_pictures_are_worth_knowing_and_no_fault(tmp_path: Path) -> None:
    for split, number in (("train", 1), ("val", 1), ("test-dev", 3)):
        row = rows_of("gqa", split)[0] | {"image": picture(number), "image_id": f"n{number}"}
        write_table(tmp_path / f"gqa_{split}.arrow", [row])
    together = check_tables(str(tmp_path), TASKS["gqa"], TASKS["gqa"].columns)[-1]
    assert not together.faults and "1 of the 1 of gqa_val" in together.notes[0]


def test_a_conversion_of_official_files_is_sound(world: Path, tmp_path: Path) -> None:
    convert("gqa", str(world / "raw" / "gqa"), str(tmp_path / "again"))
    assert not faults(tmp_path / "again", "gqa")
