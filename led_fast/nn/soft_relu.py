"""soft-ReLU as a layer."""

import math

import torch
from torch import Tensor, nn

from led_fast.ops._checks import check_floating
from led_fast.ops._sample_sums import log_dtype
from led_fast.ops.soft_relu import as_numbers, check_parameters, soft_relu, soft_relu_derivatives
from led_fast.ops.soft_relu_inverse import soft_relu_inverse
from led_fast.ops.soft_relu_per_feature import derivatives_of_slopes, of_slopes

_RATE = 3.0  # of the logarithms: a step of an optimiser moves them by so many times its own
_LOG_RATIOS, _LOG_SHARPNESSES = (-7.0, 7.0), (-2.0, 7.0)  # as far as they can go
_START_RATIO, _START_SHARPNESS, _START_POSITION = 0.8, 4.8, 1.5


class SoftReLU(nn.Module):
    """Invertible activation that returns its log-determinant with its value (LED, Eq. 10-11); a layer of flows.

    With `learned`, each feature has a bend of its own: `L(x) = ρ v + (1 - ρ) (softplus(κ v) - log 2) / κ`,
    `v = x - position`, of slope ratio `ρ = exp(3 log_ratio)` and sharpness `κ = exp(3 log_sharpness)`. For ρ < 1 it is
    Eq. 10 with `beta / alpha = ρ`, `alpha - beta = κ`; for ρ > 1 its mirror image. L is 0 where it bends. It starts
    with ρ = 0.8 or 1 / 0.8 at random, κ = 4.8 and positions uniform in ±1.5. ρ stays within `exp(±7)`, κ between
    `exp(-2)` and `exp(7)`; a parameter beyond has the gradient of the bound, so that it finds back.

    Args:
        alpha: Sharpness of the bend; must exceed `beta`.
        beta: Positive; `beta / alpha` is the slope for very negative inputs.
        u0: Position of the bend.
        t0: Shift of the output. None means `log(2) / alpha`, for which the output is 0 at `u0`.
        features: Number of features F of a learned layer; else None.
        learned: Whether the layer learns its bends. Then the four numbers above are not used, and must not be given.

    Shape:
        (B, ...) -> (B, ...) and (B,); see :func:`led_fast.soft_relu`. Learned: (B, F, ...).

    Attributes:
        log_ratio, log_sharpness, position: Parameters of shape (F,) of a learned layer.

    Raises:
        TypeError: A parameter is no number, or a tensor that requires a gradient.
        ValueError: Not `alpha > beta > 0`, or a parameter is not finite; `features` without `learned` or the reverse;
            `learned` with other numbers.

    Example:
        >>> import torch
        >>> from led_fast.nn import SoftReLU
        >>> layer = SoftReLU(features=3, learned=True)
        >>> y, log_abs_det = layer(torch.zeros(4, 3))
        >>> y.shape, log_abs_det.shape
        (torch.Size([4, 3]), torch.Size([4]))
        >>> x, inverse_log_abs_det = layer.inverse(y)
    """

    bijective = invertible = True

    def __init__(
        self,
        alpha: float = 5.8,
        beta: float = 1.0,
        u0: float = 0.0,
        t0: float | None = None,
        features: int | None = None,
        learned: bool = False,
    ) -> None:
        super().__init__()
        if learned != (features is not None):
            raise ValueError(f"SoftReLU: features and learned go together, got {features=}, {learned=}")
        if learned and not all(
            isinstance(given, float | None) and given == default
            for given, default in ((alpha, 5.8), (beta, 1.0), (u0, 0.0), (t0, None))
        ):
            raise ValueError(
                f"SoftReLU: alpha, beta, u0 and t0 must be left out where learned, got {alpha=}, {beta=}, {u0=}, {t0=}"
            )
        if features is not None and (type(features) is not int or features < 1):
            raise ValueError(f"SoftReLU: features must be a positive integer, got {features!r}")
        self.features = features
        if features is not None:
            ratio = math.log(_START_RATIO) / _RATE
            self.log_ratio = nn.Parameter(ratio * (2.0 * torch.randint(0, 2, (features,)) - 1))
            self.log_sharpness = nn.Parameter(torch.full((features,), math.log(_START_SHARPNESS) / _RATE))
            self.position = nn.Parameter(torch.empty(features).uniform_(-_START_POSITION, _START_POSITION))
            return
        self.alpha, self.beta, self.u0, self.t0 = as_numbers("SoftReLU", alpha, beta, u0, t0)
        check_parameters("SoftReLU", self.alpha, self.beta, self.u0, self.t0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns `y` like `x`, and `log_abs_det` in nats of shape (B,)."""
        if self.features is not None:
            return of_slopes(x, *self._bends(x))
        return soft_relu(x, self.alpha, self.beta, self.u0, self.t0)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the `x` with `forward(x)[0] == y`, and the log-determinant of this inverse map."""
        if self.features is not None:
            return of_slopes(y, *self._bends(y), inverse=True)
        return soft_relu_inverse(y, self.alpha, self.beta, self.u0, self.t0)

    def forward_with_score(self, x: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward`, and carries the score of a density along: see :class:`led_fast.flows.Layer`."""
        if self.features is not None:
            bends = self._bends(x)
            out, ladj = of_slopes(x, *bends)
            slope, of_ladj = derivatives_of_slopes(x, *bends)
        else:
            out, ladj = self(x)
            slope, of_ladj = soft_relu_derivatives(x, self.alpha, self.beta, self.u0, self.t0)
        return out, ladj, (score - of_ladj) / slope

    def _bends(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Slope ratio, sharpness, position and shift of each feature."""
        check_floating("SoftReLU", "x", x)
        if x.dim() < 2 or x.shape[1] != self.features:
            raise ValueError(f"SoftReLU: x must have shape (B, {self.features}, ...), got {tuple(x.shape)}")
        real = log_dtype(x)  # the shift is a small difference of what may be large
        return bends_of(self.log_ratio.to(real), self.log_sharpness.to(real), self.position)

    def learned(self) -> tuple[Tensor, Tensor, Tensor]:
        """What `bends_of` takes."""
        return self.log_ratio, self.log_sharpness, self.position

    def extra_repr(self) -> str:
        """Parameters for `print(module)`."""
        if self.features is not None:
            return f"features={self.features}, learned=True"
        return f"alpha={self.alpha}, beta={self.beta}, u0={self.u0}, t0={self.t0:.6g}"


def bends_of(
    log_ratio: Tensor, log_sharpness: Tensor, position: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Slope ratio, sharpness, position and shift, as the operator takes them."""
    ratio = _within(_RATE * log_ratio, *_LOG_RATIOS).exp()
    sharpness = _within(_RATE * log_sharpness, *_LOG_SHARPNESSES).exp()
    return ratio, sharpness, position, (1 - ratio) * math.log(2) / sharpness


def _within(x: Tensor, low: float, high: float) -> Tensor:
    """x moved to the bounds, with the gradient of x."""
    return x.clamp(low, high).detach() + (x - x.detach())
