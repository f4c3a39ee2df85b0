"""The embedded world: pictures of coloured shapes in the official raw formats, and tiny models pre-trained on it.

python run.py shapes                  # draws and converts it, in seconds
python -m dvp.shapes.pretrain         # makes the models in dvp/shapes/models again
"""

import random
import shutil

from dvp.prepare import convert
from dvp.prepare.tables import make_root
from dvp.shapes.raw import pictures, write_gqa, write_snli_ve, write_vqa
from dvp.shapes.scienceqa import write_science_qa

WRITERS = {"vqa": write_vqa, "gqa": write_gqa, "snli_ve": write_snli_ve, "scienceqa": write_science_qa}
PICTURES = {"train": 2500, "val": 800, "test": 400}
REST_VAL = 300  # of val's pictures: held out to reward the search and pick the checkpoint


def build(data_root: str, seed: int = 0, pictures_per_split: dict[str, int] = PICTURES) -> None:
    """Nothing; `data_root` gets all tasks' Arrow files, and under raw/ the official files they come from."""
    root, drawn = make_root(data_root), pictures(pictures_per_split, seed)
    for task, write in WRITERS.items():
        raw = root / "raw" / task
        shutil.rmtree(raw, ignore_errors=True)
        write(raw, drawn, random.Random(f"{task} {seed}"))
        convert(task, str(raw), data_root, seed=seed, rest_val_images=min(REST_VAL, pictures_per_split["val"] // 2))
