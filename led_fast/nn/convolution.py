"""Convolutions of images for networks of some dozens of channels: PyTorch's, in less time on a CPU."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from led_fast.ops._autograd import in_transform
from led_fast.ops.autocast import autocast_is_on
from led_fast.ops.convolution import channels_last, convolution, is_in_blocks


class Conv2d(nn.Conv2d):
    """:class:`torch.nn.Conv2d`, up to rounding, in less time on a CPU; see :func:`led_fast.ops.convolution`.

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
        if _is_plain(self, input) and is_in_blocks(
            tuple(input.shape[2:]), self.kernel_size[0], self.stride[0], self.padding[0]
        ):
            return convolution(input, self.weight, self.bias, self.stride[0], self.padding[0])
        return super().forward(input)


class ConvTranspose2d(nn.ConvTranspose2d):
    """:class:`torch.nn.ConvTranspose2d`, up to rounding, in less time on a CPU."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Returns the transposed convolution."""
        if output_size is None and _is_plain(self, input) and self.output_padding == (0, 0):
            x, weight = channels_last(input), channels_last(self.weight)
            return F.conv_transpose2d(x, weight, self.bias, self.stride, self.padding)
        return super().forward(input, output_size)


def _is_plain(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> bool:
    """Whether a layer is one of squares, of which there is no derivative but by reverse mode, on a CPU."""
    geometry = layer.kernel_size, layer.stride, layer.padding
    return (
        x.device.type == "cpu"
        and x.dim() == 4
        and all(isinstance(both, tuple) and both[0] == both[1] for both in geometry)
        and (layer.groups, layer.dilation, layer.padding_mode) == (1, (1, 1), "zeros")
        and not (autocast_is_on(x) or in_transform())
    )
