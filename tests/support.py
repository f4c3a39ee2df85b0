"""Which language model works on which task with which adapters: trains each for an update on tiny models, and prints
the table of docs/own_language_model.md. python -m tests.support; some minutes. Exit code 1 if any neither works nor is
refused."""

import contextlib
import io
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}  # read at import
sys.path[1:1] = [str(Path(__file__).parent), str(Path(__file__).parent / "scienceqa")]

import sqa_worlds  # noqa: E402
import torch  # noqa: E402
from tiny_world import PIXELS, SPLITS, fit, write_clip, write_data, write_language_model  # noqa: E402

from dvp.adapters import ADAPTERS  # noqa: E402
from dvp.backbones import BACKBONES  # noqa: E402
from dvp.config import check, ex  # noqa: E402
from dvp.errors import UserError  # noqa: E402
from dvp.families import FAMILIES  # noqa: E402
from dvp.prepare import convert  # noqa: E402

TASKS = (*SPLITS, "scienceqa")
KINDS = (False, *ADAPTERS)
COMMON = {
    "num_heads": 4, "num_gpus": 0, "num_workers": 0, "batch_size": 4, "per_gpu_batchsize": 4, "max_steps": 1,
    "image_tokens": "live", "insert_layer": 1, "report": False,
}  # fmt: skip


def worlds(place: Path) -> dict[str, dict[str, Any]]:
    """By task, the settings of its tables and its image encoder."""
    data, clip, science = place / "data", place / "clip", place / "science"
    for folder in (data, science):
        folder.mkdir(parents=True)
    for task in SPLITS:
        write_data(data, task)
    write_clip(clip)
    sqa_worlds.write_raw(science, {"train": 8, "val": 2, "test": 9})
    with contextlib.redirect_stdout(io.StringIO()):
        convert("scienceqa", str(science), str(science / "arrow"))
    squeezed, _ = sqa_worlds.write_models(science)
    found = {task: {"data_root": str(data), "clip_model": str(clip), "image_size": PIXELS} for task in SPLITS}
    sizes = {"image_size": 32, "max_text_len": 600, "max_new_tokens": 2}
    return found | {"scienceqa": sizes | {"clip_model": str(squeezed), "data_root": str(science / "arrow")}}


def folders(place: Path) -> dict[str, str]:
    """By family, a tiny model with the head that it writes with, if it does."""
    for family, backbone in BACKBONES.items():
        (place / family).mkdir()
        write_language_model(place / family, family)
        if FAMILIES[family].headed:
            torch.manual_seed(0)
            config = backbone.model_class.config_class.from_pretrained(place / family)
            backbone.headed_class(config).save_pretrained(place / family)
    return {family: str(place / family) for family in BACKBONES}


def tried(family: str, task: str, kind: bool | str, settings: dict[str, Any]) -> str:
    """What became of one training: nothing to say if it worked, the sentence that refused it, or a traceback."""
    named = ex.named_configs["dvp_adaption_llama_sqa" if task == "scienceqa" else f"dvp_adaption_bert_{task}"]()
    try:
        config = ex.settings | named | COMMON | settings | {"use_adapter": kind, "language_model": family.upper()}
        fit(check(config))
    except UserError as error:
        return str(error).split(":")[0].replace(settings["tokenizer"], "the folder")
    except Exception:
        return "TRACEBACK: " + traceback.format_exc()
    return ""


def table(found: dict[tuple[str, str, bool | str], str]) -> list[str]:
    """The lines: a row a family, a column a task, with the kinds of use_adapter that work; then why others do not."""
    lines = [f"| `language_model` | {' | '.join(TASKS)} |", "|" + "---|" * (len(TASKS) + 1)]
    for family in FAMILIES:
        cells = []
        for task in TASKS:
            works = [str(kind) for kind in KINDS if not found[family, task, kind]]
            cells.append("all" if len(works) == len(KINDS) else ", ".join(works) or "-")
        lines.append(f"| {family.upper()} | {' | '.join(cells)} |")
    reasons: dict[str, list[str]] = {}
    for (family, task, kind), why in found.items():
        if why:
            reasons.setdefault(why, []).append(f"{family.upper()} {task} {kind}")
    return [*lines, "", *(f"- {len(cells)} are refused, such as {cells[0]}: {why}" for why, cells in reasons.items())]


def main() -> int:
    """Try all, and print what came of it."""
    found = {}
    with tempfile.TemporaryDirectory() as place:
        root, models = Path(place), folders(Path(place))
        for task, world in worlds(root / "world").items():
            for family in FAMILIES:
                for kind in KINDS:
                    settings = world | {"tokenizer": models[family], "log_dir": str(root / "result")}
                    with contextlib.redirect_stdout(io.StringIO()):
                        found[family, task, kind] = tried(family, task, kind, settings)
            print(f"{task}: tried", file=sys.stderr, flush=True)
    print("\n".join(table(found)))
    return int(any("TRACEBACK" in why for why in found.values()))


if __name__ == "__main__":
    sys.exit(main())
