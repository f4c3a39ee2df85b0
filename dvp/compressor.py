"""The compressor: cross-attention that turns all tokens of an image into ONE visual prompt token (paper, section 3.2).

Legend: B batch, N image tokens, Dv their width, T text tokens, D hidden size of the language model, W inner width, P
prompt tokens (1, as in the paper, unless said otherwise).
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dvp.backbones import LanguageBackbone, State
from dvp.errors import UserError

QUERY_STD = 0.5  # of the learned part of a query, beside hidden states of about 1


class VisualTokenCompressor(nn.Module):
    """Multi-head attention with one query from the text and the image tokens as keys and values.

    prompt_tokens: P queries instead, each the text's own and a learned vector, so that they can look at several things.
    """

    def __init__(
        self,
        image_size: int,
        hidden_size: int,
        width: int | None = None,
        num_heads: int = 12,
        dropout: float = 0.1,
        token_types: bool = True,
        prompt_tokens: int = 1,
    ):
        super().__init__()
        width = width or hidden_size
        if width % num_heads:
            raise UserError(
                f"num_heads={num_heads} does not divide the compressor's width {width}: choose one that does."
            )
        self.num_heads = num_heads
        self.dropout = dropout
        self.query = nn.Linear(hidden_size, width)
        self.key = nn.Linear(image_size, width)
        self.value = nn.Linear(image_size, width)
        self.merge = nn.Linear(width, hidden_size)
        self.attention = nn.Softmax(dim=-1)  # a module, so that a hook on it sees the map (B, P, heads, N)
        # One needs none; more without it would all be the same.
        self.queries = nn.Embedding(prompt_tokens, hidden_size) if prompt_tokens > 1 else None
        if self.queries:
            nn.init.normal_(self.queries.weight, std=QUERY_STD)
        self.token_types = nn.Embedding(2, hidden_size) if token_types else None  # row 0: text, row 1: prompt
        if token_types:
            nn.init.normal_(self.token_types.weight, std=0.02)

    def forward(self, query: Tensor, image_tokens: Tensor) -> Tensor:
        """The prompt (B, P, D) that `query` (B, 1, D) draws from `image_tokens` (B, N, Dv).

        With few queries the key and value projections move out of the sum over the tokens: q . (Wk x) = (Wk' q) . x and
        sum a Wv x = Wv (sum a x). So they are applied P times, not N times: for 1 of 197 tokens a fiftieth of the work.
        """
        query = query if self.queries is None else query + self.queries.weight  # (B, P, D)
        q = self._heads(self.query(query))  # (B, P, heads, W / heads)
        asked = torch.einsum("bphw,hwv->bphv", q, self._heads(self.key.weight, dim=0))  # (B, P, heads, Dv)
        tokens = image_tokens[:, None]  # (B, 1, N, Dv)
        scores = asked @ tokens.transpose(2, 3) + (q * self._heads(self.key.bias)).sum(-1, keepdim=True)
        attention = self.attention(scores / q.shape[-1] ** 0.5)  # (B, P, heads, N)
        attention = F.dropout(attention, self.dropout, self.training)
        drawn = torch.einsum("bphv,hwv->bphw", attention @ tokens, self._heads(self.value.weight, dim=0))
        drawn = drawn + attention.sum(-1, keepdim=True) * self._heads(self.value.bias)  # (B, P, heads, W / heads)
        return self.merge(drawn.flatten(2))  # (B, P, D)

    def _heads(self, x: Tensor, dim: int = -1) -> Tensor:
        return x.unflatten(dim, (self.num_heads, -1))

    def insert(self, backbone: LanguageBackbone, state: State, image_tokens: Tensor) -> State:
        """The state with the prompt in its slot. The query is taken before the types are added."""
        dtype = self.query.weight.dtype
        prompt = self(backbone.query(state).to(dtype), image_tokens.to(dtype))  # (B, P, D)
        if self.token_types is not None:
            text_type, prompt_type = self.token_types.weight
            prompt = prompt + prompt_type
            state = replace(state, hidden=state.hidden + text_type)
        return backbone.put_in(state, prompt)
