"""soft-ReLU as a layer."""

import torch
from torch import Tensor, nn

from led_fast.ops.soft_relu import as_numbers, check_parameters, soft_relu

_NEWTON_STEPS = 8


class SoftReLU(nn.Module):
    """Invertible activation that returns its log-determinant with its value (LED, Eq. 10-11); a layer of flows.

    Args:
        alpha: Sharpness of the bend; must exceed `beta`.
        beta: Positive; `beta / alpha` is the slope for very negative inputs.
        u0: Position of the bend.
        t0: Shift of the output. None means `log(2) / alpha`, for which the output is 0 at `u0`.

    Shape:
        (B, ...) -> (B, ...) and (B,); see :func:`led_fast.soft_relu`.

    Raises:
        TypeError: A parameter is no number, or a tensor that requires a gradient.
        ValueError: Not `alpha > beta > 0`, or a parameter is not finite.

    Example:
        >>> import torch
        >>> from led_fast.nn import SoftReLU
        >>> y, log_abs_det = SoftReLU()(torch.zeros(4, 3))
        >>> y.shape, log_abs_det.shape
        (torch.Size([4, 3]), torch.Size([4]))
    """

    bijective = True

    def __init__(
        self, alpha: float = 5.8, beta: float = 1.0, u0: float = 0.0, t0: float | None = None
    ) -> None:
        super().__init__()
        self.alpha, self.beta, self.u0, self.t0 = as_numbers("SoftReLU", alpha, beta, u0, t0)
        check_parameters("SoftReLU", self.alpha, self.beta, self.u0, self.t0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns `y` like `x`, and `log_abs_det` in nats of shape (B,)."""
        return soft_relu(x, self.alpha, self.beta, self.u0, self.t0)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the value whose soft-ReLU is `x`, and `log_abs_det` of this direction, in nats of shape (B,)."""
        ratio = self.beta / self.alpha
        with torch.no_grad():
            # Above the asymptotes lies the curve, which is convex: Newton's method comes down from there steadily.
            v = x + self.t0
            out = torch.where(v > 0, v, v / ratio) + self.u0
            for _ in range(_NEWTON_STEPS):
                out = out - (self(out)[0] - x) / self._slopes(out)[0]
            slope = self._slopes(out)[0]
        out = out - (self(out)[0] - x) / slope  # with a graph: gradients by the implicit function theorem
        return out, -self(out)[1]

    def forward_with_score(self, x: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward`, and carries the score of a density along: see :class:`led_fast.flows.Layer`."""
        y, log_abs_det = self(x)
        with torch.no_grad():
            slope, log_slope = self._slopes(x)
            return y, log_abs_det, (score - log_slope) / slope

    def _slopes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`L'(x)` and the derivative of its logarithm."""
        ratio, sharpness = self.beta / self.alpha, self.alpha - self.beta
        sigma = torch.sigmoid(sharpness * (x - self.u0))
        slope = ratio + (1 - ratio) * sigma
        return slope, (1 - ratio) * sharpness * sigma * (1 - sigma) / slope

    def extra_repr(self) -> str:
        """Parameters for `print(module)`."""
        return f"alpha={self.alpha}, beta={self.beta}, u0={self.u0}, t0={self.t0:.6g}"
