"""Raw files that are hostile or odd: a conversion holds what a plain reading of them says, or is refused."""

import base64
import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from faults.plain_reading import SETS, NotSound, gqa_files
from hostile import PICTURES, cases, taken_or_refused
from hypothesis import given
from hypothesis import strategies as st
from tiny_world import picture

from dvp.errors import UserError
from dvp.images import open_image
from dvp.prepare import convert

PICTURE = picture(1)
DEEP = "@deep@"  # stands for 100,000 brackets
ODD = [
    None, True, 0, -1, 2**63, 2**70, 1.5, float("nan"), "", " ", "\0", "é", "\u202e", "\ud800", "a\udfff", "1", "Yes.",
    "two words", "\t", "a\nb", "x" * 10_000, "../../secret", "/etc/passwd", "a/b", "..", [], {}, [1], ["1"], {"a": 1},
    DEEP,
]  # fmt: skip
VALUES = st.sampled_from(ODD) | st.text(max_size=6) | st.integers(-3, 30)


# Odd files


@st.composite
def spoilt(draw: Callable[..., Any], task: str) -> dict[str, bytes]:
    """The files of a data set, of which one or two values or names are odd, or one file is damaged or marked."""
    files = json.loads(json.dumps(SETS[task][0]()))  # of which no part stands in two places
    for _ in range(draw(st.integers(0, 2))):
        where: Any = files[draw(st.sampled_from(sorted(files)))]
        while inner := [value for value in values(where) if isinstance(value, dict | list) and value]:
            if draw(st.integers(0, 3)) == 0:
                break
            where = draw(st.sampled_from(inner))
        if not where:
            continue
        key = draw(st.sampled_from(list(where) if isinstance(where, dict) else range(len(where))))
        way = draw(st.sampled_from(["value", "value", "value", "gone", "again", "name"]))
        if way == "value":
            where[key] = copy.deepcopy(draw(VALUES))
        elif way == "gone":
            del where[key]
        elif isinstance(where, list):
            where.append(where[key])
        else:
            new = str(draw(VALUES))
            where[new] = where[key] if way == "again" else where.pop(key)
    data = {file: json.dumps(content).encode().replace(f'"{DEEP}"'.encode(), b"[" * 100_000 + b"]" * 100_000)
            for file, content in files.items()}  # fmt: skip
    file, way = draw(st.sampled_from(sorted(data))), draw(st.sampled_from([None] * 5 + list(DAMAGE)))
    if way:
        data[file] = DAMAGE[way](data[file], draw(st.floats(0, 1, exclude_max=True)))
    return data


def flipped(data: bytes, at: float) -> bytes:
    place = int(at * len(data))
    return data[:place] + bytes([data[place] ^ 1 << int(at * 1000) % 8]) + data[place + 1 :]


DAMAGE: dict[str, Callable[[bytes, float], bytes]] = {
    "mark": lambda data, at: b"\xef\xbb\xbf" + data,
    "cut": lambda data, at: data[: int(at * len(data))],
    "flip": flipped,
    "utf-16": lambda data, at: data.decode().encode("utf-16"),
    "more": lambda data, at: data + b' {"a": 1}',
    "spaces": lambda data, at: b" \n" + data + b"\n\n",
}


def values(content: dict | list) -> list[Any]:
    return list(content.values() if isinstance(content, dict) else content)


def plainly(task: str, data: dict[str, bytes]) -> dict[str, list[dict[str, Any]]] | None:
    """What a plain reading makes of the files; None where that makes no sense."""
    try:
        return SETS[task][2]({file: json.loads(one.decode("utf-8-sig")) for file, one in data.items()})
    except (NotSound, ValueError, RecursionError):
        return None


