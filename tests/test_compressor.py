"""The compressor is multi-head attention with one query, and marks text and prompt."""

import pytest
import torch
from torch import nn

from dvp.backbones import load_backbone
from dvp.compressor import VisualTokenCompressor
from dvp.errors import UserError

HIDDEN, IMAGE, TOKENS = 32, 24, 5


def reference(compressor: VisualTokenCompressor, query: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """The same prompt by torch's own multi-head attention, given the same weights."""
    width = compressor.query.out_features
    attention = nn.MultiheadAttention(width, compressor.num_heads, kdim=IMAGE, vdim=IMAGE, batch_first=True)
    with torch.no_grad():
        for theirs in (attention.q_proj_weight, attention.out_proj.weight):  # ours are outside
            theirs.copy_(torch.eye(width))
        attention.out_proj.bias.zero_()
        attention.k_proj_weight.copy_(compressor.key.weight)
        attention.v_proj_weight.copy_(compressor.value.weight)
        attention.in_proj_bias.copy_(torch.cat([torch.zeros(width), compressor.key.bias, compressor.value.bias]))
    return compressor.merge(attention(compressor.query(query), image, image)[0])


@pytest.mark.parametrize("width, heads", [(None, 4), (None, 1), (16, 8)])
@pytest.mark.parametrize("batch", [1, 3])
def test_equals_torchs_multi_head_attention(width: int | None, heads: int, batch: int) -> None:
    compressor = VisualTokenCompressor(IMAGE, HIDDEN, width, heads).eval()
    for parameter in compressor.parameters():
        nn.init.normal_(parameter, std=0.3)
    query, image = torch.randn(batch, 1, HIDDEN), torch.randn(batch, TOKENS, IMAGE)
    expected = reference(compressor, query, image)
    assert expected.shape == (batch, 1, HIDDEN)
    torch.testing.assert_close(compressor(query, image), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", [2, 5])
def test_more_prompts_are_as_many_queries_each_the_texts_own_and_a_learned_one(count: int) -> None:
    compressor = VisualTokenCompressor(IMAGE, HIDDEN, num_heads=4, prompt_tokens=count).eval()
    query, image = torch.randn(3, 1, HIDDEN), torch.randn(3, TOKENS, IMAGE)
    prompts = compressor(query, image)
    assert prompts.shape == (3, count, HIDDEN)
    for number, learned in enumerate(compressor.queries.weight):
        expected = reference(compressor, query + learned, image)
        torch.testing.assert_close(prompts[:, number : number + 1], expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(prompts[:, 0], prompts[:, 1], atol=1e-3)


def test_one_prompt_has_no_learned_query() -> None:
    names = {name for name, _ in VisualTokenCompressor(IMAGE, HIDDEN, num_heads=4).named_parameters()}
    assert not any(name.startswith("queries") for name in names)


def test_dropout_only_in_training() -> None:
    compressor = VisualTokenCompressor(IMAGE, HIDDEN, num_heads=4, dropout=0.5)
    query, image = torch.randn(2, 1, HIDDEN), torch.randn(2, TOKENS, IMAGE)
    assert not torch.equal(compressor(query, image), compressor(query, image))
    compressor.eval()
    torch.testing.assert_close(compressor(query, image), compressor(query, image), rtol=0, atol=0)


@pytest.mark.parametrize("token_types", [False, True])
@pytest.mark.parametrize("family", ["bert", "t5"])
def test_types_are_added_to_text_and_prompt_after_the_query(
    family: str, token_types: bool, language_models: dict[str, str]
) -> None:
    backbone = load_backbone(language_models[family]).eval()
    compressor = VisualTokenCompressor(IMAGE, HIDDEN, num_heads=4, token_types=token_types).eval()
    batch = {"input_ids": torch.tensor([[3, 6, 4, 0]]), "attention_mask": torch.tensor([[1, 1, 1, 0]])}
    state, image = backbone.embed(batch), torch.randn(1, TOKENS, IMAGE)
    text_type, prompt_type = compressor.token_types.weight if token_types else (0, 0)
    inserted = compressor.insert(backbone, state, image).hidden
    torch.testing.assert_close(inserted[:, :1], compressor(backbone.query(state), image) + prompt_type)
    torch.testing.assert_close(inserted[:, 1:], state.hidden + text_type)


@pytest.mark.parametrize("width, heads", [(None, 5), (512, 12)])
def test_heads_that_do_not_divide_the_width_are_refused(width: int | None, heads: int) -> None:
    with pytest.raises(UserError, match=f"num_heads={heads} does not divide .* {width or HIDDEN}"):
        VisualTokenCompressor(IMAGE, HIDDEN, width, heads)
