"""The published code's ScienceQA checkpoints, which hold the adapters and what else is trained, by our names."""

import re
from collections.abc import Mapping

from torch import Tensor

from dvp.checkpoints import load_trained
from dvp.errors import UserError
from dvp.module import DVPModule
from dvp.published.archive import Archive

# The published names of what is trained -> ours
ADAPTER = ((r"conv_A\.", "down."), (r"conv_B\.", "ups.0."), (r"conv_D\.", "ups.1."), (r"expert_weights\.", "router."))
TRAINED: tuple[tuple[str, str], ...] = (
    *(
        (rf"^layers\.(\d+)\.adapter_attn\.{old}", rf"backbone.model.layers.\1.input_layernorm.adapter.{new}")
        for old, new in ADAPTER
    ),
    *(
        (
            rf"^backbone\.visual\.transformer\.resblocks\.(\d+)\.adapter_attn\.{old}",
            rf"vision.encoder.encoder.layers.\1.layer_norm1.adapter.{new}",
        )
        for old, new in ADAPTER
    ),
    (r"^adapter_proj\.conv_A\.", "prefix.projector.0."),
    (r"^adapter_proj\.conv_B\.", "prefix.projector.2."),
    (r"^adapter_modality_embedding\.", "prefix.modality."),
    (r"^image_params$", "prefix.slot"),
    (r"^cross_attn\.linear_(\w)", r"compressors.0.linear_\1"),
    (r"^cross_attn_options\.(\d+)\.linear_(\w)", r"compressors.\1.linear_\2"),
    *(
        (rf"\.linear_{old}\.", f".{new}.")
        for old, new in {"q": "query", "k": "key", "v": "value", "merge": "merge"}.items()
    ),
)


def load_published(path: str, module: DVPModule) -> None:
    """Take up the trained weights of a published checkpoint (.pth); refuses any that do not fit."""
    load_trained(module.model, read_published(path))


def read_published(path: str) -> dict[str, Tensor]:
    """The trained weights of a published checkpoint (.pth), renamed as by `rename_published`.

    They are the file's content or lie in it under "model", beside settings (args), optimizer, scaler and epoch. Raises
    UserError for a file that is damaged or holds no named tensors.
    """
    archive = Archive(path)
    content = archive.content
    weights = archive.tensors(content.get("model", content) if isinstance(content, Mapping) else None)
    if weights is None:
        raise UserError(f"{path} is no published checkpoint: it holds no named tensors. Give another file.")
    return rename_published(weights)


def rename_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The trained weights in a published state dict under our names; the frozen ones are left out."""
    renamed = {}
    for name, tensor in state.items():
        old = new = name.removeprefix("module.")
        for pattern, replacement in TRAINED:
            new = re.sub(pattern, replacement, new)
        if new != old:
            # Linear layers stand there as convolutions of width 1, but for the grouped ones, which are such here, too.
            renamed[new] = tensor[..., 0] if tensor.ndim == 3 and ".down." in new else tensor
    return renamed
