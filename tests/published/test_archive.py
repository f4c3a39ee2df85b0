"""Files of torch.save: every tensor as it was, and nothing run, whatever they hold."""

import functools
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_file import write_lightning
from torch import Tensor

from dvp.errors import UserError
from dvp.published.archive import DTYPES, Archive, Reader

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older"])


def save(content: Any, path: Path, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


@FORMATS
@pytest.mark.parametrize("dtype", [dtype for kind, dtype in DTYPES.items() if kind != "UntypedStorage"], ids=str)
def test_numbers_of_every_type_are_those_that_were_saved(dtype: torch.dtype, zipped: bool, tmp_path: Path) -> None:
    values = torch.arange(24).reshape(2, 3, 4).to(dtype)
    state = {
        "whole": values, "turned": values.permute(2, 0, 1), "part": values[1, 1:, ::2], "number": values[1, 2, 3],
        "none": values[:, :0], "spread": values[0, 0, :1].expand(5),
    }  # fmt: skip
    archive = Archive(save({"tensors": state}, tmp_path / "file", zipped))
    read = archive.tensors(archive.content["tensors"])
    assert read.keys() == state.keys()
    for name, tensor in state.items():
        assert read[name].dtype == dtype and torch.equal(read[name], tensor), name


@FORMATS
def test_parameters_are_tensors_and_shared_ones_stay_so(zipped: bool, tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.randn(4, 3))
    state = OrderedDict(one=weight, two=weight, row=weight.detach()[2], pad=torch.zeros(1, dtype=torch.uint8))
    archive = Archive(save(state, tmp_path / "file", zipped))
    read = archive.tensors(archive.content)
    assert torch.equal(read["one"], weight) and not read["one"].requires_grad
    read["one"][2] = 7.0
    assert torch.equal(read["two"], read["one"]) and torch.equal(read["row"], torch.full((3,), 7.0))
    again = Archive(tmp_path / "file")
    assert torch.equal(again.tensors(again.content)["one"], weight)  # what was changed is not the file


def test_what_is_not_asked_for_is_not_read(tmp_path: Path) -> None:
    """A tensor that points beyond its storage hurts only where it is wanted."""
    path = save({"good": torch.ones(2), "bad": Call(torch._utils._rebuild_tensor_v2, *beyond(9))}, tmp_path / "file")
    archive = Archive(path)
    assert torch.equal(archive.tensors({"good": archive.content["good"]})["good"], torch.ones(2))
    assert archive.tensors({"good": archive.content["good"], "step": 3}) is None


# Files made to do harm


class Call:
    """Pickles as the call of a function, which unpickling would make."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None):
        self.function, self.arguments, self.state = function, arguments, state

    def __reduce__(self) -> tuple:
        return (self.function, self.arguments) + ((self.state,) if self.state is not None else ())


def beyond(count: int, stride: int = 1, first: int = 0) -> tuple:
    return torch.ones(4).storage(), first, (count,), (stride,), False, OrderedDict()


def touch(flag: Path) -> Call:
    return Call(os.system, f"touch {flag}")


HOSTILE: dict[str, Callable[[Path], Any]] = {
    "a call": touch,
    "in a list": lambda flag: [1, [touch(flag)]],
    "as a key's value": lambda flag: {"deep": {"deeper": touch(flag)}},
    "a call of what a call gave": lambda flag: Call(functools.partial(os.system, f"touch {flag}")),
    "exec": lambda flag: Call(exec, f"open({str(flag)!r}, 'w')"),
    "eval": lambda flag: Call(eval, f"open({str(flag)!r}, 'w')"),
    "open": lambda flag: Call(open, str(flag), "w"),
    "an attribute of an attribute": lambda flag: Call(getattr(Path, "touch"), Call(Path, str(flag))),  # noqa: B009
    "in a tensor's hooks": lambda flag: Call(torch._utils._rebuild_tensor_v2, *beyond(4)[:5], touch(flag)),
    "as a tensor's state": lambda flag: Call(torch._utils._rebuild_tensor_v2, *beyond(4), state=(touch(flag),) * 4),
    "as an ordered dict's state": lambda flag: Call(OrderedDict, state={"keys": touch(flag)}),
}


@FORMATS
@pytest.mark.parametrize("kind", HOSTILE)
def test_nothing_is_run(kind: str, zipped: bool, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    path = save({"harm": HOSTILE[kind](flag), "state_dict": {"weight": torch.ones(2)}}, tmp_path / "file", zipped)
    try:
        torch.load(path, weights_only=False)
    except Exception as error:  # it was run before it failed
        print(error)
    assert flag.exists()
    flag.unlink()
    archive = Archive(path)
    assert torch.equal(archive.tensors(archive.content["state_dict"])["weight"], torch.ones(2))
    assert archive.tensors({"harm": archive.content["harm"]}) is None or "tensor" in kind
    assert not flag.exists()


@pytest.mark.parametrize("place", range(5))
def test_no_pickle_of_the_older_format_is_run(place: int, tmp_path: Path) -> None:
    flag, whole = tmp_path / "flag", save({"weight": torch.ones(2)}, tmp_path / "file", zipped=False).read_bytes()
    stream, ends = io.BytesIO(whole), [0]
    for _ in range(5):
        Reader(stream).load()
        ends.append(stream.tell())
    harm = pickle.dumps(touch(flag), protocol=2)
    (tmp_path / "file").write_bytes(whole[: ends[place]] + harm + whole[ends[place + 1] :])
    try:
        content = Archive(tmp_path / "file").content
        assert place in (1, 2) and content  # version and sizes are not looked at
    except UserError:
        assert place in (0, 3, 4)
    assert not flag.exists()


LIES = {
    "too many": beyond(5), "too far apart": beyond(4, 2), "before it": beyond(4, 1, -1), "behind it": beyond(1, 1, 4),
    "less than none": beyond(-1), "backwards": beyond(2, -1, 3),
    "no number": (*beyond(4)[:2], ("a",), (1,), False, None),
    "no storage": ("storage", *beyond(4)[1:]), "unequal": (*beyond(4)[:3], (1, 1), False, None),
}  # fmt: skip


@FORMATS
@pytest.mark.parametrize("lie", LIES)
def test_a_tensor_beyond_its_storage_is_refused(lie: str, zipped: bool, tmp_path: Path) -> None:
    lying = {"near": torch.arange(9.0), "it": Call(torch._utils._rebuild_tensor_v2, *LIES[lie])}
    archive = Archive(save(lying, tmp_path / "file", zipped))
    with pytest.raises(UserError, match="damaged"):
        archive.tensors(archive.content)


@FORMATS
def test_a_file_cut_off_anywhere_is_refused(zipped: bool, tmp_path: Path) -> None:
    path = Path(write_lightning(tmp_path / "file", {"weight": torch.ones(50)}, {"num_heads": 4}, zipped=zipped))
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="damaged"):
            Archive(path)


def test_an_archive_that_is_packed_is_refused(tmp_path: Path) -> None:
    path = save({"weight": torch.zeros(1 << 16)}, tmp_path / "file")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "packed", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(UserError, match="compressed"):
        Archive(tmp_path / "packed")


def test_only_torch_is_made_and_only_what_is_known(tmp_path: Path) -> None:
    """The name of what was left out is kept."""
    path = Path(write_lightning(tmp_path / "file", {}, {"search_stage": True}))
    content = Archive(path).content
    (callback,) = content["callbacks"]
    assert callback.name == "gone_lightning.ModelCheckpoint"
    mini_val = content["hyper_parameters"]["minival"]
    assert mini_val.name == "gone_dvp.MiniVal" and mini_val.state["rows"][0]["text"] == "is it red"
    assert not isinstance(mini_val.state["table"], Tensor)


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="cannot be read"):
            Archive(path)
