"""clip.load and clip.from_openai_state: the tokens equal open_clip's, and whatever is not CLIP is refused."""

import hashlib
import json
import os
from pathlib import Path

import open_clip.transformer
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPVisionModel

import clip
from dvp.encoders.openai import OPENAI_SHA256
from dvp.errors import UserError

TINY = dict(image_size=32, patch_size=16, width=64, layers=2, heads=1)
# Width, patch, heads and picture are the real ones. L/14 has 24 layers; two of them keep the test short, and depth is
# already true in B/16.
SHAPES = {
    "tiny": TINY,
    "ViT-B/16": dict(image_size=224, patch_size=16, width=768, layers=12, heads=12),
    "ViT-L/14": dict(image_size=224, patch_size=14, width=1024, layers=2, heads=16),
}


def independent_vit(**sizes: int) -> nn.Module:
    """open_clip's image encoder with every parameter random, so that no bias or norm is trivially 0 or 1."""
    torch.manual_seed(0)
    vit = open_clip.transformer.VisionTransformer(
        **sizes, mlp_ratio=4, output_dim=16, act_layer=open_clip.transformer.QuickGELU
    )
    for parameter in vit.parameters():
        parameter.data = (parameter.data + 0.02 * torch.randn_like(parameter)).half().float()  # archives hold fp16
    return vit.eval()


def independent_tokens(vit: nn.Module, images: Tensor) -> Tensor:
    """Tokens (B, N, D) that leave open_clip's last layer, before its norm."""
    tokens = []
    hook = vit.transformer.register_forward_hook(lambda module, inputs, output: tokens.append(output))
    with torch.no_grad():
        vit(images)
    hook.remove()
    return tokens[0]


def openai_state(vit: nn.Module) -> dict[str, Tensor]:
    text_half = {"transformer.resblocks.0.ln_1.weight": torch.ones(8), "logit_scale": torch.tensor(1.0)}
    return {f"visual.{name}": tensor.half() for name, tensor in vit.state_dict().items()} | text_half


def save_torchscript(state: dict[str, Tensor], path: Path) -> None:
    """Write an archive like OpenAI's: a scripted tree of modules that holds the state under its names."""
    root = nn.Module()
    for name, tensor in state.items():
        *parents, leaf = name.split(".")
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, nn.Module())
            module = getattr(module, parent)
        module.register_parameter(leaf, nn.Parameter(tensor))
    torch.jit.script(root).save(path)


@pytest.mark.parametrize("name", SHAPES)
def test_tokens_of_an_openai_archive_equal_open_clips(name, tmp_path):
    sizes = SHAPES[name]
    vit = independent_vit(**sizes)
    save_torchscript(openai_state(vit), tmp_path / "archive.pt")
    model = clip.load(str(tmp_path / "archive.pt"))
    images = torch.randn(1, 3, sizes["image_size"], sizes["image_size"])
    tokens = model(pixel_values=images).last_hidden_state
    assert tokens.shape == (1, 1 + (sizes["image_size"] // sizes["patch_size"]) ** 2, sizes["width"])
    torch.testing.assert_close(tokens, independent_tokens(vit, images), atol=1e-4, rtol=0)
    assert model.config.image_size == sizes["image_size"]


def test_a_loaded_model_is_frozen_float32_and_in_eval_mode(tmp_path):
    torch.save(openai_state(independent_vit(**TINY)), tmp_path / "state.pt")
    model = clip.load(str(tmp_path / "state.pt"))
    assert isinstance(model, CLIPVisionModel) and not model.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in model.parameters())


def test_bare_names_and_a_given_number_of_heads():
    vit = independent_vit(**TINY | {"heads": 4})
    images = torch.randn(2, 3, 32, 32)
    model = clip.from_openai_state(vit.state_dict(), heads=4)
    torch.testing.assert_close(
        model(pixel_values=images).last_hidden_state, independent_tokens(vit, images), atol=1e-4, rtol=0
    )


@pytest.mark.skipif("DVP_GOLDEN" not in os.environ, reason="DVP_GOLDEN names no folder of published numbers")
def test_tokens_equal_the_published_ones():
    cases = sorted(Path(os.environ["DVP_GOLDEN"]).glob("*_k*/meta.json"))
    seen = 0
    for path in cases:
        meta = json.loads(path.read_text())
        if "out.clip_tokens" not in meta["tensors"]:
            continue
        state = load_file(path.parents[1] / meta["state"] / "tensors.safetensors")
        visual = {name[len("visumodel.") :]: t for name, t in state.items() if name.startswith("visumodel.")}
        case = load_file(path.parent / "tensors.safetensors")
        model = clip.from_openai_state(visual, heads=meta["dims"]["clip"]["heads"])
        tokens = model(pixel_values=case["in.image"]).last_hidden_state
        torch.testing.assert_close(tokens, case["out.clip_tokens"], atol=1e-4, rtol=0)
        seen += 1
    assert seen


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".cache/clip").mkdir(parents=True)
    return tmp_path


