"""Files are whole or not there, whatever happens while they are written."""

import json
from pathlib import Path

import pytest

from dvp.errors import UserError
from dvp.files import is_published, require_writable, write_json, write_whole


def fill(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "a").write_text(text)


def test_a_file_and_a_folder_replace_what_was_there(tmp_path: Path) -> None:
    for content in ({"a": 1}, [2]):
        write_json(tmp_path / "new" / "x.json", content)
        assert json.loads((tmp_path / "new" / "x.json").read_text()) == content
        write_whole(tmp_path / "folder", lambda place, text=str(content): fill(place, text))
        assert (tmp_path / "folder" / "a").read_text() == str(content)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "folder", "new", "x.json"]


@pytest.mark.parametrize("old", [None, "old"])
@pytest.mark.parametrize(
    "error, seen", [(OSError(28, "No space left on device"), UserError), (KeyError("x"), KeyError)]
)
def test_a_failure_leaves_the_old_and_nothing_else(old, error, seen, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    if old:
        path.write_text(old)

    def fail(place: Path) -> None:
        place.write_text("half")
        raise error

    with pytest.raises(seen):
        write_whole(path, fail)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == ([("x.json", "old")] if old else [])


def test_what_json_cannot_hold_is_not_half_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"a": 1, "b": object()})
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    require_writable(tmp_path / "new" / "folder")
    for write in (require_writable, lambda path: write_json(path / "x.json", 1)):
        with pytest.raises(UserError, match="file"):
            write(tmp_path / "file")


def test_a_published_checkpoint_is_a_file_and_ours_a_folder(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").mkdir()
    (tmp_path / "theirs.ckpt").touch()
    places = ("theirs.ckpt", "last.ckpt", "missing.ckpt")
    assert [is_published(str(tmp_path / place)) for place in places] == [True, False, False]
    assert not is_published("") and not is_published(None)
