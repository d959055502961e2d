"""A layer as a transform of zuko, which is one of torch.distributions with `call_and_ladj`."""

from __future__ import annotations

import math
from itertools import chain

import torch
from torch import Size, Tensor, nn
from torch.distributions import Transform, constraints
from zuko.lazy import LazyTransform

from led_fast.flows.contract import inverse
from led_fast.ops.autocast import in_full_precision


class LazyLayer(LazyTransform):
    """What `led_fast.flows.adapters.to_zuko` returns."""

    def __init__(self, layer: nn.Module, event_dims: tuple[int, int]) -> None:
        super().__init__()
        self.layer = layer
        self.event_dims = event_dims

    def forward(self, c: Tensor | None = None) -> LayerTransform:
        """Returns the transform, whatever the context."""
        return LayerTransform(self.layer, self.event_dims)


class LayerTransform(Transform):
    """One direction of a layer, over any batch dimensions.

    Args:
        layer: runs both ways.
        event_dims: number of dimensions of one sample before and after `layer.forward`.
        backward: whether to call is to run `layer.inverse`.
        cache_size: as of torch.distributions.
    """

    def __init__(
        self, layer: nn.Module, event_dims: tuple[int, int], backward: bool = False, cache_size: int = 0
    ) -> None:
        super().__init__(cache_size)
        self.layer = layer
        self.event_dims = event_dims
        self.backward = backward
        self.bijective = getattr(layer, "bijective", False)
        before, after = reversed(event_dims) if backward else event_dims
        self.domain = constraints.independent(constraints.real, before)
        self.codomain = constraints.independent(constraints.real, after)

    def __repr__(self) -> str:  # noqa: D105
        return f"{type(self).__name__}({self.layer}{', backward=True' if self.backward else ''})"

    @property
    def inv(self) -> LayerTransform:
        """The other direction."""
        return LayerTransform(self.layer, self.event_dims, not self.backward, self._cache_size)

    def with_cache(self, cache_size: int = 1) -> LayerTransform:
        """The same transform with another cache."""
        return LayerTransform(self.layer, self.event_dims, self.backward, cache_size)

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps x of shape (..., *event) to (y, ladj), ladj of shape (...)."""
        batch, event = self._split(x.shape)
        samples = x.reshape(math.prod(batch), *event)
        with in_full_precision(samples) as samples:
            y, ladj = inverse(self.layer, samples) if self.backward else self.layer(samples)
        return y.reshape(*batch, *y.shape[1:]), ladj.reshape(batch)

    def _call(self, x: Tensor) -> Tensor:
        return self.call_and_ladj(x)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        return self.inv(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Log|det| at x, of shape (...); back from y where the way there draws noise, as in `Inflate`."""
        return self.call_and_ladj(x)[1] if self.bijective or self.backward else -self.inv.call_and_ladj(y)[1]

    def forward_shape(self, shape: Size) -> Size:
        """The shape of what a value of this shape is mapped to."""
        batch, event = self._split(shape)
        tensors = chain(self.layer.parameters(), self.layer.buffers())
        like = next((t for t in tensors if t.is_floating_point()), torch.empty(()))
        with torch.no_grad():  # no samples: nothing is computed, and no statistics move
            out = self.call_and_ladj(like.new_zeros(0, *event))[0]
        return Size((*batch, *out.shape[1:]))

    def inverse_shape(self, shape: Size) -> Size:
        """The shape of what is mapped to a value of this shape."""
        return self.inv.forward_shape(shape)

    def _split(self, shape: Size) -> tuple[Size, Size]:
        """Batch and event dimensions of an input."""
        events = self.domain.event_dim
        if len(shape) < events:
            raise ValueError(
                f"to_zuko: samples of {type(self.layer).__name__} must have {events} dimensions, got "
                f"shape {tuple(shape)}"
            )
        return shape[: len(shape) - events], shape[len(shape) - events :]
