"""Tiny random models and problems for the tests: no file is read, no weight has a meaning."""

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPVisionConfig, CLIPVisionModel, PreTrainedModel, PreTrainedTokenizerFast

from dvp.backbones import BACKBONES
from dvp.model import DVP
from dvp.scienceqa.prefix import build_parts
from dvp.scienceqa.tokens import IGNORED, Layout, Row
from dvp.tasks import TASKS

LAYOUT = Layout((17, 29), (17, 30, 31), class_tokens=2, max_length=40)
SUBJECTS = ("natural science", "social science", "language science")


def clip_model(image_size: int = 32) -> CLIPVisionModel:
    """A CLIP of 8 blocks, 2 class tokens."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 8, "num_attention_heads": 2}
    return CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=image_size, patch_size=16)).eval()


def llama_model(vocabulary: int = 60, family: str = "llama") -> PreTrainedModel:
    """A LLaMA of 3 layers with its head, or one of another family that writes."""
    made = BACKBONES[family].headed_class
    options = {"bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3, "attn_implementation": "sdpa"}
    return made(made.config_class(vocab_size=vocabulary, **BACKBONES[family].tiny, **options)).eval()


def build(vision: CLIPVisionModel, llama: PreTrainedModel, layout: Layout = LAYOUT, **options: Any) -> DVP:
    """A model of these parts; options: those of build_parts and of DVP."""
    of_parts = {key: options.pop(key) for key in ("as_published", "adapter", "projector_width") if key in options}
    backbone = BACKBONES[llama.config.model_type](llama.get_decoder())
    parts = build_parts(vision, backbone, llama.get_output_embeddings(), layout, **of_parts)
    return DVP(**parts, **{"num_heads": 4} | options)


def model(as_published: bool = False, arms: int | None = 1, layout: Layout = LAYOUT, family: str = "llama") -> DVP:
    """A model whose adapters act: everything that is trained is random."""
    torch.manual_seed(0)
    found = build(
        clip_model(), llama_model(family=family), layout, arms=arms, compressor_width=16, as_published=as_published
    )
    for parameter in found.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    return found.eval()


@torch.no_grad()
def logits_everywhere(model: DVP, batch: dict[str, Any], insert_layer: int = 1) -> torch.Tensor:
    """Logits (B, T, V) at every position."""
    state, image = model.embed(batch)
    state = model.run(state, model.inserts(insert_layer, image))
    return model.head(model.backbone.part("norm")(state.hidden))


def loss(model: DVP, batch: dict[str, Any], insert_layer: int = 1) -> torch.Tensor:
    """The loss of a batch with its targets."""
    return TASKS["scienceqa"].loss(model(batch, insert_layer), batch["targets"])


def row(length: int, has_image: bool, prompt_length: int = 5, seed: int = 0) -> Row:
    """A row of `length` ids after BOS."""
    ids = [1, *torch.randint(3, 60, (length,), generator=torch.Generator().manual_seed(seed + length)).tolist()]
    return Row(ids, [IGNORED] * (1 + prompt_length) + ids[1 + prompt_length :], prompt_length, has_image)


def picture(seed: int = 0) -> torch.Tensor:
    """Pixel values (3, 32, 32)."""
    return torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(seed))


def write_raw(folder: Path, counts: dict[str, int]) -> Path:
    """ScienceQA's official layout with so many invented problems per split, every other with an image; its folder."""
    problems, splits, captions = {}, {}, {}
    for split, count in counts.items():
        splits[split] = [str(len(problems) + index) for index in range(count)]
        for index, pid in enumerate(splits[split]):
            problems[pid] = _problem(index, split)
            if problems[pid]["image"]:
                captions[pid] = "A square."
                place = folder / "images" / split / pid / "image.png"
                place.parent.mkdir(parents=True)
                Image.new("RGB", (20, 30 + index), ("red", "blue")[index // 2 % 2]).save(place)
    contents = {"problems": problems, "pid_splits": splits, "captions": {"model": "none", "captions": captions}}
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def _problem(index: int, split: str) -> dict:
    return {
        "question": "Which colour is it ?" + " please" * (index % 7),
        "choices": ["red", "blue", "green"][: 2 + index % 2],
        "answer": index // 2 % 2,
        "hint": "" if index % 3 else "Look at the square .",
        "image": None if index % 2 else "image.png",
        "lecture": "Colours have names .\nRed is one ." if index % 4 else "",
        "solution": "It is so .",
        "subject": SUBJECTS[index % 3],
        "grade": f"grade{1 + index % 12}",
        "split": split,
    }


def write_models(folder: Path) -> tuple[Path, Path]:
    """Folders of a tiny CLIP and of a tiny LLaMA with its tokenizer, in the Hugging Face layout."""
    words = ["<unk>", "<s>", "</s>"]
    words += (
        "Question : Context Options Response The answer is . BECAUSE Image N / A B C D E ( ) Which colour it ?".split()
    )
    words += "please Look at the square red blue green Colours have names Red one It so \\ nRed".split()
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder / "llama")
    torch.manual_seed(1)
    llama_model(len(vocabulary)).save_pretrained(folder / "llama")
    clip_model().save_pretrained(folder / "clip")
    return folder / "clip", folder / "llama"
