"""Layers that only move values about: unflattening, shuffles and pairs of neighbours."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from led_fast.flows.contract import Layer, check_event, check_positive, log_dtype
from led_fast.ops.rearrange import rearranged


class Rearrangement(Layer):
    """The base of a layer that only moves values about: ladj = 0, and the score moves with them."""

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (t rearranged, 0)."""
        return self._there(t), t.new_zeros(t.shape[0], dtype=log_dtype(t))

    def inverse(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (t put back, 0)."""
        return self._back(t), t.new_zeros(t.shape[0], dtype=log_dtype(t))

    def forward_with_score(self, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Layer`: the score is rearranged like t."""
        return *self(t), self._there(score)

    def put_back(self, t: Tensor) -> Tensor:
        """Returns the value of `inverse` alone."""
        return self._back(t)

    def _there(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def _back(self, t: Tensor) -> Tensor:
        raise NotImplementedError


class Unflatten(Rearrangement):
    """Gives flat samples the shape of images; ladj = 0.

    Args:
        *shape: of one image, e.g. (C, H, W).

    Shape:
        t: (B, D). Output: (B, *shape) and ladj (B,).

    Example:
        >>> import torch
        >>> from led_fast.flows import Unflatten
        >>> Unflatten(4, 2, 2)(torch.zeros(5, 16))[0].shape
        torch.Size([5, 4, 2, 2])
    """

    def __init__(self, *shape: int) -> None:
        super().__init__()
        check_positive("Unflatten", size=min(shape, default=0))
        self.shape = shape

    def _there(self, t: Tensor) -> Tensor:
        check_event("Unflatten", t, torch.Size([math.prod(self.shape)]))
        return t.reshape(t.shape[0], *self.shape)

    def _back(self, t: Tensor) -> Tensor:
        check_event("Unflatten", t, torch.Size(self.shape))
        return t.flatten(1)


class PixelShuffle(Rearrangement):
    """Doubles height and width at the expense of channels (C.1); ladj = 0. See `torch.nn.PixelShuffle`.

    Args:
        factor: what height and width are multiplied by.

    Shape:
        t: (B, C factor², H, W). Output: (B, C, factor H, factor W) and ladj (B,).

    Example:
        >>> import torch
        >>> from led_fast.flows import PixelShuffle
        >>> PixelShuffle()(torch.zeros(5, 4, 2, 2))[0].shape
        torch.Size([5, 1, 4, 4])
    """

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        check_positive("PixelShuffle", factor=factor)
        self.factor = factor

    def _there(self, t: Tensor) -> Tensor:
        if t.dim() != 4 or t.shape[1] % self.factor**2:
            raise ValueError(
                f"PixelShuffle: t must have shape (B, C {self.factor**2}, H, W), got {tuple(t.shape)}"
            )
        return rearranged(_shuffle, t, self.factor)

    def _back(self, t: Tensor) -> Tensor:
        if t.dim() != 4 or t.shape[2] % self.factor or t.shape[3] % self.factor:
            raise ValueError(
                f"PixelShuffle: t must have shape (B, C, {self.factor} H, {self.factor} W), got {tuple(t.shape)}"
            )
        return rearranged(_unshuffle, t, self.factor)


# Not F.pixel_shuffle, whose gradient of an empty batch has another shape, nor F.pixel_unshuffle.
def _shuffle(t: Tensor, factor: int) -> Tensor:
    return t.unflatten(1, (-1, factor, factor)).permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)


def _unshuffle(t: Tensor, factor: int) -> Tensor:
    blocks = t.unflatten(3, (-1, factor)).unflatten(2, (-1, factor))
    return blocks.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)


class ChannelShuffle(Rearrangement):
    """Regroups channels: those of all groups that are alike come to lie together; ladj = 0.

    Of G groups of K channels, channel k of group g goes from gK + k to kG + g; a shuffle by K undoes one by G.
    See `torch.nn.ChannelShuffle`.

    Args:
        groups: number G of groups.

    Shape:
        t: (B, G K, H, W). Output: the same and ladj (B,).

    Example:
        >>> import torch
        >>> from led_fast.flows import ChannelShuffle
        >>> ChannelShuffle(2)(torch.arange(4.0).view(1, 4, 1, 1))[0].flatten()
        tensor([0., 2., 1., 3.])
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        check_positive("ChannelShuffle", groups=groups)
        self.groups = groups

    def _there(self, t: Tensor) -> Tensor:
        return F.channel_shuffle(t, self._groups_of(t)[0])

    def _back(self, t: Tensor) -> Tensor:
        return F.channel_shuffle(t, self._groups_of(t)[1])

    def _groups_of(self, t: Tensor) -> tuple[int, int]:
        """(G, K) of t."""
        if t.dim() != 4 or t.shape[1] % self.groups:
            raise ValueError(
                f"ChannelShuffle: t must have shape (B, {self.groups} K, H, W), got {tuple(t.shape)}"
            )
        return self.groups, t.shape[1] // self.groups


class PairNeighbors(Rearrangement):
    """Puts even and odd rows, or columns, beside each other as channels; ladj = 0.

    The second half of the channels are the right (lower) neighbours of the first half: what the paper's
    `Slice` drops (Sec. 2.1.3).

    Args:
        along: "columns" or "rows", what is halved.

    Shape:
        t: (B, C, H, W). Output: (B, 2 C, H, W / 2) or (B, 2 C, H / 2, W), and ladj (B,).

    Example:
        >>> import torch
        >>> from led_fast.flows import PairNeighbors
        >>> PairNeighbors("columns")(torch.zeros(5, 3, 4, 4))[0].shape
        torch.Size([5, 6, 4, 2])
    """

    def __init__(self, along: Literal["columns", "rows"]) -> None:
        super().__init__()
        if along not in ("columns", "rows"):
            raise ValueError(f"PairNeighbors: along must be 'columns' or 'rows', got {along!r}")
        self.along = along
        self._dim = 3 if along == "columns" else 2

    def _there(self, t: Tensor) -> Tensor:
        if t.dim() != 4 or t.shape[self._dim] % 2:
            raise ValueError(
                f"PairNeighbors: t must be 4-D with an even number of {self.along}, got {tuple(t.shape)}"
            )
        pairs = t.unflatten(self._dim, (-1, 2))
        return torch.cat(pairs.unbind(self._dim + 1), dim=1)

    def _back(self, t: Tensor) -> Tensor:
        if t.dim() != 4 or t.shape[1] % 2:
            raise ValueError(f"PairNeighbors: t must have shape (B, 2 C, H, W), got {tuple(t.shape)}")
        return torch.stack(t.chunk(2, dim=1), dim=self._dim + 1).flatten(self._dim, self._dim + 1)
