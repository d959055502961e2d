"""The networks inside an image generator's couplings and slices: free in form, because no Jacobian is taken of them.

The couplings work on cells: C·factor² values at each point of a coarse grid, of which pixel shuffles by two make
the image. The first `latents` values of a cell are the latent ones, the others are called pixels.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from led_fast.flows.contract import sum_event
from led_fast.nn import Conv2d, ConvTranspose2d, InplaceLeakyReLU, MixedSequential
from led_fast.ops.rearrange import rearranged

Shape = tuple[int, int, int]


class Decoder(nn.Module):
    """Draws all pixels, by mean and log scale, from the latent values as DCGAN's generator draws an image.

    A linear layer to 4x4, then transposed convolutions that double the size and halve the channels, with
    group norms (a batch norm would tie the samples of a batch together).

    Args:
        shape: of the image, (C, H, W), H = W = 4·2^n.
        factor: of the cells.
        latents: latent values a cell.
        width: channels at half of the image's size.

    Shape:
        (B, latents, h, w) -> (B, 2 (C factor² - latents), h, w) with h = H / factor, w = W / factor.
    """

    def __init__(self, shape: Shape, factor: int, latents: int, width: int) -> None:
        super().__init__()
        channels, size, _ = shape
        self.factor, self.latents = factor, latents
        widths = [width * size // (2 * s) for s in _doublings(size)]
        layers: list[nn.Module] = [
            nn.Flatten(),
            nn.Linear(latents * (size // factor) ** 2, widths[0] * 16),
            nn.Unflatten(1, (widths[0], 4, 4)),
        ]
        for inner, outer in pairwise(widths):
            layers += [
                _norm(inner),
                InplaceLeakyReLU(0.2),
                ConvTranspose2d(inner, outer, 4, stride=2, padding=1),
            ]
        self.net = MixedSequential(
            *layers, InplaceLeakyReLU(0.2), _small(Conv2d(widths[-1], 2 * channels, 3, padding=1))
        )
        self.bias = nn.Parameter(torch.zeros(2 * channels, size, size))

    def forward(self, latent: Tensor) -> Tensor:
        """Returns [mean ‖ log scale] of the pixels."""
        both = to_cells(self.net(latent) + self.bias, self.factor)
        return both.unflatten(1, (2, -1))[:, :, self.latents :].flatten(1, 2)


class Encoder(nn.Module):
    """What all pixels together say about the latent values: the decoder's mirror.

    Args: as of `Decoder`.

    Shape:
        (B, C factor² - latents, h, w) -> (B, 2 latents, h, w).
    """

    keeps_input = True

    def __init__(self, shape: Shape, factor: int, latents: int, width: int) -> None:
        super().__init__()
        channels, size, _ = shape
        grid = size // factor
        self.factor, self.latents = factor, latents
        self.holes, self.bend = Holes(factor, latents), Bend(shape)
        widths = [2 * channels, *(width * size // (2 * s) for s in _doublings(size)[-2::-1])]
        layers: list[nn.Module] = []
        for outer, inner in pairwise(widths):
            norm = [_norm(inner)] if layers else []
            layers += [Conv2d(outer, inner, 4, stride=2, padding=1), *norm, InplaceLeakyReLU(0.2)]
        self.net = MixedSequential(
            *layers,
            nn.Flatten(),
            _small(nn.Linear(16 * widths[-1], 2 * latents * grid**2)),
            nn.Unflatten(1, (2 * latents, grid, grid)),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns [mean ‖ log scale] for the latent values."""
        return self.net(self.bend(self.holes(pixels)))


