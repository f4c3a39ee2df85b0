"""PEFT's adapters, in the place of linear layers: put in by PEFT, and saved as its tools read them.

PEFT is imported only when one of them is asked for.
"""

import importlib.util
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from dvp.errors import UserError

NAME = "default"  # of an adapter among several on one model, which PEFT allows
LORA = {"adapter_rank": "r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout"}  # settings -> PEFT's fields
TURNED = ("gpt2",)  # models whose linear layers hold their weights the other way round
DORA = "lora_magnitude_vector"  # a module whose one weight PEFT saves by the module's name


@dataclass(frozen=True)
class Injected:
    """A row of ADAPTERS: a method of PEFT.

    method: its name there. fields: settings of ours, but for the targets, by which it goes, and PEFT's names of them.
    fixed: PEFT's settings that make it this one.
    """

    method: str
    fields: dict[str, str]
    fixed: dict[str, Any] = field(default_factory=dict)
    trained = r"\.(lora|ia3)_"
    beside = True

    def add_to(self, backbone: nn.Module, adapter_targets: str | list[str] = "auto", **settings: Any) -> dict[str, Any]:
        """Put it in, at modules whose names end with one of the targets; returns its settings as they turned out.

        Raises UserError where PEFT is missing, where it knows no targets of the language model, and for targets that no
        module has.
        """
        model = backbone.model
        targets = self._known_targets(backbone) if adapter_targets == "auto" else adapter_targets
        if isinstance(targets, list):
            _refuse_nowhere(model, targets)
        told = {"adapter_targets": targets} | {name: settings[name] for name in self.fields if name in settings}
        _peft().inject_adapter_in_model(self._config(model.config.model_type, told), model, NAME)
        return {name: value for name, value in told.items() if name != "lora_dropout"}  # which ends with the training

    def merge(self, model: nn.Module) -> None:
        """Put what was learnt into the weights beside which it stands, and the plain layers back in their places."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        for name, layer in [pair for pair in model.named_modules() if isinstance(pair[1], BaseTunerLayer)]:
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer.get_base_layer())
        del model.peft_config

    def write_config(
        self, folder: Path, weights: Mapping[str, Tensor], told: Mapping[str, Any], model_type: str, base: str
    ) -> None:
        """Write PEFT's adapter_config.json to a folder, of trained weights by their names in the language model.

        told: what `add_to` returned. base: the language model's name or place.
        """
        beside = sorted({name.rpartition(".")[0] for name in weights if not re.search(self.trained, name)})
        options = {"base_model_name_or_path": base, "modules_to_save": beside or None}
        config = self._config(model_type, told, task_type="FEATURE_EXTRACTION", inference_mode=True, **options)
        for name in ("target_modules", "feedforward_modules"):
            if isinstance(found := getattr(config, name, None), set):
                setattr(config, name, sorted(found))  # an export is the same, byte by byte, whenever it is made
        config.save_pretrained(folder)

    def saved(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The trained weights by the names that they have in PEFT's adapter_model.safetensors."""
        plain = ((name.replace(f"{DORA}.{NAME}.weight", DORA), tensor) for name, tensor in weights.items())
        return {f"base_model.model.{re.sub(rf'[.]{NAME}(?=[.]|$)', '', name)}": tensor for name, tensor in plain}

    def _known_targets(self, backbone: nn.Module) -> str | list[str]:
        model_type = backbone.model.config.model_type
        known = getattr(_peft().utils.constants, f"TRANSFORMERS_MODELS_TO_{self.method}_TARGET_MODULES_MAPPING")
        targets = known.get(model_type) or backbone.peft_targets.get(self.method)
        if targets is None:
            raise UserError(
                f"PEFT knows no targets of a {model_type!r} model: give adapter_targets=<names>, of "
                f"{', '.join(_linear(backbone.model))}."
            )
        return targets if isinstance(targets, str) else sorted(targets)

    def _config(self, model_type: str, told: Mapping[str, Any], **options: Any) -> Any:
        peft = _peft()
        options |= self.fixed | {theirs: told[ours] for ours, theirs in self.fields.items() if ours in told}
        targets = told["adapter_targets"]
        if self.method == "IA3":  # scales of what goes in there, not of what comes out
            deep = peft.utils.constants.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(model_type, [])
            of = [one for one in targets if any(f".{one}".endswith(f".{name}") for name in deep)]
            options["feedforward_modules"] = deep if targets == "all-linear" else of
        kinds = {"LORA": peft.LoraConfig, "IA3": peft.IA3Config}
        return kinds[self.method](target_modules=targets, fan_in_fan_out=model_type in TURNED, **options)


def _peft() -> ModuleType:
    """The package; raises UserError where it is missing."""
    if importlib.util.find_spec("peft") is None:
        raise UserError("use_adapter=lora, dora or ia3 needs the package peft: pip install peft.")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # which PEFT loads, and which tells what it lacks
    import peft

    return peft


def _linear(model: nn.Module) -> list[str]:
    """The last names of all modules that hold a matrix and are no embeddings, in their order."""
    return list(dict.fromkeys(name.rpartition(".")[2] for name, module in model.named_modules() if _is_linear(module)))


def _is_linear(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 2 and not isinstance(module, nn.Embedding)


def _refuse_nowhere(model: nn.Module, targets: list[str]) -> None:
    """Raise UserError for targets with which the name of no linear layer ends."""
    names = [f".{name}" for name, module in model.named_modules() if _is_linear(module)]
    if lacking := [one for one in targets if not any(name.endswith(f".{one}") for name in names)]:
        raise UserError(
            f"adapter_targets={','.join(lacking)}: no linear layer of this {model.config.model_type!r} model is named "
            f"so; give some of {', '.join(_linear(model))}."
        )
