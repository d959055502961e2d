"""What a GPU must not round to TensorFloat-32: a map whose log-determinant is of its weights as they are."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def convolutions_without_tf32(x: Tensor) -> Iterator[None]:
    """Has convolutions of x's device compute in float32 while the block runs; their gradients go by torch's flag.

    PyTorch rounds their inputs to ten bits by default (`torch.backends.cudnn.allow_tf32`). A compiled graph cannot set
    the flag, and follows it.
    """
    if x.device.type in ("cpu", "meta") or torch.compiler.is_compiling():
        yield
        return
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before
