"""soft-ReLU as a layer."""

import math

from torch import Tensor, nn

from led_fast.ops.soft_relu import check_parameters, soft_relu


class SoftReLU(nn.Module):
    """Invertible activation that returns its log-determinant with its value (LED, Eq. 10-11).

    Args:
        alpha: Sharpness of the bend; must exceed `beta`.
        beta: Positive; `beta / alpha` is the slope for very negative inputs.
        u0: Position of the bend.
        t0: Shift of the output. None means `log(2) / alpha`, for which the output is 0 at `u0`.

    Shape:
        (B, ...) -> (B, ...) and (B,); see :func:`led_fast.soft_relu`.

    Raises:
        ValueError: Not `alpha > beta > 0`, or a parameter is not finite.

    Example:
        >>> import torch
        >>> from led_fast.nn import SoftReLU
        >>> y, log_abs_det = SoftReLU()(torch.zeros(4, 3))
        >>> y.shape, log_abs_det.shape
        (torch.Size([4, 3]), torch.Size([4]))
    """

    def __init__(
        self, alpha: float = 5.8, beta: float = 1.0, u0: float = 0.0, t0: float | None = None
    ) -> None:
        super().__init__()
        self.alpha, self.beta, self.u0 = alpha, beta, u0
        self.t0 = math.log(2) / alpha if t0 is None and alpha else t0 or 0.0
        check_parameters("SoftReLU", alpha, beta, u0, self.t0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns `y` like `x`, and `log_abs_det` in nats of shape (B,)."""
        return soft_relu(x, self.alpha, self.beta, self.u0, self.t0)

    def extra_repr(self) -> str:
        """Parameters for `print(module)`."""
        return f"alpha={self.alpha}, beta={self.beta}, u0={self.u0}, t0={self.t0:.6g}"
