"""Convolutions of images for networks of some dozens of channels: PyTorch's, in less time on a CPU."""

from __future__ import annotations

from torch import Tensor, nn

from led_fast.ops.autocast import autocast_is_on
from led_fast.ops.backend import reference_in_use
from led_fast.ops.convolution import convolution, transposed_convolution, whole_convolution


class Conv2d(nn.Conv2d):
    """:class:`torch.nn.Conv2d`, up to rounding, in less time on a CPU; see `led_fast.ops.convolution`.

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
        if not _is_simple(self, input):
            return super().forward(input)
        if self.kernel_size == tuple(input.shape[2:]) and self.padding == (0, 0):
            return whole_convolution(input, self.weight, self.bias)
        if all(n % self.stride[0] == 0 for n in input.shape[2:]):
            return convolution(input, self.weight, self.bias, self.stride[0], self.padding[0])
        return super().forward(input)


class ConvTranspose2d(nn.ConvTranspose2d):
    """:class:`torch.nn.ConvTranspose2d`, up to rounding, in less time on a CPU; see `led_fast.ops.convolution`."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Returns the transposed convolution."""
        if _is_simple(self, input) and output_size is None and self.output_padding == (0, 0):
            return transposed_convolution(input, self.weight, self.bias, self.stride[0], self.padding[0])
        return super().forward(input, output_size)


def _is_simple(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> bool:
    """Whether the functions of `led_fast.ops.convolution` do for a layer."""
    geometry = layer.kernel_size, layer.stride, layer.padding
    if not all(isinstance(both, tuple) and both[0] == both[1] for both in geometry):
        return False
    (k, _), (stride, _), (padding, _) = geometry
    return (
        x.device.type == "cpu"
        and x.dim() == 4
        and (k - 2 * padding == stride or (stride == 1 and padding < k))
        and (layer.groups, layer.dilation, layer.padding_mode) == (1, (1, 1), "zeros")
        and not (autocast_is_on(x) or reference_in_use())
    )
