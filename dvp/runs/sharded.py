"""A frozen language model that does not fit one device: its matrices in pieces, one on each (`strategy=fsdp`)."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.strategies import DDPStrategy
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers.pytorch_utils import Conv1D

from dvp.errors import UserError
from dvp.evaluation.submission import gather


class ShardedFrozen(DDPStrategy):
    """DDP of what is trained, which every device has whole, and FSDP of the language model's frozen matrices.

    A matrix is whole on a device only while it is used. Checkpoints hold what is trained, so they are those of any run.
    """

    def setup(self, trainer: pl.Trainer) -> None:
        """Cut the frozen matrices before anything is moved to the device."""
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        for module in self.lightning_module.model.backbone.modules():
            frozen = not any(parameter.requires_grad for parameter in module.parameters(recurse=False))
            if isinstance(module, nn.Linear | Conv1D) and frozen:
                fully_shard(module, mesh=mesh, reshard_after_forward=True)
        pieces = [name for name, one in self.lightning_module.named_parameters() if isinstance(one, DTensor)]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self.lightning_module, pieces)
        super().setup(trainer)


class Even(pl.Callback):
    """All devices evaluate equally often, since it takes all of them to put a matrix together.

    Rows are dealt without padding, so that some devices have a batch less than others: they go through their last one
    again, and count it once.
    """

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._count(trainer, trainer.val_dataloaders)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._count(trainer, trainer.test_dataloaders)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, _: Any, batch: Any, index: int, loader: int = 0
    ) -> None:
        self._accompany(trainer, pl_module, batch, index, loader)

    on_test_batch_end = on_validation_batch_end

    def _count(self, trainer: pl.Trainer, loaders: list[Any]) -> None:
        self.own = [len(loader) for loader in loaders]
        by_loader = list(zip(*gather([self.own]), strict=True))
        self.most = [max(counts) for counts in by_loader]
        if any(0 in counts for counts in by_loader):
            raise UserError(
                f"strategy=fsdp on {trainer.world_size} devices needs as many rows in every split: use fewer devices."
            )

    def _accompany(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int, loader: int) -> None:
        if index + 1 == self.own[loader] < self.most[loader]:
            with trainer.precision_plugin.forward_context():
                module.model(batch, module.best_layer)