@pytest.fixture(scope="module")
def converted(
    place: Path, monkeypatch_module: pytest.MonkeyPatch
) -> Callable[..., dict[str, list[dict[str, Any]]] | None]:
    """What a conversion of these files makes: the rows of each table, or None where it was refused and left nothing."""
    monkeypatch_module.setattr("os.fsync", lambda file: None)
    monkeypatch_module.setattr("dvp.prepare.print", lambda account: None, raising=False)

    def make(task: str, files: dict[str, bytes], **options: Any) -> dict[str, list[dict[str, Any]]] | None:
        raw, out = place / "raw", place / "out"
        for folder in (raw, out):
            shutil.rmtree(folder, ignore_errors=True)
        for file, data in files.items():
            (raw / file).parent.mkdir(parents=True, exist_ok=True)
            (raw / file).write_bytes(data)
        if taken_or_refused(lambda: [convert(task, str(raw), str(out), **options)], str(raw)) is None:
            assert not out.exists() or not list(out.iterdir())
            return None
        return {path.stem: pa.ipc.open_file(path).read_all().to_pylist() for path in out.glob("*.arrow")}

    return make


@pytest.fixture(scope="module")
def monkeypatch_module() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.mark.parametrize("task", SETS)
def test_json_is_converted_as_a_plain_reading_has_it_or_refused(task: str, converted) -> None:
    _, pictures, _, options = SETS[task]

    @cases(150)
    @given(data=spoilt(task))
    def check(data: dict[str, bytes]) -> None:
        expected = plainly(task, data)
        found = converted(task, data | dict.fromkeys(pictures, PICTURE), **options)
        if found is not None:
            for rows in found.values():
                for row in rows:
                    assert row.pop("image") in (PICTURE, b"")
                    row.pop("split", None)
        assert found == expected

    check()


LABELS = ("contradiction", "neutral", "entailment")
CELLS = st.sampled_from([str(one) for one in ODD] + [*LABELS, base64.b64encode(PICTURE).decode()]) | st.text(max_size=5)


@cases(150)
@given(
    changes=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6), CELLS), max_size=3),
    damage=st.sampled_from([None] * 5 + list(DAMAGE)), at=st.floats(0, 1, exclude_max=True),
)  # fmt: skip
def test_tsv_is_converted_as_a_plain_reading_has_it_or_refused(changes, damage, at: float, converted) -> None:
    rows = [
        [f"{n}.jpg", str(n % 2), base64.b64encode(PICTURE).decode(), f"it is {n}", "", LABELS[n % 3]] for n in range(4)
    ]
    for row, column, cell in changes:
        rows[row][column : column + 1] = [cell]
    sound = "\n".join("\t".join(row) for row in rows).encode("utf-8", "surrogatepass")
    data = DAMAGE[damage](sound, at) if damage else sound
    found = converted("snli_ve", {f"snli_ve_{split}.tsv": data for split in ("train", "dev", "test")})
    expected = tsv_rows(data)
    assert (found is None) == (expected is None)
    if found:
        assert list(found.values()) == [expected] * 3


def tsv_rows(data: bytes) -> list[dict[str, Any]] | None:
    try:
        lines = [line.decode("utf-8").rstrip("\r\n").split("\t") for line in data.split(b"\n") if line.strip()]
    except UnicodeDecodeError:
        return None
    images: dict[int, dict[str, Any]] = {}
    for place, line in enumerate(lines):
        if place == 0:
            line[0] = line[0].removeprefix("\ufeff")
        if len(line) != 6 or not line[1].isdecimal() or int(line[1]) >= 2**63 or line[5] not in LABELS:
            return None
        row = images.setdefault(
            int(line[1]), {"image": line[2], "questions": [], "answers": [], "identifier": int(line[1])}
        )
        row["questions"].append(line[3])
        row["answers"].append(line[5])
    try:
        for row in images.values():
            row["image"] = base64.b64decode(row["image"], validate=True)
            open_image(row["image"], "in a row")
    except (ValueError, UserError):
        return None
    return [images[key] for key in sorted(images)] or None


@cases(150)
@given(data=PICTURES)
def test_a_picture_is_taken_byte_by_byte_or_refused(data: bytes, converted) -> None:
    files = {file: json.dumps(content).encode() for file, content in gqa_files().items()}
    found = converted("gqa", files | {"images/1.jpg": data})
    try:
        open_image(data, "in a row")
    except UserError:
        assert found is None
    else:
        assert {row["image"] for rows in found.values() for row in rows} == {data}
