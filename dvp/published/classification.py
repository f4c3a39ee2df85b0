"""Checkpoints of the published code in our names: their weights, frozen and trained, become those of a module.

Its names are those of transformers and of OpenAI's CLIP under a prefix; RENAMES has those of the other parts.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dvp.adapters import Adapter
from dvp.checkpoints import require_finite
from dvp.encoders.openai import from_openai_state
from dvp.errors import UserError
from dvp.families import T5
from dvp.model import DVP
from dvp.module import DVPModule
from dvp.published.checkpoint import PublishedCheckpoint, read_lightning

# our names -> theirs, applied in this order; the adapters' places come from `_adapter_names`
RENAMES = (
    (r"^compressors\.(\d+)\.token_types\.", r"token_type_embeddings_options.\1."),
    (r"^compressors\.(\d+)\.(q|k|v)\w+\.", r"cross_attn_options.\1.linear_\2."),
    (r"^compressors\.(\d+)\.merge\.", r"cross_attn_options.\1.linear_merge."),
    (r"\.(down|up)\.(weight|bias)$", r".\1_sampler.\2"),
    (r"^backbone\.model\.", "{family}_model."),
    (r"\.base\.", "."),
    (r"^head\.dense\.", "{task}_classifier.0."),
    (r"^head\.norm\.", "{task}_classifier.1."),
    (r"^head\.answer\.", "{task}_classifier.3."),
)

# second names of shared tensors -> the names under which they are read
ALIASES = (
    (r"^bert_(embeddings|encoder)\.", r"bert_model.\1."),
    (r"^t5_(encoder|decoder)\.", r"t5_model.\1."),
    (r"^t5_model\.(encoder|decoder)\.embed_tokens\.", "t5_model.shared."),
    (r"^(embed_tokens|layers|norm)\.", r"llama_model.\1."),
)

# keys that are not used -> why
IGNORED = (
    (r"\.position_ids$|\.inv_freq$", "computed from the sizes"),
    (r"^bert_model\.pooler\.", "read by nothing"),
    (r"^visumodel\.proj$", "passed by no image token"),
    (r"^\w+_classifier\.", "for another task"),
)


def published_names(model: DVP, task: str, search: bool) -> dict[str, str]:
    """The published code's name of every parameter of the model but CLIP's, by our name.

    search: whether the compressors bear the names of a search's arms or of the one that an adaption has.
    """
    adapters = _adapter_names(model)
    words = {"{family}": model.backbone.model.config.model_type, "{task}": task}
    names = {}
    for ours, _ in model.named_parameters():
        if ours.startswith("vision."):
            continue
        place, found, rest = ours.rpartition(".adapter.")
        name = f"{adapters[place]}.{rest}" if found else ours
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        for placeholder, word in words.items():
            name = name.replace(placeholder, word)
        names[ours] = name if search else name.replace("_options.0.", ".", 1)
    return names


def translate(state: Mapping[str, Tensor], model: DVP, task: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights of a published state dict by our names, frozen ones and CLIP included; and by key why it is ignored.

    Raises UserError with the list where keys are missing, misshapen or unknown, or where two names of one shared tensor
    hold different values.
    """
    search = any(key.startswith("cross_attn_options.") for key in state)
    names = published_names(model, task, search)
    faults = [f"{name} is missing" for name in names.values() if name not in state]
    weights = {ours: state[name] for ours, name in names.items() if name in state}
    vision = _vision_weights(state, model)
    parameters = dict(model.named_parameters())
    others = vision.keys() ^ {ours for ours in parameters if ours.startswith("vision.")}
    faults += [f"{name} of CLIP is only in {'the checkpoint' if name in vision else 'this model'}" for name in others]
    weights |= vision
    for ours, parameter in parameters.items():
        if ours in weights and weights[ours].shape != parameter.shape:
            shapes = f"has shape {tuple(weights[ours].shape)}, not {tuple(parameter.shape)}"
            faults.append(f"{names.get(ours, ours)} {shapes}")
    used, ignored = set(names.values()), {}
    for key in state.keys() - used:
        if reason := next((reason for pattern, reason in IGNORED if re.search(pattern, key)), None):
            ignored[key] = reason
        elif not key.startswith("visumodel."):
            shared = _shared_name(key)
            if shared not in used or shared not in state:
                faults.append(f"{key} is not in this model")
            elif not torch.equal(state[key], state[shared]):
                faults.append(f"{key} is not equal to {shared}, although it is a second name of it")
            else:
                ignored[key] = "second names of shared tensors"
    if faults:
        listed = "; ".join(sorted(faults)[:8])
        raise UserError(
            f"The published checkpoint does not fit this model: {listed} ({len(faults)} in all). Give the settings and "
            "the language model that it was trained with."
        )
    return weights, ignored


