"""The embedded world's language models and their tokenizers, trained from scratch on its text.

Each learns by its family's own objective (BERT masked words, T5 corrupted spans, LLaMA the next token) and, since that
text says what is where and what to answer, to answer about a scene that it is told. BERT answers from [CLS], whose
classifier is thrown away as that of next-sentence prediction is.

Legend: B batch, T tokens, D hidden size.
"""

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from dvp.backbones import BACKBONES
from dvp.scienceqa.text import ANSWER_STEM
from dvp.shapes.corpus import Entry, entries
from dvp.shapes.lessons import Lesson, look_up, reply, solve
from dvp.shapes.world import scenes

HIDDEN, LAYERS, HEADS = 64, 4, 4
BATCH, RATE = 64, 2e-3
LOOKING_UP = 1 / 5  # of LLaMA's updates
IGNORE = -100  # a target that no loss counts


def pretrain_bert(folder: Path, steps: int, sample: int) -> tuple[PreTrainedModel, str]:
    """BERT after masked words and answers from [CLS], and the losses reached. `folder` holds its tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        intermediate_size=2 * HIDDEN, max_position_embeddings=96, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, initializer_range=0.1,
    )  # fmt: skip
    model = BertForMaskedLM(config)
    corpus = entries(sample)
    answers = sorted({entry.answer for entry in corpus})
    classifier, summary = nn.Linear(HIDDEN, len(answers)), nn.Linear(HIDDEN, len(tokenizer))

    def losses(rows: list[Entry]) -> dict[str, Tensor]:
        asked, told = [row.question for row in rows], [row.description for row in rows]
        text = tokenizer(asked, told, padding=True, return_tensors="pt")
        ids, words = text["input_ids"], text["input_ids"] > max(tokenizer.all_special_ids)
        answering = (
            torch.arange(len(rows)) % 2 == 0
        )  # these rows see all words and answer, of the others some are masked
        masked = words & ~answering[:, None] & (torch.rand(ids.shape) < 0.15)
        text["input_ids"] = ids.masked_fill(masked, tokenizer.mask_token_id)
        states = model.bert(**text, output_hidden_states=True).hidden_states[1:]  # L times (B, T, D)
        hidden = states[-1]
        words_asked = torch.zeros(len(rows), len(tokenizer)).scatter_(1, ids * (text["token_type_ids"] == 0), 1.0)
        sums = summary(torch.stack([state[:, 0] for state in states]))  # (L, B, words)
        target = torch.tensor([answers.index(row.answer) for row in rows])[answering]
        logits = classifier(hidden[answering, 0])
        return {
            "masked words": F.cross_entropy(model.cls(hidden[masked]), ids[masked]),
            "question words": F.binary_cross_entropy_with_logits(sums, words_asked.expand_as(sums)) * 10,
            "answer": F.cross_entropy(logits, target),
            "accuracy": (logits.argmax(1) == target).float().mean().detach(),
        }

    line = _train("bert", nn.ModuleList([model, classifier, summary]), losses, _sampler(corpus), steps)
    return model.bert, line


def pretrain_t5(folder: Path, steps: int, sample: int) -> tuple[PreTrainedModel, str]:
    """T5 after corrupted spans and answers, and the losses reached. `folder` holds its tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=HIDDEN, d_kv=HIDDEN // HEADS, d_ff=2 * HIDDEN, num_layers=LAYERS,
        num_heads=HEADS, dropout_rate=0.0, decoder_start_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    rng = random.Random(0)

    def losses(rows: list[Entry]) -> dict[str, Tensor]:
        texts = tokenizer([f"{row.question} {row.description}" for row in rows])["input_ids"]
        sentinel, half = tokenizer.convert_tokens_to_ids("<extra_id_0>"), len(rows) // 2
        pairs = [_corrupt(ids, sentinel, rng) for ids in texts[:half]]
        pairs += zip(texts[half:], tokenizer([row.answer for row in rows[half:]])["input_ids"], strict=True)
        sources, targets = zip(*pairs, strict=True)
        ids, labels = _pad(sources, tokenizer.pad_token_id), _pad(targets, IGNORE)
        logits = model(input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long(), labels=labels).logits
        each = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=IGNORE)  # (B, T)
        real = labels != IGNORE
        return {
            "corrupted spans": each[:half].sum() / real[:half].sum(),
            "answer": each[half:].sum() / real[half:].sum(),
        }

    return model, _train("t5", model, losses, _sampler(entries(sample)), steps)


