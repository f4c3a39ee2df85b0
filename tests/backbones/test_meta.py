"""Meta's folders and the published checkpoints become our models, exactly or not at all."""

import json

import pytest
import sqa_worlds as worlds
import torch

from dvp.backbones import load_backbone, load_with_head
from dvp.errors import UserError

HEADS, IDS = 4, torch.tensor([[1, 5, 9, 13, 4]])


def meta_state(model):
    """The weights of a Hugging Face LLaMA in Meta's layout: rows of q and k as neighbouring pairs."""
    names = {
        "model.embed_tokens": "tok_embeddings", "model.norm": "norm", "lm_head": "output", "model.layers": "layers",
        "self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv",
        "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2",
        "mlp.up_proj": "feed_forward.w3", "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    state = {"rope.freqs": torch.zeros(4)}
    for name, tensor in model.state_dict().items():
        if "q_proj" in name or "k_proj" in name:
            tensor = tensor.unflatten(0, (HEADS, 2, -1)).transpose(1, 2).flatten(0, 2)
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        state[name] = tensor.clone()
    return state


def write(folder, state, shards):
    """Meta's folder, its matrices cut in as many shards."""
    (folder / "params.json").write_text(json.dumps({"dim": 32, "n_heads": HEADS, "norm_eps": 1e-6, "vocab_size": -1}))
    across = ("tok_embeddings", "wo.", "w2.")
    for shard in range(shards):
        parts = {
            name: tensor
            if tensor.ndim == 1
            else tensor.chunk(shards, 1 if any(a in name for a in across) else 0)[shard].clone()
            for name, tensor in state.items()
        }
        torch.save(parts, folder / f"consolidated.{shard:02d}.pth")


def logits_of(folder):
    """The logits of what is loaded from a folder."""
    backbone, head = load_with_head(str(folder))
    return head(backbone.model(IDS).last_hidden_state)


@pytest.fixture
def original():
    torch.manual_seed(0)
    return worlds.llama_model()


@pytest.mark.parametrize("shards", [1, 2])
@torch.no_grad()
def test_a_folder_of_metas_gives_the_same_logits(shards, original, tmp_path):
    write(tmp_path, meta_state(original), shards)
    torch.testing.assert_close(logits_of(tmp_path), original(IDS).logits, atol=1e-5, rtol=0)
    backbone, head = load_with_head(str(tmp_path), dtype=torch.bfloat16)
    assert backbone.model.dtype == head.weight.dtype == torch.bfloat16
    hidden = load_backbone(str(tmp_path)).model(IDS).last_hidden_state  # for the other tasks, without its head
    torch.testing.assert_close(hidden, original.model(IDS).last_hidden_state, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_hugging_face_folder_gives_the_same_logits(original, tmp_path):
    original.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").touch()
    torch.testing.assert_close(logits_of(tmp_path), original(IDS).logits)


def test_what_is_no_whole_llama_is_refused(original, tmp_path):
    with pytest.raises(UserError, match="no config.json"):
        load_with_head(str(tmp_path))
    original.model.save_pretrained(tmp_path / "headless")
    (tmp_path / "headless" / "tokenizer.model").touch()
    with pytest.raises(UserError, match="lm_head"):
        load_with_head(str(tmp_path / "headless"))
    state = meta_state(original)
    del state["layers.1.attention.wk.weight"]
    write(tmp_path, state, 1)
    with pytest.raises(UserError, match="layers.1.self_attn.k_proj"):
        load_with_head(str(tmp_path))
    (tmp_path / "consolidated.00.pth").write_bytes(b"no weights")
    with pytest.raises(UserError, match="consolidated.00.pth"):
        load_with_head(str(tmp_path))
    (tmp_path / "consolidated.00.pth").unlink()
    with pytest.raises(UserError, match="no consolidated"):
        load_with_head(str(tmp_path))
