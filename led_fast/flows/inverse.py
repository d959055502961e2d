"""A layer that runs another one backward."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from led_fast.flows.contract import Layer, NotInvertibleError, gradient, inverse, invertible


class Inverse(Layer):
    """`t' = f⁻¹(t)` of a bijection f, ladj = -log|det ∂f/∂t'|.

    Likelihood training goes from the data to the latent values: it costs least where that way is the cheap one of f,
    as it is of a convolution.

    Args:
        layer: f, that keeps the contract of `led_fast.flows.contract`.

    Shape:
        t: f's output. Output: f's input, and ladj (B,).

    Raises:
        NotInvertibleError: the layer has no inverse, or is no bijection.

    Example:
        >>> import torch
        >>> from led_fast.flows import CircularConv2d, Inverse
        >>> convolution = CircularConv2d(4, 3)
        >>> t, _ = convolution(torch.ones(1, 4, 8, 8))
        >>> torch.allclose(Inverse(convolution)(t)[0], torch.ones(1, 4, 8, 8), atol=1e-4)
        True
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        if not invertible(layer) or not getattr(layer, "bijective", True):
            raise NotInvertibleError(f"Inverse: layer must be a bijection, got {type(layer).__name__}")
        self.layer = layer

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (f⁻¹(t), its ladj)."""
        return inverse(self.layer, t)

    def inverse(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (f(t), its ladj)."""
        return self.layer(t)

    def forward_with_score(self, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Layer`: `J_f(t')ᵀ s + ∇ladj_f(t')`, one backward pass of f at t'."""
        out, ladj = self(t)
        with torch.inference_mode(False), torch.enable_grad():
            # Tensors made in inference mode have no gradient, but their copies have.
            at, score = (v.clone() if v.is_inference() else v.detach() for v in (out, score))
            at.requires_grad_()
            back, step = self.layer(at)
            carried = gradient((back * score).flatten(1).sum(1) + step, at)
        return out, ladj, carried