def test_an_official_name_without_its_file_says_where_to_put_it(home):
    with pytest.raises(UserError, match=r"\.cache/clip/ViT-B-16\.pt is missing: .*https://.*/ViT-B-16\.pt"):
        clip.load("ViT-B/16")


def test_an_official_name_with_another_file_is_refused(home):
    torch.save(openai_state(independent_vit(**TINY)), home / ".cache/clip/ViT-L-14.pt")
    with pytest.raises(UserError, match="sha256"):
        clip.load("ViT-L/14")


def test_an_official_name_with_the_right_sum_is_loaded(home, monkeypatch):
    path = home / ".cache/clip/ViT-B-32.pt"
    torch.save(openai_state(independent_vit(**TINY)), path)
    monkeypatch.setitem(OPENAI_SHA256, "ViT-B/32", hashlib.sha256(path.read_bytes()).hexdigest())
    assert clip.load("ViT-B/32").config.hidden_size == TINY["width"]


@pytest.mark.parametrize("name", ["RN50", "RN101", "RN50x64"])
def test_resnets_are_refused_by_name(name):
    with pytest.raises(UserError, match=f"{name} is a ResNet.*ViT-B/16"):
        clip.load(name)


def test_resnets_are_refused_by_their_weights(tmp_path):
    torch.save({"visual.layer1.0.conv1.weight": torch.zeros(4, 4, 1, 1)}, tmp_path / "renamed.pt")
    with pytest.raises(UserError, match="ResNet"):
        clip.load(str(tmp_path / "renamed.pt"))


def test_a_state_with_a_tensor_missing_misshapen_or_left_over_is_refused():
    state = openai_state(independent_vit(**TINY))
    state.pop("visual.ln_pre.bias")
    state["visual.ln_post.weight"] = torch.ones(3)
    state["visual.router"] = torch.ones(3)
    with pytest.raises(
        UserError, match=r"pre_layrnorm.bias is missing.*post_layernorm.weight is \(3,\).*router is left"
    ):
        clip.from_openai_state(state)


@pytest.mark.parametrize("state", [{}, {"state_dict": {}}, {"visual.proj": torch.zeros(2)}])
def test_a_state_of_something_else_is_refused(state):
    with pytest.raises(UserError, match="not the weights of a CLIP vision transformer"):
        clip.from_openai_state(state)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(UserError, match="width 64 cannot have 3 heads"):
        clip.from_openai_state(openai_state(independent_vit(**TINY)), heads=3)


def test_damaged_files_are_refused(tmp_path):
    save_torchscript(openai_state(independent_vit(**TINY)), tmp_path / "good.pt")
    content = (tmp_path / "good.pt").read_bytes()
    damage = {"truncated": content[: len(content) // 2], "empty": b"", "text": b"<html>not found</html>"}
    for name, left in damage.items():
        (tmp_path / f"{name}.pt").write_bytes(left)
        with pytest.raises(UserError, match=f"{name}.pt is neither OpenAI's archive nor"):
            clip.load(str(tmp_path / f"{name}.pt"))


class Attack:
    """A pickle of it would run a command when read."""

    def __reduce__(self):
        return os.mkdir, (Attack.target,)


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path):
    Attack.target = str(tmp_path / "ran")
    torch.save(Attack(), tmp_path / "attack.pt")
    with pytest.raises(UserError, match="state dict of tensors"):
        clip.load(str(tmp_path / "attack.pt"))
    assert not (tmp_path / "ran").exists()
