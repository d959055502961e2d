"""soft-ReLU as a layer."""

import torch
from torch import Tensor, nn

from led_fast.ops.soft_relu import as_numbers, check_parameters, soft_relu
from led_fast.ops.soft_relu_inverse import soft_relu_inverse


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

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the `x` with `forward(x)[0] == y`, and the log-determinant of this inverse map."""
        return soft_relu_inverse(y, self.alpha, self.beta, self.u0, self.t0)

    def forward_with_score(self, x: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward`, and carries the score of a density along: see :class:`led_fast.flows.Layer`."""
        y, log_abs_det = self(x)
        with torch.no_grad():
            # L', and the derivative of its logarithm.
            ratio, sharpness = self.beta / self.alpha, self.alpha - self.beta
            sigma = torch.sigmoid(sharpness * (x - self.u0))
            slope = ratio + (1 - ratio) * sigma
            return y, log_abs_det, (score - (1 - ratio) * sharpness * sigma * (1 - sigma) / slope) / slope

    def extra_repr(self) -> str:
        """Parameters for `print(module)`."""
        return f"alpha={self.alpha}, beta={self.beta}, u0={self.u0}, t0={self.t0:.6g}"
