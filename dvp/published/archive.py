"""Files of torch.save, read without running anything that they hold.

A pickle may name any function of any package and have it called. Here nothing is imported and nothing called: tensors
become notes of where they lie, OrderedDict a dict, and whatever else is named a Stub. The tensors that are asked for
are then mapped from the file.

Both formats of torch 1.x are read. A zip archive holds `<any>/data.pkl` and `<any>/data/<key>`, the storages, stored as
they are. The older format is five pickles (a magic number, a version, the system, the content, the storages' keys) and
the storages one after another, each behind its length.
"""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from dvp.errors import UserError

DTYPES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128, "UntypedStorage": torch.uint8,
}  # fmt: skip
# What a file that is damaged, or made to do harm, may raise; pickle's manual names most of it.
DAMAGE = (pickle.UnpicklingError, zipfile.BadZipFile, EOFError, LookupError, TypeError, ValueError, AttributeError)
DAMAGE += (RuntimeError, ArithmeticError, MemoryError)


class Inert:
    """Takes up what a pickle gives it, and does nothing."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Stub(Inert):
    """Stands for a class, a function or what came of one, by its name: what it was given, and nothing that runs."""

    name = ""  # package.module.name

    def __new__(cls, *arguments: Any, **named: Any) -> "Stub":
        stub = super().__new__(cls)
        stub.arguments, stub.named, stub.entries, stub.pairs = arguments, named, [], {}
        return stub

    def __call__(self, *arguments: Any, **named: Any) -> "Stub":
        return Stub(self, *arguments, **named)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.pairs[key] = value

    def append(self, value: Any) -> None:
        self.entries.append(value)

    def extend(self, values: list[Any]) -> None:
        self.entries.extend(values)

    add = append


class Dictionary(Inert, dict):
    """An OrderedDict, apart from its attributes."""


class Storage(NamedTuple):
    """A stretch of values in a file, by its name there; `first` is where a view of an old file begins."""

    name: str
    dtype: torch.dtype
    count: int
    first: int = 0


class StoredTensor(Inert):
    """Which values of a storage a tensor has."""

    def __new__(cls, storage: Storage, offset: int, size: tuple, stride: tuple, *others: Any) -> "StoredTensor":
        stored = super().__new__(cls)
        stored.storage, stored.offset, stored.size, stored.stride = storage, offset, size, stride
        return stored


class StoredParameter(Inert):
    """A parameter is the tensor in it."""

    def __new__(cls, tensor: Any, *others: Any) -> Any:
        return tensor


KNOWN: dict[tuple[str, str], type] = {
    ("collections", "OrderedDict"): Dictionary,
    ("torch._utils", "_rebuild_tensor_v2"): StoredTensor,
    ("torch._utils", "_rebuild_parameter"): StoredParameter,
}


class Reader(pickle.Unpickler):
    """Unpickles into the classes above and plain Python values; `storages` are those that it met, by name."""

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> type:
        return KNOWN.get((module, name)) or type("Stub", (Stub,), {"name": f"{module}.{name}"})

    def persistent_load(self, key: Any) -> Any:
        if not isinstance(key, tuple) or key[0] != "storage":
            return Stub(key)
        _, kind, name, _, count, *view = key
        dtype = DTYPES[kind.name.rpartition(".")[2]]
        self.storages[name] = Storage(name, dtype, count)
        _, first, count = view[0] if view and view[0] else (None, 0, count)
        return Storage(name, dtype, count, first)


class Archive:
    """A file of torch.save: its `content`, tensors as notes, and `tensors` to have them."""

    def __init__(self, path: str | Path):
        """Raises UserError for a file that is none, or damaged."""
        self.path = Path(path)
        try:
            with open(path, "rb") as file:
                zipped = file.read(4) == b"PK\3\4"
                file.seek(0)
                # storages: where in the file each begins and ends
                self.content, self.storages = _read_zip(file) if zipped else _read_older(file)
            size = self.path.stat().st_size
            if max((end for _, end in self.storages.values()), default=0) > size:
                raise ValueError("it is cut off")
            self.data = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror or error}): give the path of a file.") from error
        except DAMAGE as error:
            raise self._damaged(error) from error
        self.copies: dict[Storage, Tensor] = {}

    def tensors(self, stored: Any) -> dict[str, Tensor] | None:
        """The tensors of a dictionary in the content, mapped from the file; None where it is no such dictionary.

        Raises UserError for a tensor that lies outside the file.
        """
        if not isinstance(stored, Mapping) or not all(isinstance(value, StoredTensor) for value in stored.values()):
            return None
        try:
            return {str(name): self._tensor(value) for name, value in stored.items()}
        except DAMAGE as error:
            raise self._damaged(error) from error

    def _tensor(self, stored: StoredTensor) -> Tensor:
        values = self._values(stored.storage)
        last = stored.offset + sum((n - 1) * step for n, step in zip(stored.size, stored.stride, strict=True))
        if min(stored.size, default=1) > 0 and not 0 <= stored.offset <= last < stored.storage.count:
            raise ValueError("a tensor is larger than its storage")
        return values.as_strided(stored.size, stored.stride, values.storage_offset() + stored.offset)

    def _values(self, storage: Storage) -> Tensor:
        """The values of a storage, in one dimension."""
        begin, end = self.storages[storage.name]
        begin += storage.first * storage.dtype.itemsize
        size = storage.count * storage.dtype.itemsize
        if storage.first < 0 or not 0 <= size <= end - begin:
            raise ValueError("a storage is cut off")
        if begin % storage.dtype.itemsize == 0:
            return self.data[begin : begin + size].view(storage.dtype)
        if storage not in self.copies:  # the older format aligns nothing
            self.copies[storage] = self.data[begin : begin + size].clone().view(storage.dtype)
        return self.copies[storage]

    def _damaged(self, error: Exception) -> UserError:
        return UserError(f"{self.path} is no file of torch.save, or it is damaged ({error}): copy or fetch it again.")


def _read_zip(file: BinaryIO) -> tuple[Any, dict[str, tuple[int, int]]]:
    storages = {}
    with zipfile.ZipFile(file) as archive:
        root, *_ = [name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
        for record in archive.infolist():
            if record.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{record.filename} is compressed")
            file.seek(record.header_offset)
            header = file.read(30)  # of a zip: then the name and extra fields, whose lengths it ends with, and the data
            begin = record.header_offset + 30 + sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
            storages[record.filename.removeprefix(f"{root}data/")] = (begin, begin + record.file_size)
        with archive.open(f"{root}data.pkl") as pickled:
            return Reader(pickled).load(), storages


def _read_older(file: BinaryIO) -> tuple[Any, dict[str, tuple[int, int]]]:
    if Reader(file).load() != torch.serialization.MAGIC_NUMBER:
        raise ValueError("it does not begin as one")
    Reader(file).load()  # version
    Reader(file).load()  # sizes of numbers where it was written
    reader = Reader(file)
    content = reader.load()
    storages = {}
    for name in Reader(file).load():
        begin = file.tell() + 8
        count = int.from_bytes(file.read(8), "little")
        storages[name] = (begin, begin + count * reader.storages[name].dtype.itemsize)
        file.seek(storages[name][1])
    return content, storages
