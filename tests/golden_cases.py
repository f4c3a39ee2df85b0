"""Reads the golden vectors of the published code (tests/golden/published/README.md) and builds the model of a case.

DVP_GOLDEN names another folder of the same layout. All sizes come from the meta.json of the case.
"""

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

import clip
from dvp.backbones import BACKBONES
from dvp.kinds import classified
from dvp.model import DVP, adapt_language_model
from dvp.module import DVPModule
from dvp.published.classification import published_names, translate
from dvp.tasks import TASKS
from dvp.vision import Vision

ROOT = Path(os.environ.get("DVP_GOLDEN", Path(__file__).parent / "golden" / "published"))
DROPOUTS = dict.fromkeys(
    ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout_rate", "attention_dropout"), 0.0
)  # the golden training runs have none, and the others are in eval mode
OPTIMIZER_KEYS = ("learning_rate", "weight_decay", "lr_mult", "warmup_steps", "decay_power", "end_lr", "optim_type")


@dataclass(frozen=True)
class Case:
    """One golden folder."""

    folder: Path

    def __str__(self) -> str:
        return str(self.folder.relative_to(ROOT))

    @cached_property
    def meta(self) -> dict[str, Any]:
        return json.loads((self.folder / "meta.json").read_text(encoding="utf-8"))

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        file = self.folder / "tensors.safetensors"
        return load_file(file) if file.exists() else {}

    @property
    def kind(self) -> str:
        """forward, gradient, optimizer, search, or state."""
        marks = {"keys": "state", "groups": "optimizer", "steps": "search", "requires_grad_true": "gradient"}
        return next((kind for mark, kind in marks.items() if mark in self.meta), "forward")

    @property
    def arm(self) -> int:
        """The insert layer of a case without search."""
        return self.meta["insert_layer"]

    def state(self) -> dict[str, Tensor]:
        """The published state dict of this case, aliases included."""
        folder = next(folder for parent in self.folder.parents if (folder := parent / self.meta["state"]).is_dir())
        about, stored = Case(folder).meta, Case(folder).tensors
        keys = about["keys"][self.meta["state_keys"].removesuffix(f"_{self.meta['task']}")]
        keys = keys + about["keys"]["classifier"][self.meta["task"]]
        if "layer_alphas" in keys:
            stored["layer_alphas"] = self.tensors["alphas.0"]
        return {key: stored[about["aliases"].get(key, key)] for key in keys}

    def batch(self, part: str = "in", rows: Any = slice(None)) -> dict[str, Tensor]:
        """The rows of `in`, `train` or `minival` as a batch, with their targets; of `minival` without."""
        names = {"pixel_values": "image", "input_ids": "text_input_ids", "attention_mask": "text_attention_mask"}
        batch = {ours: self.tensors[f"{part}.{theirs}"][rows] for ours, theirs in names.items()}
        if part == "minival":
            return batch
        targets = self.tensors.get(f"{part}.targets")
        return batch | {"targets": self.targets() if targets is None else targets}

    def targets(self) -> Tensor:
        """The targets that our task makes of the labels in meta."""
        task, given = self.meta["task"], self.meta["labels"]
        labels = given.get(f"{task}_labels") or [[label] for label in given["answers"]]
        return TASKS[task].targets(labels, given.get(f"{task}_scores", []), self.meta["dims"]["labels"][task])

    def empty_model(self, as_published: bool = True) -> DVP:
        """A model of this case's sizes, weights at random, without dropout."""
        dims, backbone = self.meta["dims"], BACKBONES[self.meta["backbone"]]
        config = backbone.model_class.config_class(**dims["plm"] | DROPOUTS)
        language = backbone(backbone.model_class(config, **backbone.model_options), as_published)
        size, bottleneck = language.hidden_size, dims["adapter_bottleneck"]
        visual = {key[10:]: value for key, value in self.state().items() if key.startswith("visumodel.")}
        model = DVP(
            Vision(clip.from_openai_state(visual, heads=dims["clip"]["heads"])),
            dims["clip"]["width"],
            language,
            dims["labels"][self.meta["task"]],
            arms=len(language.layers) if self.meta.get("search_stage") else 1,
            num_heads=dims["cross_attention"]["num_heads"],
            dropout=0.0,
            compressor_width=dims["cross_attention"].get("mid_size"),
        )
        if self.meta["use_adapter"]:
            reduction = next(each for each in range(1, size + 1) if size // each == bottleneck)
            adapt_language_model(model.backbone, reduction)
        return model

    def model(self, as_published: bool = True) -> DVP:
        """The model of this case, in eval mode."""
        model, state = self.empty_model(as_published), self.state()
        state.pop("layer_alphas", None)
        weights, _ = translate(state, model, self.meta["task"])
        model.load_state_dict(weights, strict=False)
        return model.eval()

    def module(self, model: DVP, as_published: bool = True, **options: Any) -> DVPModule:
        """The module around a model of this case, a search where the case is one."""
        config, task = self.meta["config"], self.meta["task"]
        answers = [f"answer {label}" for label in range(self.meta["dims"]["labels"][task])]
        return DVPModule(
            model,
            task,
            TASKS[task],
            answers,
            pick=("val",),
            insert_layer=None if self.meta.get("search_stage") else self.arm,
            optimizer={key: config[key] for key in OPTIMIZER_KEYS},
            answer=classified.answer(None, SimpleNamespace(task=TASKS[task], answers=answers)),
            submit=classified.submit(None, TASKS[task]),
            as_published=as_published,
            **options,
        )

    def published_names(self, model: DVP) -> dict[str, str]:
        """The published code's names by ours."""
        return published_names(model, self.meta["task"], search=bool(self.meta.get("search_stage")))


def cases(kind: str, *backbones: str) -> list[Case]:
    """All golden cases of that kind, of these backbones or of all."""
    found = [Case(path.parent) for path in sorted(ROOT.rglob("meta.json"))]
    return [case for case in found if case.kind == kind and (not backbones or case.meta["backbone"] in backbones)]
