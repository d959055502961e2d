"""The invertible circular convolution as a layer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from led_fast.ops.circulant_logdet import circulant_logdet
from led_fast.ops.circular_conv_inverse import circular_conv_inverse
from led_fast.ops.tf32 import conv2d_without_tf32


class CircularConv2d(nn.Module):
    """A circular convolution that returns its log-determinant with its value (LED, App. A.3); a layer of flows.

    `nn.Conv2d(C, C, k, padding="same", padding_mode="circular")`, with the same parameters. The kernel starts
    as an orthogonal matrix at its centre, which keeps every sample's norm, plus other taps so small that
    every singular value lies near 1: the log-determinant is finite and near 0. It is -inf where training
    arrives at a singular kernel.

    Args:
        channels: C, of input and output.
        kernel_size: k, or (kh, kw). May be even, and larger than the images: the kernel then wraps around.
        bias: Whether to add a learned bias to each channel.

    Shape:
        (B, C, H, W) -> (B, C, H, W) and (B,), any H, W >= 1. The log-determinant is one for all
        samples, of float64 for float64 weights and of float32 otherwise.

    Raises:
        ValueError: A size is not positive, or the input has other than 4 dimensions or C channels.

    Example:
        >>> import torch
        >>> from led_fast.nn import CircularConv2d
        >>> y, log_abs_det = CircularConv2d(3, 5)(torch.zeros(4, 3, 8, 8))
        >>> y.shape, log_abs_det.shape
        (torch.Size([4, 3, 8, 8]), torch.Size([4]))
    """

    bijective = invertible = True

    def __init__(self, channels: int, kernel_size: int | Sequence[int], bias: bool = True) -> None:
        super().__init__()
        size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
        if len(size) != 2 or min(channels, *size) < 1:
            raise ValueError(
                "CircularConv2d: channels and kernel_size must be positive, kernel_size one integer or two, "
                f"got {channels} and {kernel_size}"
            )
        self.channels, self.kernel_size = channels, size
        self.weight = nn.Parameter(torch.empty(channels, channels, *size))
        self.bias = nn.Parameter(torch.empty(channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the initial weight; the bias becomes 0."""
        (kh, kw), centre = self.kernel_size, tuple((k - 1) // 2 for k in self.kernel_size)
        with torch.no_grad():
            # A symbol of Gaussian taps of deviation s has norm about 2 s sqrt(C kh kw): here 0.1.
            self.weight.normal_(std=0.05 / (self.channels * kh * kw) ** 0.5)
            self.weight[:, :, centre[0], centre[1]] += nn.init.orthogonal_(self.weight[:, :, 0, 0].clone())
            if self.bias is not None:
                self.bias.zero_()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns `y` like `x`, and `log_abs_det` in nats of shape (B,)."""
        self._check(x)
        weight: Tensor = self.weight  # once: a parametrisation computes it at every access
        fitted, padded = weight, x
        for dim in (-1, -2):
            fitted, around = _fit(fitted, dim, x.shape[dim])
            padded = _wrap_around(padded, dim, *around)
        y = conv2d_without_tf32(
            padded, fitted, self.bias
        )  # the log-determinant is of the weights as they are
        log_abs_det = circulant_logdet(weight, (x.shape[2], x.shape[3]))
        return y, log_abs_det.repeat(x.shape[0])  # no view: the caller may add to it in place

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the images whose convolution is `x`, and `log_abs_det` of this direction, in nats of shape (B,).

        See :func:`led_fast.circular_conv_inverse`, also for singular kernels.
        """
        self._check(x)
        bias = self.bias
        if bias is not None:
            x = x - bias.to(x.dtype)[:, None, None]
        return circular_conv_inverse(x, self.weight)

    def forward_with_score(self, x: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward`, and carries the score of a density along: see :class:`led_fast.flows.Layer`."""
        y, log_abs_det = self(x)
        with torch.no_grad():
            return y, log_abs_det, circular_conv_inverse(score, self.weight, transpose=True)[0]

    def _check(self, x: Tensor) -> None:
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise ValueError(
                f"CircularConv2d: x must have shape (B, {self.channels}, H, W), got {tuple(x.shape)}"
            )

    def log_abs_det(self, grid: tuple[int, int]) -> Tensor:
        """The log-determinant on images of size `grid`, in nats: a 0-d tensor."""
        return circulant_logdet(self.weight, grid)

    def extra_repr(self) -> str:
        """Parameters for `print(module)`."""
        return f"{self.channels}, kernel_size={self.kernel_size}, bias={self.bias is not None}"


def _wrap_around(x: Tensor, dim: int, before: int, after: int) -> Tensor:
    """Circular padding, as `F.pad` has it, but that it copies each side by itself, in backward as well."""
    if before + after == 0:
        return x
    first, middle, last = x.split([after, x.shape[dim] - after - before, before], dim)
    return torch.cat([last, first, middle, last, first], dim)


def _fit(weight: Tensor, dim: int, size: int) -> tuple[Tensor, list[int]]:
    """A kernel of at most `size` taps along `dim` for images of that size, and the padding around them."""
    taps = weight.shape[dim]
    before = (taps - 1) // 2
    if taps > size:
        before %= size
        repeats = -(-taps // size)
        missing = [0, repeats * size - taps]
        weight = (
            F.pad(weight, missing if dim == -1 else [0, 0, *missing])
            .unflatten(dim, (repeats, size))
            .sum(dim - 1)
        )
    return weight, [before, weight.shape[dim] - 1 - before]
