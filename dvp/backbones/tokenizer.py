"""Texts to ids, one way for every language model and task: a text's pieces, with the family's special tokens around."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dvp.errors import UserError


@dataclass(frozen=True)
class Tokenizer:
    """The tokenizer in a file. Called with texts it makes a batch; `encode` and `decode` know no special tokens.

    encode_all: the pieces' ids of several texts. piece: how an id is written. size: no id is larger. pad_token_id: what
    fills a row, never attended.
    """

    file: Path
    encode_all: Callable[[Sequence[str]], list[list[int]]]
    decode: Callable[[list[int]], str]
    piece: Callable[[int], str | None]
    size: int
    bos_token_id: int | None
    eos_token_id: int
    pad_token_id: int = 0

    def __call__(
        self,
        texts: str | Sequence[str],
        padding: bool | str = False,
        truncation: bool = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
    ) -> dict[str, Any]:
        """input_ids and attention_mask of a text or several, as transformers' tokenizers give them.

        A text that is cut keeps its end token. padding: to the longest text, or "max_length".
        """
        if isinstance(texts, str):
            rows = self([texts], padding, truncation, max_length)
            return {name: values[0] for name, values in rows.items()}
        front = [] if self.bos_token_id is None else [self.bos_token_id]
        room = max(0, max_length - len(front) - 1) if truncation else None
        ids = [[*front, *found[:room], self.eos_token_id] for found in self.encode_all(texts)]
        kept = [[1] * len(row) for row in ids]
        if padding:
            longest = max_length if padding == "max_length" else max(map(len, ids))
            ids = [row + [self.pad_token_id] * (longest - len(row)) for row in ids]
            kept = [row + [0] * (longest - len(row)) for row in kept]
        batch = {"input_ids": ids, "attention_mask": kept}
        return {name: torch.tensor(rows) for name, rows in batch.items()} if return_tensors == "pt" else batch

    def encode(self, text: str) -> list[int]:
        """The ids of the text's pieces alone."""
        return self.encode_all([text])[0]

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        """How many tokens each text has before it is cut, special tokens included."""
        around = 1 + (self.bos_token_id is not None)
        return np.array([len(ids) + around for ids in self.encode_all(texts)], dtype=int)

    def require_fit(self, embeddings: int, where: str | Path) -> None:
        """Raises UserError where ids have no place in a table of so many embeddings, which `where` names."""
        if self.size > embeddings:
            raise UserError(
                f"{self.file} makes ids up to {self.size - 1}, but the vocabulary of {where} ends at {embeddings - 1}: "
                "they are of different models; put the tokenizer of these weights there."
            )