class Inpainter(nn.Module):
    """What the pixels around it say about each latent value, which stands for a pixel too in the end.

    Args: as of `Decoder`.

    Shape:
        (B, C factor² - latents, h, w) -> (B, 2 latents, h, w).
    """

    keeps_input = True

    def __init__(self, shape: Shape, factor: int, latents: int, width: int) -> None:
        super().__init__()
        channels, size, _ = shape
        grid = size // factor
        self.factor, self.latents = factor, latents
        self.holes, self.bend = Holes(factor, latents), Bend(shape)
        self.net = MixedSequential(
            Conv2d(2 * channels, 2 * width, 2 * factor, stride=factor, padding=factor // 2),
            InplaceLeakyReLU(0.2),
            _small(Conv2d(2 * width, 2 * latents, 3, padding=1)),
        )
        self.bias = nn.Parameter(torch.zeros(2 * latents, grid, grid))

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns [mean ‖ log scale] for the latent values."""
        return self.net(self.bend(self.holes(pixels))) + self.bias


def local_network(channels: int, width: int) -> MixedSequential:
    """What the values around a place say about others there, by mean and log scale.

    Shape:
        (B, channels, h, w) -> (B, 2 channels, h, w).
    """
    return MixedSequential(
        Conv2d(channels, width, 3, padding=1),
        InplaceLeakyReLU(0.2),
        Conv2d(width, width, 3, padding=1),
        InplaceLeakyReLU(0.2),
        _small(Conv2d(width, 2 * channels, 3, padding=1)),
    )


class Bend(nn.Module):
    """Adds to an image a bounded version of itself, with a threshold and steepness learned at each pixel.

    A pixel's noise is as large as its signal where it is nearly always the same; this tells the two apart.

    Shape:
        (B, C, H, W) -> (B, 2 C, H, W).
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.steepness = nn.Parameter(torch.ones(shape))
        self.shift = nn.Parameter(torch.zeros(shape))

    def forward(self, image: Tensor) -> Tensor:
        """Returns [0.3 image ‖ tanh of it]."""
        return torch.cat([0.3 * image, torch.tanh(self.steepness * image + self.shift)], dim=1)


class NeighborConditional(nn.Module):
    """r(t2 | t1) of dropped pixels: normal, mean and scale by a small network of the kept ones (Eq. 8).

    It starts as the paper's choice, the mean being the kept neighbour and the scale 1.

    Args:
        channels: of kept and of dropped.
        width: hidden channels.

    Shape:
        dropped, kept: (B, channels, H, W). Output: (B,).
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.net = MixedSequential(
            Conv2d(channels, width, 3, padding=1),
            InplaceLeakyReLU(0.2),
            _small(Conv2d(width, 2 * channels, 3, padding=1)),
        )

    def forward(self, dropped: Tensor, kept: Tensor) -> Tensor:
        """Returns log r(dropped | kept)."""
        shift, log_scale = self.net(kept).chunk(2, dim=1)
        standardised = (dropped - kept - shift) * (-log_scale).exp()
        return sum_event(-0.5 * standardised.square() - log_scale - 0.5 * math.log(2 * math.pi))


class Holes(nn.Module):
    """The image of cells whose latent values are not known: zeros in their places.

    Args:
        factor: of the cells.
        latents: latent values a cell.

    Shape:
        (B, C factor² - latents, h, w) -> (B, C, H, W).
    """

    zero: Tensor

    def __init__(self, factor: int, latents: int) -> None:
        super().__init__()
        self.factor, self.latents = factor, latents
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns the image."""
        holes = self.zero.to(pixels.dtype).expand(len(pixels), self.latents, *pixels.shape[2:])
        return to_image(torch.cat([holes, pixels], dim=1), self.factor)


def to_cells(image: Tensor, factor: int) -> Tensor:
    """The cells of an image: what repeated `pixel_unshuffle` by 2 makes of it; `factor` is a power of two."""
    return rearranged(_to_cells, image, factor)


def _to_cells(image: Tensor, factor: int) -> Tensor:
    bits = factor.bit_length() - 1
    halves = image.unflatten(3, (-1, *[2] * bits)).unflatten(2, (-1, *[2] * bits))
    # The last bit of row and column comes first, because the first shuffle takes it.
    pairs = [d for bit in reversed(range(bits)) for d in (3 + bit, 4 + bits + bit)]
    return halves.permute(0, 1, *pairs, 2, 3 + bits).flatten(1, 1 + 2 * bits)


def to_image(cells: Tensor, factor: int) -> Tensor:
    """The image of cells: undoes `to_cells`, as repeated `pixel_shuffle` by 2 does."""
    return rearranged(_to_image, cells, factor)


def _to_image(cells: Tensor, factor: int) -> Tensor:
    bits = factor.bit_length() - 1
    halves = cells.unflatten(1, (-1, *[2] * (2 * bits)))
    rows = [2 + 2 * bits, *(2 + 2 * bit for bit in reversed(range(bits)))]
    columns = [3 + 2 * bits, *(3 + 2 * bit for bit in reversed(range(bits)))]
    return halves.permute(0, 1, *rows, *columns).flatten(3 + bits, 3 + 2 * bits).flatten(2, 2 + bits)


def _doublings(size: int) -> list[int]:
    """4, 8, … up to `size`."""
    return [4 << n for n in range(size.bit_length() - 2)]


def _norm(channels: int) -> nn.Module:
    return nn.GroupNorm(math.gcd(8, channels), channels)


def _small(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """A last layer that starts small: what it parametrises starts near the identity."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(0.1)
    return layer
