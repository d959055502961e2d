"""Convolutions of images for networks of some dozens of channels: PyTorch's, in less time on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from led_fast.nn.few_channels import FEW, conv2d_of_few_channels
from led_fast.ops._autograd import in_transform
from led_fast.ops.autocast import autocast_is_on


class Conv2d(nn.Conv2d):
    """:class:`torch.nn.Conv2d`, up to rounding, in less time on a CPU.

    There it computes with channels last, the layout that suits a CPU's convolutions, and gives images of many channels
    so. Those of a few channels, such as the mean and scale of each pixel, it computes and gives by blocks of pixels;
    see `led_fast.nn.few_channels`. On other devices, and under transforms, it is torch's.

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
        x = _channels_last(input)
        if min(self.in_channels, self.out_channels) <= FEW and self._is_in_blocks(x):
            return conv2d_of_few_channels(x, self.weight, self.bias, self.stride[0], self.padding[0])
        return super().forward(x)

    def _is_in_blocks(self, x: Tensor) -> bool:
        """Whether blocks of pixels of x make the output, as `conv2d_of_few_channels` wants them."""
        stride, block = self.stride[0], max(self.stride[0], 2)
        return (
            x.device.type == "cpu"
            and x.dim() == 4
            and not (x.shape[2] % block or x.shape[3] % block)
            and not isinstance(self.padding, str)
            and self.stride == (stride, stride)
            and all(k - 2 * p == stride for k, p in zip(self.kernel_size, self.padding, strict=True))
            and (self.groups, self.dilation, self.padding_mode) == (1, (1, 1), "zeros")
            and not (autocast_is_on(x) or in_transform())
        )


class ConvTranspose2d(nn.ConvTranspose2d):
    """:class:`torch.nn.ConvTranspose2d`, up to rounding, with channels last on a CPU; see :class:`Conv2d`."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Returns the transposed convolution."""
        return super().forward(_channels_last(input), output_size)


def _channels_last(x: Tensor) -> Tensor:
    on_cpu = x.device.type == "cpu" and x.dim() == 4
    return x.contiguous(memory_format=torch.channels_last) if on_cpu else x

