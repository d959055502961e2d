"""Layers on images: unflattening and pixel shuffles, which move values about, and circular convolutions (A.3)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from led_fast.flows.contract import check_features, check_positive
from led_fast.flows.score import forward_with_score
from led_fast.nn import CircularConv2d
from led_fast.reference import circulant_symbols


class Unflatten(nn.Module):
    """Gives flat samples the shape of images; ladj = 0.

    Args:
        *shape: of one image, e.g. (C, H, W).

    Shape:
        t: (B, D). Output: (B, *shape) and ladj (B,).
    """

    def __init__(self, *shape: int) -> None:
        super().__init__()
        check_positive("Unflatten", size=min(shape, default=0))
        self.shape = shape

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (t of the new shape, 0)."""
        check_features("Unflatten", t, math.prod(self.shape))
        return t.view(len(t), *self.shape), t.new_zeros(len(t))


class PixelShuffle(nn.Module):
    """Doubles height and width at the expense of channels (C.1); ladj = 0. See `torch.nn.PixelShuffle`.

    Args:
        factor: what height and width are multiplied by.

    Shape:
        t: (B, C factor², H, W). Output: (B, C, factor H, factor W) and ladj (B,).
    """

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        check_positive("PixelShuffle", factor=factor)
        self.factor = factor

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (t shuffled, 0)."""
        if t.dim() != 4 or t.shape[1] % self.factor**2:
            raise ValueError(
                f"PixelShuffle: t must have shape (B, C {self.factor**2}, H, W), got {tuple(t.shape)}"
            )
        return F.pixel_shuffle(t, self.factor), t.new_zeros(len(t))


class ChannelShuffle(nn.Module):
    """Regroups channels: those of all groups that are alike come to lie together; ladj = 0.

    Of G groups of K channels, channel k of group g goes from gK + k to kG + g; a shuffle by K undoes one by G.
    See `torch.nn.ChannelShuffle`.

    Args:
        groups: number G of groups.

    Shape:
        t: (B, G K, H, W). Output: the same and ladj (B,).
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        check_positive("ChannelShuffle", groups=groups)
        self.groups = groups

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (t shuffled, 0)."""
        if t.dim() != 4 or t.shape[1] % self.groups:
            raise ValueError(
                f"ChannelShuffle: t must have shape (B, {self.groups} K, H, W), got {tuple(t.shape)}"
            )
        return F.channel_shuffle(t, self.groups), t.new_zeros(len(t))


class PairNeighbors(nn.Module):
    """Puts even and odd rows, or columns, beside each other as channels; ladj = 0.

    The second half of the channels are the right (lower) neighbours of the first half: what the paper's
    `Slice` drops (Sec. 2.1.3).

    Args:
        along: "columns" or "rows", what is halved.

    Shape:
        t: (B, C, H, W). Output: (B, 2 C, H, W / 2) or (B, 2 C, H / 2, W), and ladj (B,).
    """

    def __init__(self, along: Literal["columns", "rows"]) -> None:
        super().__init__()
        if along not in ("columns", "rows"):
            raise ValueError(f"PairNeighbors: along must be 'columns' or 'rows', got {along!r}")
        self.along = along

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns ([even ‖ odd], 0)."""
        dim = 3 if self.along == "columns" else 2
        if t.dim() != 4 or t.shape[dim] % 2:
            raise ValueError(
                f"PairNeighbors: t must be 4-D with an even number of {self.along}, got {tuple(t.shape)}"
            )
        pairs = t.unflatten(dim, (-1, 2))
        return torch.cat(pairs.unbind(dim + 1), dim=1), t.new_zeros(len(t))


def _permuted_score(
    layer: Unflatten | PixelShuffle | ChannelShuffle | PairNeighbors, t: Tensor, score: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """A layer that only moves values about moves the score with them."""
    out, ladj = layer(t)
    return out, ladj, layer(score)[0]


forward_with_score.register(Unflatten, _permuted_score)
forward_with_score.register(PixelShuffle, _permuted_score)
forward_with_score.register(ChannelShuffle, _permuted_score)
forward_with_score.register(PairNeighbors, _permuted_score)


@forward_with_score.register
def _(layer: CircularConv2d, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    out, ladj = layer(t)
    with torch.no_grad():
        # The layer is a shift by the kernel's centre, then y(p) = Σ_tap w(tap) x(p + tap), whose symbol is the
        # conjugate of the weight's transform S. Its inverse transpose solves Sᵀ ŝ' = ŝ at every frequency.
        grid = t.shape[-2:]
        centre = [(k - 1) // 2 for k in layer.kernel_size]
        symbols = circulant_symbols(layer.weight, (grid[0], grid[1]))
        spectrum = torch.fft.rfft2(score.roll(centre, dims=(-2, -1))).permute(2, 3, 1, 0)
        solved = torch.linalg.solve(symbols.mT, spectrum).permute(3, 2, 0, 1)
        return out, ladj, torch.fft.irfft2(solved, s=grid)
