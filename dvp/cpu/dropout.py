"""Dropout with cheap random numbers on a CPU, where torch draws 64 bits for every element, on one core."""

import torch
from torch import Tensor, nn

LEVELS = 2**16  # of a draw of 16 bits


class Dropout(nn.Dropout):
    """nn.Dropout that on a CPU takes four decisions from a draw of 64 bits.

    There p is rounded to 16 bits, and what is kept is scaled by just that, so that the mean stays.
    """

    def forward(self, x: Tensor) -> Tensor:
        dropped = round(self.p * LEVELS)
        if not self.training or not 0 < dropped < LEVELS or x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)  # all 64 bits
        draws = draws.view(torch.int16)[: x.numel()].view(x.shape)
        keep = torch.ge(draws, dropped - LEVELS // 2, out=torch.empty(x.shape, dtype=x.dtype))
        return x * keep.mul_(LEVELS / (LEVELS - dropped))


def replace_dropout(root: nn.Module) -> None:
    """Put Dropout in the place of every nn.Dropout below `root`."""
    for module in list(root.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p))
