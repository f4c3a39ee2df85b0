"""When image tokens are encoded live, when they come from the cache: `image_tokens=live|cache|auto`."""

import hashlib
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from dvp.data import QuestionData
from dvp.data.token_cache import NotNow, TokenCache
from dvp.encoders.loading import arithmetic

STORED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}  # by Lightning's precision; else float32


class ImageTokens(pl.Callback):
    """Lets the data module hand out image tokens of a cache, each distinct picture encoded once.

    mode: cache, which is filled before the first epoch; or auto, which grows it during the first epoch, as batches meet
    new pictures, and stays live (and says so) where reading would not be faster, the disk has no room or cannot be
    written, or another run is building it. on_device: hold all tokens on the device, if they fit, instead of fetching
    them batch by batch.
    """

    def __init__(self, mode: str, folder: Path, transform: str, on_device: bool = False):
        self.mode, self.folder, self.transform, self.on_device = mode, folder, transform, on_device
        self.grown: TokenCache | None = None  # while batches add to it
        self.growing = ExitStack()  # keeps other runs from building it meanwhile

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.start(trainer, trainer.datamodule, pl_module.model.vision, trainer.datamodule.splits(stage))

    def start(self, trainer: pl.Trainer, data: QuestionData, vision: nn.Module, splits: tuple[str, ...]) -> None:
        """Let `data` read the tokens of these splits from the cache, or grow it, unless auto stays live."""
        device = trainer.strategy.root_device
        vision = vision.to(device)

        @torch.no_grad()
        def encode(pixel_values: Tensor) -> Tensor:
            with trainer.precision_plugin.forward_context():
                return vision({"pixel_values": pixel_values.to(device)}).tokens

        tokens = encode(data.sample_pixels())  # (B, N, Dv), also a warm-up
        about = {"encoder": encoder_hash(vision), "transform": self.transform}
        dtype = STORED.get(str(trainer.precision), torch.float32)
        cache = TokenCache(self.folder, about, tuple(tokens.shape[1:]), dtype)
        if self.mode == "auto" and not self._worth_it(data, encode, tokens.to(dtype)):
            return
        # Several ranks would each encode what they meet, and all tokens on the device have to be there: then all first.
        grow = self.mode == "auto" and trainer.world_size == 1 and not self.on_device
        try:
            # Rank 0 tries for all: the others would wait for one that gave up.
            if unwritable := trainer.strategy.broadcast(cache.claim() if trainer.is_global_zero else ""):
                raise NotNow(unwritable)
            if grow:
                self.growing.enter_context(cache.building(wait=False))
            (data.grow_cache if grow else data.use_cache)(cache, encode, splits)
        except NotNow as error:
            self.growing.close()
            if self.mode == "cache":
                raise
            print(f"image_tokens=auto stays live: {error}")
            return
        if self.on_device:
            data.hold_on(device)
        if grow:
            self.grown = cache

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.grown and trainer.fit_loop.epoch_progress.current.processed:  # not the first epoch of all
            trainer.datamodule.encode_the_rest()
            self._stop_growing()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._stop_growing()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stop_growing()

    def _stop_growing(self) -> None:
        if self.grown:
            self.grown.flush()
        self.grown = None
        self.growing.close()

    def _worth_it(self, data: QuestionData, encode: Callable[[Tensor], Tensor], tokens: Tensor) -> bool:
        live = _seconds(lambda: encode(data.sample_pixels())) / len(tokens)
        stored = tokens.cpu()
        read = _seconds(stored.clone) / len(tokens)
        # Rank 0 measures for all: ranks that disagree would wait for each other forever.
        live, read = data.trainer.strategy.broadcast((live, read))
        if read >= live:
            print(f"image_tokens=auto stays live: {live * 1e3:.2f} ms to encode an image, {read * 1e3:.2f} to read it.")
        return read < live


def encoder_hash(vision: nn.Module) -> str:
    """What decides the tokens of prepared pictures: the sha256 of the encoder's weights, and its arithmetic."""
    return ", ".join(filter(None, (weights_hash(vision), arithmetic(vision.encoder.config))))


def weights_hash(module: nn.Module) -> str:
    """The sha256 of all weights of a module, names and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
