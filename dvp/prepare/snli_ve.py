"""SNLI-VE: OFA's TSV files with the images inside -> snli_ve_{train,dev,test}."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
from tqdm import tqdm

from dvp.counting import counted
from dvp.errors import UserError
from dvp.images import traits
from dvp.prepare.raw import storable
from dvp.prepare.tables import Account, Options, Tables

LABELS = ("contradiction", "neutral", "entailment")
COLUMNS = ("uniq_id", "image_id", "image", "hypothesis", "caption", "label")
URL_ALPHABET = str.maketrans("-_", "+/")
LONGEST_LINE = 2**26  # bytes; a longer one is cut and so has too few columns
SCHEMA = pa.schema(
    [
        ("image", pa.binary()),
        ("questions", pa.list_(pa.string())),
        ("answers", pa.list_(pa.string())),
        ("identifier", pa.int64()),
    ]
)


@dataclass
class _Image:
    offset: int  # of its first line, from which its bytes are read again when it is written
    line: int
    hypotheses: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)


def prepare(raw: Path, tables: Tables, options: Options) -> None:
    """Nothing; writes the three tables. The labels are fixed and the images lie in the TSV, so no option applies."""
    paths = {split: raw / f"snli_ve_{split}.tsv" for split in ("train", "dev", "test")}
    for path in paths.values():
        if not path.is_file():
            raise UserError(f"{path} is missing: download it and unpack it there, see DATA.md.")
    for split, path in paths.items():
        with open(path, "rb") as file:
            images = _read(path, file)
            count = sum(len(image.labels) for image in images.values())
            account = Account(f"snli_ve_{split}", len(images), count, count)
            tables.accounts.append(account)
            tables.write(account.table, SCHEMA, _rows(path, file, images, account))


def _read(path: Path, file: BinaryIO) -> dict[int, _Image]:
    """The hypotheses by image, whose rows may lie apart; the images themselves stay in the file."""
    images: dict[int, _Image] = {}
    offset = 0
    with tqdm(total=path.stat().st_size, desc=path.name, unit="B", unit_scale=True, disable=None) as progress:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
            offset += len(line)
            progress.update(len(line))
            if not line.strip():
                continue
            _, image_id, _, hypothesis, _, label = _columns(path, number, line)
            if label not in LABELS:
                raise UserError(
                    f"{path} line {number}: the label {label[:40]!r} is none of {', '.join(LABELS)}; download it again."
                )
            image = images.setdefault(_number(image_id, f"{path} line {number}"), _Image(offset - len(line), number))
            image.hypotheses.append(hypothesis)
            image.labels.append(label)
    if not images:
        raise UserError(f"{path} is empty: download it again, see DATA.md.")
    return images


def _rows(path: Path, file: BinaryIO, images: dict[int, _Image], account: Account) -> Iterator[dict[str, Any]]:
    for image_id, image in counted(sorted(images.items()), f"{account.table}: pictures"):
        file.seek(image.offset)
        encoded = _columns(path, image.line, file.readline(LONGEST_LINE))[COLUMNS.index("image")]
        try:
            data = base64.b64decode(_standard(encoded), validate=True)
        except ValueError as error:  # binascii.Error, and of characters beyond ASCII
            raise UserError(f"{path} line {image.line}: the image is not base64: download it again.") from error
        account.seen.update(traits(data, f"in {path} line {image.line}"))
        yield {"image": data, "questions": image.hypotheses, "answers": image.labels, "identifier": image_id}


def _number(image_id: str, where: str) -> int:
    if not image_id.isdecimal() or len(image_id) > 99:
        raise UserError(f"{where}: the image id {image_id[:40]!r} is not a number: download the file again.")
    return storable(int(image_id), "image id", where)


def _standard(encoded: str) -> str:
    """Base64 in its usual alphabet and length; OFA reads the alphabet for URLs, too, which may leave the end out."""
    return encoded.translate(URL_ALPHABET) + "=" * (-len(encoded) % 4)


def _columns(path: Path, number: int, line: bytes) -> list[str]:
    # Split by hand: the published reader took a lone quote for the start of a field, merging the rows behind it, and
    # hypotheses such as "None" for missing values.
    try:
        columns = line.rstrip(b"\r\n").decode("utf-8-sig" if number == 1 else "utf-8").split("\t")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} line {number} is not UTF-8 text: download it again, see DATA.md.") from error
    if len(columns) != len(COLUMNS):
        raise UserError(
            f"{path} line {number} has {len(columns)} columns, not {len(COLUMNS)} ({', '.join(COLUMNS)}): "
            "it is truncated or not OFA's TSV, download it again."
        )
    return columns
