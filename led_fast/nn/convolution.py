"""Convolutions of images, PyTorch's in less time on a CPU."""

from __future__ import annotations

from torch import Tensor, nn

from led_fast.ops.autocast import autocast_is_on
from led_fast.ops.backend import reference_in_use
from led_fast.ops.convolution import convolution, transposed_convolution, whole_convolution


class Conv2d(nn.Conv2d):
    """:class:`torch.nn.Conv2d`, up to rounding, in less time on a CPU; see `led_fast.ops.convolution`.

    The output may be channels-last where the input is not. A pixel that is not finite may spoil more of the output
    than it does in PyTorch.

    Args:
        *args: As in torch, also by name.

    Shape:
        As in torch.

    Example:
        >>> import torch
        >>> from led_fast.nn import Conv2d
        >>> Conv2d(32, 2, 3, padding=1)(torch.ones(5, 32, 8, 8)).shape
        torch.Size([5, 2, 8, 8])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Returns the convolution."""
        if (geometry := _geometry(self, input)) is None:
            return super().forward(input)
        stride, padding = geometry
        if self.kernel_size == tuple(input.shape[2:]) and padding == 0:
            return whole_convolution(input, self.weight, self.bias)
        if input.shape[2] % stride or input.shape[3] % stride:
            return super().forward(input)
        return convolution(input, self.weight, self.bias, stride, padding)


class ConvTranspose2d(nn.ConvTranspose2d):
    """:class:`torch.nn.ConvTranspose2d`, up to rounding, in less time on a CPU; see `led_fast.ops.convolution`.

    The output may be channels-last where the input is not. A pixel that is not finite may spoil more of the output
    than it does in PyTorch.

    Args:
        *args: As in torch, also by name.

    Shape:
        As in torch.

    Example:
        >>> import torch
        >>> from led_fast.nn import ConvTranspose2d
        >>> ConvTranspose2d(24, 12, 4, stride=2, padding=1)(torch.ones(5, 24, 8, 8)).shape
        torch.Size([5, 12, 16, 16])
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Returns the transposed convolution."""
        geometry = _geometry(self, input)
        if geometry is None or output_size is not None or self.output_padding != (0, 0):
            return super().forward(input, output_size)
        return transposed_convolution(input, self.weight, self.bias, *geometry)


def _geometry(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> tuple[int, int] | None:
    """Stride and padding, where the functions of `led_fast.ops.convolution` do."""
    (k, width), (stride, other), padding = layer.kernel_size, layer.stride, layer.padding
    if isinstance(padding, str) or k != width or stride != other or padding[0] != padding[1]:
        return None
    # Images of 1 / stride the size, or of stride 1.
    fits = k - 2 * padding[0] == stride or (stride == 1 and padding[0] < k)
    simple = fits and (layer.groups, layer.dilation, layer.padding_mode) == (1, (1, 1), "zeros")
    on_cpu = x.device.type == "cpu" and x.dim() == 4 and x.is_floating_point() and not autocast_is_on(x)
    return (stride, padding[0]) if simple and on_cpu and not reference_in_use() else None
