"""From text to sequences: token ids, the places of what is put in before the text, and batches.

Legend: B batch, T positions, n rows with image, C class tokens of the image, R labelled tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dvp.backbones.tokenizer import Tokenizer

PADDING = 0  # id of positions that nothing attends to
IGNORED = -100  # label of positions without loss: no id, since 0 is a word in some vocabularies


class Row(NamedTuple):
    """One text: BOS, prompt, and what follows it; a label per id, of prompt_length tokens after BOS none."""

    ids: Sequence[int]
    labels: Sequence[int]
    prompt_length: int
    has_image: bool
    ended: bool = True  # False: it is to be continued
    letter: int = -1  # place of the answer's letter among the ids, where it is known


def encode_row(tokens: Tokenizer, prompt: str, follows: str, has_image: bool, ended: bool = True) -> Row:
    """The row of a prompt and what follows it, cut into tokens as one text; `ended` puts EOS after it.

    Families without BOS have learned that EOS stands between two texts.
    """
    prompt_length = len(tokens.encode(prompt))
    begin = tokens.eos_token_id if tokens.bos_token_id is None else tokens.bos_token_id
    ids = [begin, *tokens.encode(prompt + follows), *([tokens.eos_token_id] if ended else [])]
    labels = [IGNORED] * (1 + prompt_length) + ids[1 + prompt_length :]
    return Row(
        torch.tensor(ids, dtype=torch.int32), torch.tensor(labels, dtype=torch.int32), prompt_length, has_image, ended
    )


@dataclass(frozen=True)
class Layout:
    """Where everything stands, at most `max_length` positions.

    With image:     [modality][BOS]["Image: "][C class tokens][slot of the prompt][text]
    without:        [modality][BOS]["Image: N/A"][text]
    """

    image_prefix: tuple[int, ...]
    text_prefix: tuple[int, ...]
    class_tokens: int
    max_length: int = 512

    @property
    def image(self) -> slice:
        """Positions of the image's class tokens."""
        start = 2 + len(self.image_prefix)
        return slice(start, start + self.class_tokens)

    @property
    def slot(self) -> int:
        """Position of the visual prompt, right before the text."""
        return self.image.stop

    def text_start(self, has_image: bool) -> int:
        """Position of the first text token after BOS."""
        return self.slot + 1 if has_image else 2 + len(self.text_prefix)

    def length(self, row: Row) -> int:
        """Positions that the row takes if it is not cut."""
        return self.text_start(row.has_image) + len(row.ids) - 1

    def labelled(self, row: Row) -> int:
        """How many of the row's labelled tokens are not cut."""
        prompt_ends = self.text_start(row.has_image) + row.prompt_length
        return max(0, min(self.length(row), self.max_length) - prompt_ends)

    def place(self, values: Sequence[int], has_image: bool, prefix: bool) -> Tensor:
        """One value per position, int64: ids with those of the prefix put in, or labels, with IGNORED in its place."""
        front = self.image_prefix if has_image else self.text_prefix
        empty = PADDING if prefix else IGNORED
        gap = [empty] * (self.text_start(has_image) - 2 - len(front))
        put_in = [*(front if prefix else [empty] * len(front)), *gap]
        placed = [torch.as_tensor(part, dtype=torch.long) for part in ([empty], values[:1], put_in, values[1:])]
        return torch.cat(placed)[: self.max_length]

    def batch(self, rows: Sequence[Row], pixel_values: Sequence[Tensor]) -> dict[str, Any]:
        """A batch of rows, and the pixels (n or B, 3, H, W) of their pictures, if they have any.

        input_ids, attention_mask and asking (B, T), length and has_image (B,); read, the rows and positions (R,) before
        the labelled tokens, and these as targets (R,).
        """
        ids = [self.place(row.ids, row.has_image, prefix=True) for row in rows]
        labels = [self.place(row.labels, row.has_image, prefix=False) for row in rows]
        labels = pad_sequence(labels, batch_first=True, padding_value=IGNORED)
        labelled = labels[:, 1:] != IGNORED
        batch = {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=PADDING),
            "length": torch.tensor([len(row) for row in ids]),
            "has_image": torch.tensor([bool(row.has_image) for row in rows]),
            "read": labelled.nonzero(as_tuple=True),
            "targets": labels[:, 1:][labelled],
        }
        start = torch.tensor([[self.text_start(row.has_image)] for row in rows])
        count = torch.tensor([[row.prompt_length] for row in rows])
        place = torch.arange(batch["input_ids"].shape[1])
        batch["asking"] = (place >= start) & (place < start + count)  # (B, T)
        # The modality token routes the adapters, and is seen by no other. Padding comes after all that looks.
        batch["attention_mask"] = (place > 0) & ~(batch["has_image"][:, None] & (place == self.slot))
        if len(pixel_values):
            batch["pixel_values"] = torch.stack(list(pixel_values))
        return batch

    def question_batch(self, rows: Sequence[Row], pixel_values: Sequence[Tensor]) -> dict[str, Any]:
        """The same of rows that are to be continued: read is each row's last position, and there are no targets."""
        batch = self.batch(rows, pixel_values)
        del batch["targets"]
        return batch | {"read": (torch.arange(len(rows)), batch["length"] - 1)}
