"""What the operators run: their kernels or, to be compared with them, the reference in plain PyTorch."""

from collections.abc import Iterator
from contextlib import contextmanager

_reference = False


def reference_in_use() -> bool:
    """Whether the operators run `led_fast.reference` at the moment.

    Example:
        >>> from led_fast.ops import reference_in_use
        >>> reference_in_use()
        False
    """
    return _reference


@contextmanager
def use_reference(active: bool = True) -> Iterator[None]:
    """Has every operator, and every layer made of them, run `led_fast.reference` instead of its kernels.

    For comparison: the same model, the same training, in plain PyTorch. Arguments are checked all the same.
    `perpendicular(mode="exact")` is made of PyTorch's functions on either setting. The switch holds for the
    whole process, all threads included, until the block ends; blocks may be nested.

    Args:
        active: False runs the kernels, also within a block that does not.

    Example:
        >>> import torch
        >>> from led_fast import nn, ops
        >>> layer, x = nn.SoftReLU(), torch.randn(4, 3)
        >>> with ops.use_reference():
        ...     y, log_abs_det = layer(x)
        >>> torch.testing.assert_close(layer(x)[0], y)
    """
    global _reference
    before, _reference = _reference, active
    try:
        yield
    finally:
        _reference = before
