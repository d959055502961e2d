"""Reported densities are those of eval mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(*objects: object) -> Iterator[None]:
    """Puts the modules among `objects` in eval mode, and every submodule back in its own mode afterwards.

    Only there is a tracked density that of one fixed function: batch statistics stay out of it.

    Example:
        >>> import torch
        >>> from led_fast.density import eval_mode
        >>> layer = torch.nn.Dropout()
        >>> with eval_mode(layer):
        ...     print(layer.training)
        False
    """
    modules = [m for o in objects if isinstance(o, nn.Module) for m in o.modules()]
    modes = [m.training for m in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, training in zip(modules, modes, strict=True):
            module.training = training
