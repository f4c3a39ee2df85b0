"""Reading golden cases: folders of tensors.safetensors and meta.json, and the model that their state makes."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqa_worlds as worlds
from safetensors.torch import load_file
from torch import Tensor

import clip
from dvp.backbones.meta import from_meta_state
from dvp.checkpoints import load_trained
from dvp.model import DVP
from dvp.published.scienceqa import rename_published
from dvp.scienceqa.tokens import IGNORED, Layout, Row

ROOTS = [Path(__file__).parents[1] / "golden" / "sqa"]
if "DVP_GOLDEN_SQA" in os.environ:
    ROOTS.append(Path(os.environ["DVP_GOLDEN_SQA"]))


def folders(kind: str) -> list[Path]:
    """The cases whose folder is named <kind>..., in the project and where DVP_GOLDEN_SQA points."""
    return sorted(path for root in ROOTS for path in root.glob(f"{kind}*"))


def name(folder: Path) -> str:
    """How a test of the case is called."""
    return f"{folder.parent.name}-{folder.name}"


def read(folder: Path) -> SimpleNamespace:
    """The case: `meta` and tensors `t` by name."""
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    return SimpleNamespace(folder=folder, meta=meta, t=load_file(folder / "tensors.safetensors"))


def build(case: SimpleNamespace) -> DVP:
    """The model of the case's state, in eval mode, as published or not as its variant says."""
    dims = case.meta["dims"]
    stored = read(case.folder.parent / case.meta["state"])
    own = {key: stored.t[key] for key in stored.meta["keys"][case.meta["state_keys"]]}
    visual = {key.removeprefix("backbone."): value for key, value in own.items() if key.startswith("backbone.visual")}
    visual = {key: value for key, value in visual.items() if "adapter" not in key}
    model = worlds.build(
        clip.from_openai_state(visual, heads=dims["clip"]["heads"]),
        from_meta_state(own, dims),
        layout(dims),
        arms=len({key.split(".")[1] for key in own if key.startswith("cross_attn_options")}) or 1,
        num_heads=dims["cross_heads"],
        compressor_width=dims["mid"],
        projector_width=dims["hidden_proj"],
        adapter={"width": dims["adapter_dim"], "scale": dims["adapter_scale"], "temperature": dims["temperature"]},
        as_published=case.meta["variant"] == "published",
    )
    load_trained(model, rename_published(own))
    # In both variants the published router chose the shares: CLIP's blocks and their gradients are compared with them.
    for layer in model.vision.encoder.encoder.layers:
        layer.layer_norm1.adapter.by_first_row = True
    return model.eval()


def layout(dims: dict[str, Any]) -> Layout:
    """Where everything stands in the case's sequences."""
    return Layout(tuple(dims["prefix_img"]), tuple(dims["prefix_nonimg"]), dims["n_class_tokens"], dims["max_seq_len"])


def ours(labels: Tensor) -> Tensor:
    """Labels with our mark where the published ones have a 0."""
    return labels.masked_fill(labels == 0, IGNORED)


def batch(case: SimpleNamespace, group: str) -> dict[str, Tensor]:
    """The batch whose tensors are called <group>.examples and so on, with a picture for every row."""
    t = {key.removeprefix(f"{group}."): value for key, value in case.t.items() if key.startswith(f"{group}.")}
    columns = (t["examples"], ours(t["labels"]), t["prompt_len"].tolist(), t["img_indicators"].tolist())
    return layout(case.meta["dims"]).batch([Row(*row) for row in zip(*columns, strict=True)], t["images"])
