"""Dynamic Visual Prompting, the forward pass: text layers, one visual token put in at layer K, the layers above.

Legend: B batch, N image tokens, Dv their width, T text tokens, D hidden, K insert layer, L layers, C answers.
"""

from collections import OrderedDict
from collections.abc import Iterable

from torch import Tensor, nn

from dvp.adapters import Adapter, freeze, inject_adapters
from dvp.backbones import LanguageBackbone
from dvp.compressor import VisualTokenCompressor


class DVP(nn.Module):
    """A language model that sees. `arms` compressors: one for adaption, one for every layer while searching.

    `vision` maps a batch to image tokens (B, N, Dv) and stays frozen; `vision_width` is Dv.
    """

    def __init__(
        self,
        vision: nn.Module,
        vision_width: int,
        backbone: LanguageBackbone,
        num_answers: int,
        *,
        arms: int = 1,
        use_adapter: bool = False,
        num_heads: int = 12,
        dropout: float = 0.1,
        compressor_width: int | None = None,
        adapter_reduction: int | None = None,
    ):
        super().__init__()
        size = backbone.hidden_size
        self.vision = vision.requires_grad_(False)
        self.backbone = backbone
        self.compressors = nn.ModuleList(
            VisualTokenCompressor(
                vision_width,
                size,
                compressor_width or backbone.compressor_width,
                num_heads,
                dropout,
                backbone.token_types,
            )
            for _ in range(arms)
        )
        self.head = classifier(size, int(size * backbone.head_width), num_answers)
        self.use_adapter = use_adapter
        if use_adapter:
            options = backbone.adapter | ({"reduction": adapter_reduction} if adapter_reduction else {})
            inject_adapters(backbone.model, backbone.adapter_sites, lambda: Adapter(size, **options))
            freeze(backbone, rf"\.adapter\.|{backbone.trained_beside_adapters}")
            for parameter in backbone.parameters():
                if parameter.requires_grad:  # a frozen base may be in 16 bit; what is trained is not
                    parameter.data = parameter.data.float()

    @property
    def num_layers(self) -> int:
        """L, the number of places K that the prompt can take."""
        return len(self.backbone.layers)

    def forward(self, batch: dict[str, Tensor], insert_layer: int) -> Tensor:
        """Logits (B, C) of the batch with the prompt put in front of the text before layer `insert_layer`."""
        return self.forward_arms(batch, [insert_layer])[insert_layer]

    def forward_arms(self, batch: dict[str, Tensor], insert_layers: Iterable[int]) -> dict[int, Tensor]:
        """Logits (B, C) for each distinct insert layer.

        Image and text-only trunk are computed once for all. What branches off the trunk runs on beside it as one batch.
        """
        arms = sorted(set(insert_layers))
        image_tokens = self.vision(batch)  # (B, N, Dv)
        state = self.backbone.embed(batch)
        rows = len(state.hidden)
        if len(arms) > 1:  # a masked slot makes the trunk as long as its branches
            state = self.backbone.prepend(state, state.hidden.new_zeros(rows, 1, self.backbone.hidden_size), keep=False)
        for index in range(self.num_layers):
            if index in arms:
                compressor = self.compressors[index if len(self.compressors) > 1 else 0]
                branch = compressor.insert(self.backbone, state.rows(slice(rows)), image_tokens)
                others = state.rows(slice(rows if index == arms[-1] else 0, None))  # in the end without the trunk
                state = others.joined(branch) if len(arms) > 1 else branch  # (trunk and arms so far * B, 1 + T, D)
            state = self.backbone.run_layer(index, state)
        logits = self.head(self.backbone.read_out(state).float())  # (arms * B, C)
        return dict(zip(arms, logits.chunk(len(arms)), strict=True))


def classifier(size: int, width: int, num_answers: int) -> nn.Sequential:
    """The answer head: Linear, LayerNorm, GELU, Linear, initialised as BERT's."""
    head = nn.Sequential(
        OrderedDict(
            dense=nn.Linear(size, width), norm=nn.LayerNorm(width), act=nn.GELU(), answer=nn.Linear(width, num_answers)
        )
    )
    for layer in (head.dense, head.answer):
        nn.init.normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
    return head
