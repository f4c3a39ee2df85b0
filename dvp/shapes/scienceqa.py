"""The embedded world's ScienceQA: multiple choice about scenes in the official layout, half of it with a picture, and a
LLaMA that learned from text alone to answer it.

python -m dvp.shapes.scienceqa        # makes dvp/shapes/models/llama_sqa again
"""

import io
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import sentencepiece
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from dvp.scienceqa.text import ANSWER_STEM, write_example
from dvp.scienceqa.tokens import Tokens, load_tokens
from dvp.shapes.questions import ask
from dvp.shapes.raw import Picture
from dvp.shapes.world import COLORS, SHAPES, Scene, caption, scenes

MODEL = Path(__file__).parent / "models" / "llama_sqa"
KINDS = ("color at", "shape at")
POOLS: tuple[Sequence[str], ...] = (tuple(COLORS), tuple(SHAPES))
CHOICES = (2, 3, 4)
LECTURES = {
    "color at": "A color is what light a shape gives back.",
    "shape at": "A shape is what outline a thing has.",
}
SUBJECTS = {"color at": "natural science", "shape at": "language science"}
FORMATS = ("QCM-ALE", "QCM-EA")  # the second teaches in two steps what the first does at once
TOLD = (1, 1, 1, 2, 3)  # things that a pre-training text tells of
HIDDEN, LAYERS, HEADS = 64, 4, 4
STEPS, BATCH, RATE, SAMPLE = 3000, 48, 3e-3, 30000
IGNORE = -100  # a target that no loss counts


def write_science_qa(root: Path, splits: dict[str, list[Picture]], rng: random.Random) -> None:
    """ScienceQA: problems.json, pid_splits.json, captions.json, images; of each scene one problem with and one without."""
    problems, captions, pids = {}, {}, {}
    for split, pictures in splits.items():
        pids[split] = [str(2 * picture.number + part) for picture in pictures for part in (0, 1)]
        for picture in pictures:
            seen, told = (str(2 * picture.number + part) for part in (0, 1))
            problems[seen] = problem(picture.scene, True, rng) | {"split": split}
            problems[told] = problem(picture.scene, False, rng) | {"split": split}
            captions[seen] = "A picture of shapes."
            place = root / "images" / split / seen / "image.png"
            place.parent.mkdir(parents=True)
            Image.open(io.BytesIO(picture.jpeg)).save(place)
    for name, content in {"problems": problems, "pid_splits": pids, "captions": {"captions": captions}}.items():
        (root / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def problem(scene: Scene, has_image: bool, rng: random.Random) -> dict[str, Any]:
    """A problem about the scene, which is seen, or told in the hint."""
    (question,) = ask(scene, KINDS, 1, rng)
    pool = next(pool for pool in POOLS if question.answer in pool)
    wrong = rng.sample([answer for answer in pool if answer != question.answer], rng.choice(CHOICES) - 1)
    choices = rng.sample([question.answer, *wrong], len(wrong) + 1)
    return {
        "question": question.text,
        "choices": choices,
        "answer": choices.index(question.answer),
        "hint": "" if has_image else caption(scene, rng),
        "caption": "",
        "image": "image.png" if has_image else None,
        "task": "closed choice",
        "grade": f"grade{rng.randint(1, 12)}",
        "subject": SUBJECTS[question.kind],
        "topic": "shapes",
        "category": question.kind,
        "skill": question.kind,
        "lecture": LECTURES[question.kind],
        "solution": question.full_answer,
    }


class Text(NamedTuple):
    """A pre-training text in the three parts of a ScienceQA sequence; `image` tells what a picture would show."""

    image: str
    prompt: str
    target: str


def corpus(count: int) -> list[Text]:
    """Texts about parts of the pre-training scenes: what is where is told in the place of the image or in the hint."""
    rng, found = random.Random(0), []
    for scene in scenes("pretrain", count):
        part = tuple(sorted(rng.sample(scene, rng.choice(TOLD))))
        has_image = rng.random() < 0.5
        prompt, target = write_example(problem(part, has_image, rng), rng.choice(FORMATS))
        found.append(Text(f"Image: {caption(part, rng)}" if has_image else "Image: N/A", prompt, target))
    return found


def pretrain(folder: Path, steps: int = STEPS) -> str:
    """What the model reached; model and tokenizer lie in `folder`."""
    texts, rng = corpus(SAMPLE), random.Random(0)
    size = _write_tokenizer(folder, [" ".join(text) for text in texts[:4000]])
    tokens = load_tokens(str(folder))
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size, hidden_size=HIDDEN, intermediate_size=2 * HIDDEN, num_hidden_layers=LAYERS,
            num_attention_heads=HEADS, max_position_embeddings=256, bos_token_id=tokens.bos, eos_token_id=tokens.eos,
            pad_token_id=None, initializer_range=0.1,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=steps, pct_start=0.1, cycle_momentum=False
    )
    start, history = time.time(), []
    for step in range(1, steps + 1):
        loss, right = _learn(model, tokens, rng.sample(texts, BATCH))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        history = [*history[-99:], right]
        reached = f"{sum(history) / len(history):.1%} of the last answers right"
        if step % 100 == 0:
            print(f"llama_sqa {step}/{steps}: {reached}, {time.time() - start:.0f} s", flush=True)
    model.half().save_pretrained(folder)
    return reached


def _learn(model: LlamaForCausalLM, tokens: Tokens, texts: list[Text]) -> tuple[torch.Tensor, float]:
    """The loss of the next token, the letters' once more, and the share of letters that are right."""
    rows, letters = [], []
    for text in texts:
        before, after = text.target.split(ANSWER_STEM)
        front = [tokens.bos, *tokens.encode(text.image), *tokens.encode(text.prompt + before + ANSWER_STEM)]
        rows.append(torch.tensor([*front, *tokens.encode(after), tokens.eos]))
        letters.append(len(front) - 1)
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=IGNORE)  # (B, T)
    logits = model(input_ids=ids.clamp(min=0)).logits[:, :-1]  # padding comes last, so no real token sees it
    each = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none", ignore_index=IGNORE)  # (B, T - 1)
    row = torch.arange(len(rows))
    right = logits[row, letters].argmax(-1) == ids[row, torch.tensor(letters) + 1]
    return each.sum() / (ids[:, 1:] != IGNORE).sum() + each[row, letters].mean(), right.float().mean().item()


def _write_tokenizer(folder: Path, sentences: list[str]) -> int:
    """The vocabulary's size; LLaMA's kind of SentencePiece model goes to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=(model := io.BytesIO()), model_type="bpe", vocab_size=500,
        byte_fallback=True, hard_vocab_limit=False, character_coverage=1.0, num_threads=1, minloglevel=2, unk_id=0,
        bos_id=1, eos_id=2, pad_id=-1,
    )  # fmt: skip
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).get_piece_size()


if __name__ == "__main__":
    print(pretrain(MODEL))
