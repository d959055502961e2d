"""A layer as a transform of nflows."""

from __future__ import annotations

from nflows.transforms.base import Transform
from torch import Tensor, nn

from led_fast.flows.contract import inverse
from led_fast.ops.autocast import in_full_precision


class LayerTransform(Transform):
    """What `led_fast.flows.adapters.to_nflows` returns."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns (outputs, logabsdet) of `layer.forward`."""
        with in_full_precision(inputs) as inputs:
            return self.layer(inputs)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns (outputs, logabsdet) of `layer.inverse`."""
        with in_full_precision(inputs) as inputs:
            return inverse(self.layer, inputs)
