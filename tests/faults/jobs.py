"""Commands that go on where they were killed without being told so: encode, convert, a test, answers to a file."""

import json
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from faults.trials import EXPERIMENTS, Kill, arm, forked, once, say
from tiny_world import SENTENCES, picture

from dvp.data import token_cache

SPLITS = ("train", "val", "testdev")  # of GQA's raw files
SHARD_BYTES = 2000  # four pictures' tokens


class Job(NamedTuple):
    """A command and the folder that its files lie in: what is there before, and what has to be there at the end.

    words: what is typed, by the folder. steps: about so many that change files. read: what of the folder is compared.
    """

    before: Path
    words: Callable[[Path], list[str]]
    steps: dict[str, int]  # by what of a Kill
    read: Callable[[Path], dict[str, Any]]

    def run(self, place: Path, kill: Kill | None = None, off: Callable[[], Any] = lambda: None) -> bool:
        """Whether the command was killed. Raises AssertionError where it fails."""

        def call() -> None:
            token_cache.SHARD_BYTES = SHARD_BYTES
            off()
            if kill:
                arm(kill, place)
            say(*self.words(place))

        said = place.with_suffix(".txt")
        code = forked(call, said)
        assert code == 0 or kill and code == -signal.SIGKILL, f"exit code {code}: {said.read_text()[-3000:]}"
        return code != 0

    def to_the_end(self, place: Path, kills: Sequence[Kill], **off: Callable[[], Any]) -> int:
        """How often it was killed before it came to its end, in a new `place`."""
        shutil.copytree(self.before, place)
        died = 0
        while self.run(place, kills[died] if died < len(kills) else None, **off):
            died += 1
        return died


def make_jobs(world: dict[str, Any], folder: Path) -> dict[str, Job]:
    """The jobs on a world of `make_world`, by name; what they need is written into `folder`."""
    name, nothing = EXPERIMENTS["training"], folder / "nothing"
    nothing.mkdir(parents=True)
    once("training", world | {"max_epoch": 1, "val_check_interval": 1.0}, folder / "trained")
    last = next((folder / "trained").rglob("last.ckpt"))
    tables = Path(shutil.copytree(world["data_root"], folder / "tables"))
    on_it = {key: world[key] for key in ("tokenizer", "clip_model", "image_size", "num_gpus", "num_workers")}

    def words(*first: str, **settings: Any) -> list[str]:
        return [*first, *(f"{key}={value}" for key, value in settings.items())]

    def test(place: Path, split: str = "test") -> list[str]:
        return words("with", name, **world, test_only=True, load_path=last, log_dir=place, test_split=split)

    tested = Path(shutil.copytree(nothing, folder / "tested"))
    assert not forked(lambda: say(*test(tested, "test-dev")), folder / "said.txt")

    for order in (1, -1):
        _write_gqa(folder / f"raw{order}", ["red", "blue", "green"][::order])
    made = ("convert", "with", *words(datasets="gqa", raw_root=folder / "raw1", data_root=folder / "converted"))
    assert not forked(lambda: say(*made), folder / "said.txt")

    (folder / "1.png").write_bytes(picture(1))
    asked = [{"image": "1.png", "question": question} for question in SENTENCES * 2]
    (folder / "asked.jsonl").write_text("\n".join(map(json.dumps, asked)))
    ask = {"load_path": last, "ask_from": folder / "asked.jsonl", "per_gpu_batchsize": 3, "num_gpus": 0}
    return {
        "encode": Job(
            tables,
            lambda place: words("encode", "with", name, **on_it, per_gpu_batchsize=2, data_root=place),
            {"writes": 60},
            _read_cache,
        ),
        "convert": Job(
            folder / "converted",
            lambda place: words("convert", "with", datasets="gqa", raw_root=folder / "raw-1", data_root=place),
            {"writes": 45},
            read_files,
        ),
        "test": Job(tested, test, {"writes": 80}, read_answers),
        "predict": Job(
            nothing,
            lambda place: words("predict", "with", **ask, to=place / "answers.jsonl"),
            {"writes": 6, "answers": 4},
            read_files,
        ),
    }


def read_files(place: Path) -> dict[str, bytes]:
    """All files under a folder, hidden ones too, as they would be in any other folder."""
    found = {str(path.relative_to(place)): path for path in place.rglob("*")}
    return {name: path.read_bytes().replace(str(place).encode(), b"") if path.is_file() else b""
            for name, path in found.items()}  # fmt: skip


def read_answers(place: Path) -> dict[str, bytes]:
    """The files of answers in a log_dir, and what is left of making them; not those of its runs."""
    runs = ("sacred", f"{EXPERIMENTS['training']}_seed0", "compiled")
    return {name: data for name, data in read_files(place).items() if not name.startswith(runs)}


def _read_cache(place: Path) -> dict[str, Any]:
    """The image tokens in a data_root, shard by shard, whose names tell when they were made, and all other files."""
    files = {name: data for name, data in read_files(place).items() if not name.endswith("/lock")}
    listings = [name for name in files if name.endswith(".shard.json")]
    shards = [(files.pop(name), files.pop(name.replace(".shard.json", ".tokens"))) for name in listings]
    return files | {"shards": sorted(shards)}


def _write_gqa(raw: Path, answers: list[str]) -> None:
    (raw / "images").mkdir(parents=True)
    for split in SPLITS:
        rows = {f"{split}{n}": {"imageId": "1", "question": "What?", "answer": one} for n, one in enumerate(answers)}
        (raw / f"{split}_balanced_questions.json").write_text(json.dumps(rows))
    (raw / "images" / "1.jpg").write_bytes(picture(1))
