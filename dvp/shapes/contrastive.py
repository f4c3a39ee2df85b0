"""The embedded world's CLIP: pictures and captions told apart by contrast, phrase by phrase.

Late interaction (as FILIP, Yao et al. 2021): a caption fits a picture as well as its phrases find a token that fits
them. Beside the batch's other captions, each picture must refuse its own with one word changed (as NegCLIP, Yuksekgonul
et al. 2022), so that the tokens bind colour, shape and place.

Legend: B batch, N image tokens, M phrases of a caption, W words of a phrase, D width.
"""

import random
import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel

from dvp.encoders import CLIP
from dvp.shapes.world import COLORS, COLUMNS, PLACES, ROWS, SHAPES, SIZE, Scene, Thing, draw, scenes

WIDTH, PATCH = 64, 10


class PhraseTower(nn.Module):
    """Embeds phrases as the sum of their words. Only pre-training needs it.

    A tower that mixes the words would allow the picture's tokens to hide colour, shape and place from linear layers.
    """

    def __init__(self, width: int):
        super().__init__()
        self.words = nn.Embedding(len(WORDS), width)

    def forward(self, phrases: Tensor) -> Tensor:
        """Unit vectors (..., D) of phrases (..., W)."""
        return F.normalize(self.words(phrases).sum(-2), dim=-1)


WORDS = [*COLORS, *SHAPES, *ROWS, *COLUMNS]
PHRASES = 6  # of the longest caption


def phrases_of(scene: Scene) -> np.ndarray:
    """Word ids (M, W) of the scene's caption, padded with -1."""
    ids = np.full((PHRASES, 4), -1)
    for row, thing in enumerate(scene):
        ids[row] = [WORDS.index(word) for word in (thing.color, thing.shape, *PLACES[thing.place].split())]
    return ids


def altered(scene: Scene, rng: random.Random) -> Scene:
    """The scene with one thing's colour, shape or place changed."""
    which = rng.randrange(len(scene))
    thing = scene[which]
    free = [place for place in range(len(PLACES)) if place not in {other.place for other in scene}]
    changed: Thing = rng.choice(
        (
            thing._replace(color=rng.choice([color for color in COLORS if color != thing.color])),
            thing._replace(shape=rng.choice([shape for shape in SHAPES if shape != thing.shape])),
            thing._replace(place=rng.choice(free)),
        )
    )
    return (*scene[:which], changed, *scene[which + 1 :])


def fit(tokens: Tensor, phrases: Tensor, tower: PhraseTower, pairs: str) -> Tensor:
    """How well pictures (B, N, D) fit captions (C, M, W): the mean over phrases of the token that fits best.

    pairs: "bnd,cmd->bcmn" for every picture with every caption, (B, C); "bnd,bmd->bmn" for each with its own, (B,).
    """
    real = phrases[..., 0] >= 0  # (C, M)
    best = torch.einsum(pairs, tokens, tower(phrases.clamp(min=0))).amax(-1)  # (B, C, M) or (B, M)
    return (best * real).sum(-1) / real.sum(-1)


def pretrain_clip(steps: int, sample: int, batch: int = 64, rate: float = 1e-3) -> tuple[CLIPVisionModel, str]:
    """The trained vision tower and a line on the loss and accuracy that it reached."""
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=3, num_attention_heads=4,
        image_size=SIZE, patch_size=PATCH, projection_dim=WIDTH,
    )  # fmt: skip
    vision, tower, project = CLIPVisionModel(config), PhraseTower(WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)
    scale = nn.Parameter(torch.tensor(np.log(1 / 0.07)))
    parameters = [*vision.parameters(), *tower.parameters(), *project.parameters(), scale]
    optimizer = torch.optim.AdamW(parameters, rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.1, cycle_momentum=False)
    rng, noise = random.Random(0), np.random.default_rng(0)
    world = scenes("pretrain", sample)
    images = torch.from_numpy(np.stack([draw(scene, noise) for scene in world]))  # (sample, 60, 60, 3)
    captions = torch.from_numpy(np.stack([phrases_of(scene) for scene in world]))
    start, history = time.time(), []
    for step in range(steps):
        rows = rng.sample(range(sample), batch)
        wrong = torch.from_numpy(np.stack([phrases_of(altered(world[row], rng)) for row in rows]))
        tokens = F.normalize(project(vision(normalised(images[rows])).last_hidden_state), dim=-1)  # (B, N, D)
        scores = fit(tokens, captions[rows], tower, "bnd,cmd->bcmn")  # (B, B)
        altered_scores = fit(tokens, wrong, tower, "bnd,bmd->bmn")  # (B,)
        refusing = scale.exp() * torch.cat([scores, altered_scores[:, None]], dim=1)  # (B, B + 1)
        target = torch.arange(batch)
        loss = (F.cross_entropy(refusing, target) + F.cross_entropy(scale.exp() * scores.T, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        history.append((loss.item(), (refusing.argmax(1) == target).float().mean().item()))
        if step % 50 == 49:
            mean_loss, accuracy = np.mean(history[-50:], axis=0)
            took = time.time() - start
            print(f"clip {step + 1}/{steps}: loss {mean_loss:.3f}, accuracy {accuracy:.3f}, {took:.0f} s", flush=True)
    _center(vision, images[:500])
    mean_loss, accuracy = np.mean(history[-50:], axis=0)
    reached = f"contrastive loss {mean_loss:.3f}, {accuracy:.1%} of pictures pick their caption among {batch + 1}"
    return vision.eval(), reached


@torch.no_grad()
def _center(vision: CLIPVisionModel, images: Tensor) -> None:
    """Take the mean token of the pictures out of the bias that comes last.

    What all tokens share tells no picture from another, but slows down whoever learns from them.
    """
    vision.encoder.layers[-1].mlp.fc2.bias -= vision(normalised(images)).last_hidden_state.mean((0, 1))


def normalised(images: Tensor) -> Tensor:
    """Pictures (B, H, W, 3) uint8 as CLIP takes them, (B, 3, H, W)."""
    pixels = images.permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(CLIP.mean)[:, None, None]) / torch.tensor(CLIP.std)[:, None, None]
