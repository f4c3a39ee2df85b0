"""Freezing: what stays trainable of a module, by the names of its parameters."""

import re

from torch import nn

NOTHING = r"(?!)"  # an expression that finds no name


def freeze(root: nn.Module, except_for: str) -> None:
    """Leave only the parameters trainable, in fp32, whose dotted name matches the regular expression `except_for`."""
    for name, parameter in root.named_parameters():
        parameter.requires_grad_(re.search(except_for, name) is not None)
        if parameter.requires_grad:  # a frozen base may be in 16 bit; what is trained is not
            parameter.data = parameter.data.float()
