"""Discrete pixel values as continuous ones, and back."""

import torch
from torch import Tensor

LEVELS = 256


def dequantize(images: Tensor) -> Tensor:
    """Uniform dequantisation: `x = (v + u) / 256`, u ~ U(0, 1), from torch's global generator.

    x lies strictly inside (0, 1), and `quantize` gives v back exactly: u keeps the distance of a float32
    rounding error from 0 and 1.

    Args:
        images: uint8, any shape and device.

    Returns:
        float32, of the same shape, on the same device.

    Example:
        >>> import torch
        >>> from led_fast.data.images import dequantize, quantize
        >>> levels = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
        >>> bool((quantize(dequantize(levels)) == levels).all())
        True
    """
    noise = torch.rand(images.shape, dtype=torch.float32, device=images.device)
    return noise.clamp_(2**-24, 1 - 2**-16).add_(images).div_(LEVELS)


def quantize(x: Tensor) -> Tensor:
    """Pixel values of images in [0, 1]: `floor(256 x)`, uint8; values outside of the box are clipped.

    Example:
        >>> import torch
        >>> from led_fast.data.images import quantize
        >>> quantize(torch.tensor([[[[0.0, 0.5, 0.999]]]]))
        tensor([[[[  0, 128, 255]]]], dtype=torch.uint8)
    """
    return (x * LEVELS).floor().clamp(0, LEVELS - 1).to(torch.uint8)
