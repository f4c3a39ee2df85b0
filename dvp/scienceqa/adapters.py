"""The routed low-rank adapter: two experts, mixed by what stands at the first position."""

from torch import Tensor, nn


class RoutedAdapter(nn.Module):
    """x + share_0 * up_0(down(x)) + share_1 * up_1(down(x)), the shares softmax(router(first position) / temperature).

    The up-projections have 2 groups: the first half of their outputs sees the first half of the bottleneck. While
    `keeps` is set, the shares of the first call hold for all later ones, whose sequences lack the first position.
    """

    def __init__(
        self, dim: int, width: int = 8, scale: float = 1.0, temperature: float = 10.0, dropout: float = 0.1,
        by_first_row: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.scale, self.temperature, self.by_first_row = scale, temperature, by_first_row
        self.down = nn.Linear(dim, width)
        self.dropout = nn.Dropout(dropout)
        self.ups = nn.ModuleList(nn.Conv1d(width, dim, 1, groups=2) for _ in range(2))
        self.router = nn.Linear(dim, len(self.ups))
        self.keeps, self.kept = False, None
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.down.bias)
        for up in self.ups:  # at first an adapter changes nothing
            nn.init.zeros_(up.weight)
            nn.init.zeros_(up.bias)

    def forward(self, x: Tensor) -> Tensor:
        shares = self.shares(x) if self.kept is None else self.kept
        if self.keeps:
            self.kept = shares
        low = self.dropout(self.down(x)).transpose(1, 2)  # (B, width, T)
        lifted = [up(low).transpose(1, 2) for up in self.ups]  # (B, T, D) each
        return x + self.scale * sum(share * up for share, up in zip(shares.split(1, -1), lifted, strict=True))

    def shares(self, x: Tensor) -> Tensor:
        """The experts' weights, (B, 1, 2)."""
        # Published, in CLIP: the axes are exchanged, so that every image takes the first image's weights, one pair per
        # position, (1, T, 2).
        first = x[:1] if self.by_first_row else x[:, :1]
        return (self.router(first) / self.temperature).softmax(-1)
