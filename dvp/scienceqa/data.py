"""Arrow tables -> batches of rows of like length; pictures only for the rows that have one."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional as F

from dvp.data.arrow import open_table
from dvp.data.lengths import LikeLengths
from dvp.scienceqa.text import ANSWER_STEM, answers_first, write_example
from dvp.scienceqa.tokens import Layout, Row, Tokens, encode_row

COLUMNS = (
    "question_id", "image", "question", "choices", "answer", "hint", "caption", "lecture", "solution", "subject",
    "grade",
)  # fmt: skip
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as published, though CLIP was trained on others


def squeeze(image: Image.Image, size: int) -> Tensor:
    """The picture as a tensor (3, size, size): squeezed to a square (bicubic), ImageNet's mean and std."""
    image = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
    return F.normalize(F.to_tensor(image), MEAN, STD)


class Problems(Dataset):
    """The problems of a table as rows of tokens; an item is a batch, asked for by the list of its rows.

    every_picture: zeros stand for the pictures that are not there, as published.
    """

    def __init__(self, table: pa.Table, rows: list[Row], layout: Layout, image_size: int, every_picture: bool):
        self.table, self.rows, self.layout = table, rows, layout
        self.image_size, self.every_picture = image_size, every_picture
        self.lengths = np.minimum([layout.length(row) for row in rows], layout.max_length)
        self.answers = torch.tensor(table["answer"].to_pylist())
        self.num_choices = torch.tensor([len(choices) for choices in table["choices"]])
        self.ids = table["question_id"].to_pylist()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, items: Sequence[int]) -> dict[str, Any]:
        rows = [self.rows[item] for item in items]
        seen = [item for item in items if self.rows[item].has_image or self.every_picture]
        return self.layout.batch(rows, [self._picture(item) for item in seen]) | {
            "answer": self.answers[items],  # (B,)
            "num_choices": self.num_choices[items],  # (B,)
            "question_id": [self.ids[item] for item in items],
        }

    def _picture(self, item: int) -> Tensor:
        if not self.rows[item].has_image:
            return torch.zeros(3, self.image_size, self.image_size)
        with Image.open(io.BytesIO(self.table["image"][item].as_py())) as image:
            return squeeze(image, self.image_size)


class ScienceQAData(pl.LightningDataModule):
    """The splits of ScienceQA, opened (and missed) at construction.

    batch_size: rows per device and forward pass. likelihood: the test asks for the next letter instead of a text.
    blind: no row has its image.
    """

    def __init__(
        self,
        data_root: str,
        tokens: Tokens,
        layout: Layout,
        *,
        prompt_format: str,
        use_caption: bool,
        image_size: int,
        batch_size: int,
        search_batch_size: int,
        likelihood: bool = False,
        blind: bool = False,
        as_published: bool = False,
        num_workers: int = 8,
        seed: int = 0,
    ):
        super().__init__()
        self.data_root = data_root
        self.tokens, self.layout = tokens, layout
        self.prompt_format, self.use_caption = prompt_format, use_caption
        self.image_size, self.as_published = image_size, as_published
        self.batch_size, self.search_batch_size = batch_size, search_batch_size
        self.likelihood, self.blind = likelihood, blind
        self.num_workers, self.seed = num_workers, seed
        self.tables = {split: open_table(data_root, "scienceqa", split, COLUMNS) for split in ("train", "val", "test")}
        self.truncated: dict[str, int] = {}  # what was counted -> rows cut

    def train_dataloader(self) -> DataLoader:
        return self._loader(self.examples("train"), self.batch_size, self.seed)

    def search_dataloader(self) -> DataLoader:
        """Batches of val with their targets, on which sampled arms are scored."""
        return self._loader(self.examples("val"), self.search_batch_size, self.seed)

    def val_dataloader(self) -> DataLoader:
        stem = ANSWER_STEM if answers_first(self.prompt_format) else ""
        return self._loader(self.questions("val", stem), self.batch_size)

    def test_dataloader(self) -> DataLoader:
        return self._loader(self.questions("test", ANSWER_STEM if self.likelihood else ""), self.batch_size)

    def examples(self, split: str) -> Problems:
        """The problems of a split, prompt and target."""
        return self._problems(split, f"{split} examples", lambda target: target, ended=True)

    def questions(self, split: str, stem: str = "") -> Problems:
        """The problems of a split, prompt and what the answer begins with."""
        return self._problems(split, f"{split} prompts", lambda target: stem, ended=False)

    def problems(self, split: str) -> dict[str, dict[str, Any]]:
        """The problems by id as the evaluation wants them, with their choices."""
        table = self.tables[split]
        columns = {name: table[name].to_pylist() for name in ("choices", "answer", "hint", "subject", "grade")}
        columns["image"] = _with_image(table)
        ids = table["question_id"].to_pylist()
        return {
            pid: dict(zip(columns, values, strict=True)) for pid, *values in zip(ids, *columns.values(), strict=True)
        }

    def _problems(self, split: str, what: str, follows: Callable[[str], str], ended: bool) -> Problems:
        table = self.tables[split]
        texts = [name for name in COLUMNS if name not in ("image", "question_id")]
        rows = []
        for problem, has_image in zip(table.select(texts).to_pylist(), _with_image(table), strict=True):
            prompt, target = write_example(problem, self.prompt_format, self.use_caption)
            rows.append(encode_row(self.tokens, prompt, follows(target), has_image and not self.blind, ended))
        self.truncated[what] = sum(self.layout.length(row) > self.layout.max_length for row in rows)
        rank_zero_info(
            f"{self.truncated[what]} of {len(rows)} {what} are over {self.layout.max_length} tokens and cut."
        )
        return Problems(table, rows, self.layout, self.image_size, self.as_published)

    def _loader(self, problems: Problems, batch_size: int, seed: int | None = None) -> DataLoader:
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return DataLoader(
            problems,
            batch_size=None,  # the sampler's items are batches already
            sampler=LikeLengths(problems.lengths, batch_size, rank, ranks, seed),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # it seeds the workers; the global one would be moved on, and dropout with it
        )


def _with_image(table: pa.Table) -> list[bool]:
    return [length > 0 for length in pa.compute.binary_length(table["image"]).to_pylist()]
