"""A start for generators of the paper's family, at which Eq. 8 holds and log q is nearly right (not in the paper)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from led_fast.flows import Linear, SoftReLU
from led_fast.nn import CircularConv2d

_SAMPLES = 4096
# Of those in the plane, over the root of the number of pixels, so that log q is off by a fixed sum.
_IMAGE_BENDS = 0.8
# 2x2 pixels, row by row: the right one is compared with the left one, then the lower left with the upper left.
_NEIGHBOURS = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]]


@torch.no_grad()
def start_near_identity(
    blocks: Sequence[tuple[Linear, SoftReLU]], last: Linear, dim: int, slices: Sequence[tuple[int, int]] = ()
) -> None:
    """Starts {linear, soft-ReLU} blocks and a last linear layer near the map for which Eq. 8 is true.

    Their input is standard normal: D coordinates of the latent space, then noise. Each linear layer turns the D
    coordinates among themselves and leaves the noise alone, with pre-activations of mean 0 and variance 1; and the
    noise's soft-ReLUs are straight lines. The last layer is the least squares' way from the activations back to
    the input. After it, what a slice drops takes up what it keeps, `t_j = η_j + t_i`, so that `r(t_j | t_i)` of Eq. 8,
    N(t_j; t_i, 1), is as right as the way back.

    The input is drawn here, from torch's global generator, so that processes of one seed start alike.

    Args:
        blocks: dense linear layers of F features, each with the learned soft-ReLU behind it.
        last: the dense linear layer behind them.
        dim: D, at most F.
        slices: of Eq. 8, as (width, how many of them are kept), in their order; the last one keeps D.

    Example:
        >>> import torch
        >>> from led_fast.flows import Linear, SoftReLU
        >>> blocks, last = [(Linear(3), SoftReLU(features=3, learned=True)) for _ in range(2)], Linear(3)
        >>> start_near_identity(blocks, last, 2, [(3, 2)])
        >>> t = torch.randn(100, 3)
        >>> y = t
        >>> for layer in (*blocks[0], *blocks[1], last):
        ...     y, _ = layer(y)
        >>> bool((y[:, :2] - t[:, :2]).square().mean() < 0.1)
        True
    """
    features, weight = last.features, last.weight
    samples = max(_SAMPLES, 8 * features)
    t = latent = torch.randn(samples, features, dtype=weight.dtype, device=weight.device)
    for linear, activation in blocks:
        nn.init.eye_(linear.weight)
        nn.init.orthogonal_(linear.weight[:dim, :dim])
        var, mean = torch.var_mean(t @ linear.weight.mT, 0)
        linear.weight.div_(var.sqrt()[:, None])
        linear.bias.copy_(-mean / var.sqrt())
        activation.log_ratio[dim:] = 0
        t = activation(linear(t)[0])[0]
    way_back = _least_squares(t, latent)
    for width, keep in reversed(slices):
        way_back[:, keep:width] += way_back[:, : width - keep]
    last.weight.copy_(way_back[:-1].mT)
    last.bias.copy_(way_back[-1])


def _least_squares(t: Tensor, target: Tensor) -> Tensor:
    """The affine map from rows of t to rows of the target: matrix (F, F), and below it the shift."""
    rows = torch.cat([t, torch.ones_like(t[:, :1])], 1)
    return torch.linalg.lstsq(rows.double(), target.double()).solution


@torch.no_grad()
def start_convolutions_near_identity(layers: Sequence[nn.Module], channels: int, values: int) -> None:
    """Starts circular convolutions, learned soft-ReLUs and pixel shuffles near the map for which Eq. 8 is exact.

    Their input is standard normal. A quarter of its values become the upper left ones of every 2x2 pixels, which the
    slices behind the layers keep. Convolutions turn these among themselves and leave the noise alone, with taps beside
    the centre of 0; soft-ReLUs are nearly straight lines, those of the noise quite so. The last convolution adds to
    each pixel that a slice drops the one that Eq. 8 compares it with.

    Rotations are drawn by torch's global generator, so that processes of one seed start alike.

    Args:
        layers: from the coarsest grid on, down to the shuffle onto the image of twice the size, which follows on a
            convolution of 4 `channels`.
        channels: C, of the image.
        values: how many the slices keep, C·H·W.

    Example:
        >>> import torch
        >>> from led_fast.flows import PixelShuffle, SoftReLU
        >>> from led_fast.nn import CircularConv2d
        >>> layers = [CircularConv2d(4, 3), SoftReLU(features=4, learned=True), CircularConv2d(4, 3), PixelShuffle(2)]
        >>> start_convolutions_near_identity(layers, 1, 16)
        >>> y = torch.randn(2000, 4, 4, 4)
        >>> for layer in layers:
        ...     y, _ = layer(y)
        >>> bool(((y[:, :, :, 1::2] - y[:, :, :, ::2]).std() - 1).abs() < 0.02)
        True
    """
    last = [layer for layer in layers if isinstance(layer, CircularConv2d)][-1]
    for before, layer, behind in zip([None, *layers[:-1]], layers, [*layers[1:], None], strict=True):
        if isinstance(layer, SoftReLU):
            kept = _becomes_upper_left(len(layer.position), channels).to(layer.position)
            layer.log_ratio.mul_(_IMAGE_BENDS / values**0.5 * kept)
            # It shifts by -position; behind a shuffle that differs between pixels, and no bias takes it back.
            layer.position.mul_(kept if isinstance(behind, CircularConv2d) else 0)
        elif isinstance(layer, CircularConv2d):
            matrix = _rotation(_becomes_upper_left(layer.channels, channels)).to(layer.weight)
            if layer is last:
                matrix = torch.block_diag(*[layer.weight.new_tensor(_NEIGHBOURS)] * channels) @ matrix
            row, column = ((size - 1) // 2 for size in layer.kernel_size)
            layer.weight.zero_()[:, :, row, column] = matrix
            if layer.bias is not None and isinstance(before, SoftReLU):
                layer.bias.copy_(matrix @ before.position)


def _becomes_upper_left(width: int, channels: int) -> Tensor:
    """Which of C·4^n channels hold, after n shuffles, the upper left of every 2x2 pixels; (width,) of booleans."""
    return torch.arange(width, device="cpu") // (width // channels // 4) % 4 == 0


def _rotation(turned: Tensor) -> Tensor:
    """A random orthogonal matrix of some of the channels, the identity of the others."""
    matrix, places = torch.eye(len(turned), device="cpu"), turned.nonzero().squeeze(1)
    matrix[places[:, None], places] = nn.init.orthogonal_(matrix.new_empty(len(places), len(places)))
    return matrix