def _corrupt(ids: list[int], sentinel: int, rng: random.Random) -> tuple[list[int], list[int]]:
    """The text with up to three tokens replaced by the sentinel, and the sentinel with those; both end as `ids`."""
    length = rng.randint(1, 3)
    start = rng.randrange(len(ids) - length)
    missing = ids[start : start + length]
    return [*ids[:start], sentinel, *ids[start + length :]], [sentinel, *missing, ids[-1]]


def pretrain_llama(folder: Path, steps: int, sample: int) -> tuple[PreTrainedModel, str]:
    """LLaMA after next tokens, and the losses reached. `folder` holds its tokenizer.

    First it learns to look up, then to reply and to solve problems of ScienceQA, and to name the question's words from
    what a compressor would ask with: </s> in one, the mean of the prompt in the other.
    """
    tokens = BACKBONES["llama"].tokenizer(str(folder))
    config = LlamaConfig(
        vocab_size=tokens.size, hidden_size=HIDDEN, intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS, num_attention_heads=HEADS, max_position_embeddings=256, initializer_range=0.1,
        bos_token_id=tokens.bos_token_id, eos_token_id=tokens.eos_token_id, pad_token_id=None,
    )  # fmt: skip
    model, summary = LlamaForCausalLM(config), nn.Linear(HIDDEN, config.vocab_size)
    corpus, pictured, rng = entries(sample), scenes("pretrain", sample // 3), random.Random(0)

    def draw(step: int) -> list[Lesson]:
        if step <= steps * LOOKING_UP:
            return [look_up(tokens, rng) for _ in range(BATCH)]
        looked_up = [look_up(tokens, rng, f". {ANSWER_STEM}") for _ in range(BATCH // 4)]
        replies = [reply(tokens, entry) for entry in rng.sample(corpus, BATCH // 4)]
        return [*looked_up, *replies, *(solve(tokens, scene, rng) for scene in rng.sample(pictured, BATCH // 2))]

    def losses(rows: list[Lesson]) -> dict[str, Tensor]:
        ids = _pad([row.ids for row in rows], IGNORE)  # (B, T)
        found = model(input_ids=ids.clamp(min=0), output_hidden_states=True)  # padding comes last, so no token sees it
        logits = found.logits[:, :-1]
        each = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none", ignore_index=IGNORE)  # (B, T - 1)
        said = (ids[:, 1:] != IGNORE) & (torch.arange(1, ids.shape[1]) >= torch.tensor([[row.said] for row in rows]))
        answering = torch.zeros_like(said)
        asked = torch.zeros(ids.shape)
        words = torch.zeros(len(rows), config.vocab_size)
        for row, lesson in enumerate(rows):
            answering[row, torch.tensor(lesson.answers) - 1] = True
            asked[row, list(lesson.asked)] = 1 / max(1, len(lesson.asked))
            words[row, list(lesson.question)] = 1
        sums = summary(torch.einsum("lbtd,bt->lbd", torch.stack(found.hidden_states), asked))  # (L + 1, B, words)
        sums = sums[:, words.any(1)]
        named = F.binary_cross_entropy_with_logits(sums, words[words.any(1)].expand_as(sums), reduction="sum")
        right = logits[answering].argmax(-1) == ids[:, 1:][answering]
        return {
            "next token": each[said].mean(),
            "question words": named / max(1, sums.numel()) * 10,
            "answer": each[answering].mean(),
            "accuracy": right.float().mean().detach(),
        }

    return model, _train("llama", nn.ModuleList([model, summary]), losses, draw, steps)


def _pad(rows: Sequence[list[int]], value: int) -> Tensor:
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def _sampler(corpus: list[Entry]) -> Callable[[int], list[Entry]]:
    rng = random.Random(0)
    return lambda step: rng.sample(corpus, BATCH)


def _train(
    name: str,
    model: nn.Module,
    losses: Callable[[list], dict[str, Tensor]],
    draw: Callable[[int], list],
    steps: int,
) -> str:
    """Minimise the sum of the losses that carry a gradient; says what all of them averaged over the last 100 steps.

    draw: the rows of a step, counted from 1.
    """
    optimizer = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=steps, pct_start=0.1, cycle_momentum=False
    )
    start, history = time.time(), []
    for step in range(1, steps + 1):
        found = losses(draw(step))
        loss = sum(value for value in found.values() if value.requires_grad)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        history.append({key: value.item() for key, value in found.items()})
        if step % 100 == 0 or step == steps:
            recent = history[-100:]
            means = {key: sum(entry[key] for entry in recent) / len(recent) for key in found}
            line = ", ".join(f"{key} {value:.3f}" for key, value in means.items())
            print(f"{name} {step}/{steps}: {line}, {time.time() - start:.0f} s", flush=True)
    return line