def load_published(path: str, module: DVPModule) -> dict[str, str]:
    """Take up a checkpoint file of the published code, weights and search preferences; returns why keys were ignored.

    Raises UserError for a file that is no such checkpoint, for settings that differ, and as `translate` does.
    """
    if isinstance(module.model.backbone, T5) and not module.as_published:
        raise UserError(f"{path} holds a T5 trained with the published arithmetic: load it with as_published=True.")
    checkpoint = read_lightning(path)
    checkpoint.refuse_other(_settings_of(module))
    state = dict(checkpoint.state_dict)
    preferences = state.pop("layer_alphas", None)
    if (preferences is None) != (module.bandit is None):
        there, here = ("an adaption", "a search") if preferences is None else ("a search", "an adaption")
        raise UserError(
            f"The published checkpoint {path} comes from {there} (layer_alphas), but this run is {here}: "
            f"set search_stage={preferences is not None}."
        )
    if module.bandit and module.bandit.name != "published":
        raise UserError(f"{path} holds a search by the published rule: go on with it by kab=published.")
    if module.bandit and preferences.shape != module.bandit.preferences.shape:
        raise UserError(
            f"{path} has layer_alphas for {len(preferences)} layers, not {module.model.num_layers}: give the language "
            "model that it searched."
        )
    weights, ignored = translate(state, module.model, module.task_name)
    require_finite(weights)
    if module.bandit:
        module.bandit.preferences = preferences.float().clone()
    parameters = dict(module.model.named_parameters())
    with torch.no_grad():
        for name, weight in weights.items():
            parameters[name].copy_(weight)
    for reason in sorted(set(ignored.values())):
        keys = sorted(key for key in ignored if ignored[key] == reason)
        print(f"load_path: {len(keys)} keys not used, {reason}: {', '.join(keys[:3])}{' ...' if keys[3:] else ''}")
    print(f"load_path: {_account(checkpoint, module)}")
    return ignored


def _settings_of(module: DVPModule) -> dict[str, Any]:
    """What a checkpoint has to agree on with the module that takes it, by the names of the settings."""
    model = module.model
    return {
        "datasets": module.task_name,
        "language_model": model.backbone.model.config.model_type.upper(),
        "search_stage": module.bandit is not None,
        "insert_layer": module.insert_layer,
        "use_adapter": bool(_adapter_names(model)),
        "num_heads": model.compressors[0].num_heads,
    }


def _account(checkpoint: PublishedCheckpoint, module: DVPModule) -> str:
    """What was loaded, what of it could not be checked, and whether texts are cut otherwise than there."""
    here, there = _settings_of(module), checkpoint.settings
    when = "" if checkpoint.epoch is None else f" after {checkpoint.epoch} epochs"
    known = " ".join(f"{key}={value}" for key, value in there.items()) or "no settings in it"
    text = f"{checkpoint.path} is a published checkpoint{when}: {known}."
    if unchecked := [key for key in ("insert_layer", "num_heads") if key not in there and here[key] is not None]:
        text += f" It does not tell, and nothing can check, {' and '.join(f'{key}={here[key]}' for key in unchecked)}."
    if here["language_model"] == "LLAMA":
        cut = "are not cut here either" if module.as_published else "are cut here at max_text_len: as_published=True"
        text += f" The texts of LLaMA were not cut and {cut}{'' if module.as_published else ' leaves them whole'}."
    return text


def _adapter_names(model: DVP) -> dict[str, str]:
    """Their name of each adapter by the place where ours is: numbered in the order of the layers, T5's per stack."""
    counts: Counter[str] = Counter()
    names = {}
    for name, module in model.named_modules():
        if isinstance(module, Adapter):
            stack = re.search(r"\.(encoder|decoder)\.block\.", name)
            group = f"{stack[1]}_adapter" if stack else "adapter_modules"
            names[name.removesuffix(".adapter")] = f"{group}.{counts[group]}"
            counts[group] += 1
    return names


def _vision_weights(state: Mapping[str, Tensor], model: DVP) -> dict[str, Tensor]:
    """CLIP's weights by our names."""
    encoder = model.vision.encoder
    visual = {key.removeprefix("visumodel."): state[key] for key in state if key.startswith("visumodel.")}
    renamed = from_openai_state(visual, heads=encoder.config.num_attention_heads)
    return {f"vision.encoder.{name}": tensor for name, tensor in renamed.named_parameters()}


def _shared_name(key: str) -> str:
    for pattern, replacement in ALIASES:
        key = re.sub(pattern, replacement, key)
    return key
