"""Every operator in a few lines of plain PyTorch: the oracle of the tests, the baseline of the benchmarks.

No checks, no kernels: read this file to learn what an operator computes.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_input


def soft_relu(
    x: Tensor, alpha: float = 5.8, beta: float = 1.0, u0: float = 0.0, t0: float | None = None
) -> tuple[Tensor, Tensor]:
    """`L(x) = log(e^{alpha v} + e^{beta v}) / alpha - t0`, `v = x - u0`, and `Σ log L'(x)` per sample (Eq. 10-11)."""
    t0 = math.log(2) / alpha if t0 is None else t0
    v = x - u0
    # Not logaddexp, whose second derivative is NaN far from the bend.
    y = (beta * v - F.logsigmoid((beta - alpha) * v)) / alpha - t0
    slope = beta / alpha + (1 - beta / alpha) * torch.sigmoid((alpha - beta) * v)
    per_element = slope.log().unsqueeze(-1).flatten(1)
    return y, per_element.sum(1, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)


def soft_relu_inverse(
    y: Tensor,
    alpha: float = 5.8,
    beta: float = 1.0,
    u0: float = 0.0,
    t0: float | None = None,
    steps: int = 12,
) -> tuple[Tensor, Tensor]:
    """The x with `soft_relu(x)[0] == y` by Newton's method, and `-Σ log L'(x)` per sample.

    From the least of three tangents, right of the solution, the steps go left to it: L is convex. `steps` are enough
    for alpha / beta up to 100. The last two steps have the derivatives, up to the third.
    """
    t0 = math.log(2) / alpha if t0 is None else t0
    with torch.no_grad():
        v, at_u0 = y.detach() + t0, math.log(2) / alpha
        tangents = torch.stack([v, v * (alpha / beta), (v - at_u0) * (2 / (1 + beta / alpha))])
        x = tangents.amin(0) + u0
    for step in range(steps):
        with torch.set_grad_enabled(torch.is_grad_enabled() and step >= steps - 2):
            slope = beta / alpha + (1 - beta / alpha) * torch.sigmoid((alpha - beta) * (x - u0))
            x = torch.where(tangents[0].isinf(), v, x - (soft_relu(x, alpha, beta, u0, t0)[0] - y) / slope)
    return x, -soft_relu(x, alpha, beta, u0, t0)[1]


def soft_relu_per_feature(
    x: Tensor,
    ratio: Tensor,
    sharpness: Tensor,
    u0: Tensor,
    t0: Tensor,
    inverse: bool = False,
    steps: int = 12,
) -> tuple[Tensor, Tensor]:
    """`L(x) = r v + (1 - r) log(1 + e^{k v}) / k - t0`, `v = x - u0`, and `Σ log L'(x)`, for x of (B, F, ...).

    r > 0, k > 0, u0 and t0 have one value a feature. The inverse and its log-determinant by Newton's method, as in
    `soft_relu_inverse`; for r > 1, L is concave, and the start left of the solution.
    """
    r, k, u0, t0 = (p.view(-1, *[1] * (x.dim() - 2)) for p in (ratio, sharpness, u0, t0))

    def value_and_slope(v: Tensor) -> tuple[Tensor, Tensor]:
        value = torch.where(
            v.isinf(), torch.where(v > 0, v, r * v), r * v - (1 - r) * F.logsigmoid(-k * v) / k
        )
        return value - t0, r + (1 - r) * torch.sigmoid(k * v)

    v = x - u0
    if inverse:
        with torch.no_grad():
            w = x + t0
            tangents = torch.stack([w, w / r, (w - (1 - r) * math.log(2) / k) * 2 / (1 + r)])
            v = torch.where(r > 1, tangents.amax(0), tangents.amin(0))
        for step in range(steps):
            with torch.set_grad_enabled(torch.is_grad_enabled() and step >= steps - 2):
                value, slope = value_and_slope(v)
                v = torch.where(w.isinf(), w, v - (value - x) / slope)
    y, slope = value_and_slope(v)
    per_element = slope.log().unsqueeze(-1).flatten(1)
    sums = per_element.sum(1, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)
    return ((v + u0).to(x.dtype), -sums) if inverse else (y.to(x.dtype), sums)


def _staircase_and_derivative(
    x: Tensor, centers: Tensor, heights: Tensor, steepness: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor]:
    x = x.movedim(1, -1)
    tanh = torch.tanh(steepness * (x[..., None] - centers))
    y = slope * x + (heights * tanh).sum(-1)
    derivative = slope + (heights * steepness * (1 - tanh.square())).sum(-1)
    return y.movedim(-1, 1), derivative.movedim(-1, 1)


def staircase(
    x: Tensor, centers: Tensor, heights: Tensor, steepness: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor]:
    """`y = m x + Σ_k a_k tanh(b_k (x - c_k))` of every feature and `Σ log dy/dx` per sample; x is (B, F, ...)."""
    y, derivative = _staircase_and_derivative(x, centers, heights, steepness, slope)
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return y.to(x.dtype), derivative.log().flatten(1).sum(1, dtype=dtype)


def staircase_inverse(
    y: Tensor, centers: Tensor, heights: Tensor, steepness: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor]:
    """The inverse of `staircase` and `-Σ log dy/dx`, by bisection and two of Newton's steps.

    Two, because the derivatives of one are right to the first order only, and those of two to the third.
    """
    parameters = centers, heights, steepness, slope
    shape = (-1, *[1] * (y.dim() - 2))
    with torch.no_grad():
        reach, scale = heights.sum(1).view(shape), slope.view(shape)
        low, high = (y - reach) / scale, (y + reach) / scale
        for _ in range(100):
            middle = 0.5 * (low + high)
            below = _staircase_and_derivative(middle, *parameters)[0] < y
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    x = 0.5 * (low + high)
    for _ in range(2):
        value, derivative = _staircase_and_derivative(x, *parameters)
        x = x - (value - y) / derivative
    derivative = _staircase_and_derivative(x, *parameters)[1]
    dtype = torch.float64 if y.dtype == torch.float64 else torch.float32
    return x.to(y.dtype), -derivative.log().flatten(1).sum(1, dtype=dtype)


def fourier_features(x: Tensor, projection: Tensor) -> Tensor:
    """`[x, sin(x P), cos(x P)]`; x is (..., D), P is (D, K)."""
    phase = x @ projection
    return torch.cat([x, phase.sin(), phase.cos()], dim=-1)


def mixture_log_prob_and_score(
    x: Tensor, means: Tensor, log_scales: Tensor, log_weights: Tensor
) -> tuple[Tensor, Tensor]:
    """`log Σ_k w_k N(x; μ_k, diag σ_k²)` of every sample and its gradient with respect to x, (B, D)."""
    x = x.to(means.dtype)
    # Finite, because infinity times a share of 0 is NaN; but so far that its square is infinite.
    most = torch.finfo(means.dtype).max
    farthest = 2 * most**0.5
    standard = ((x[:, None] - means).clamp(-most, most) * (-log_scales).exp()).clamp(-farthest, farthest)
    logs = (
        log_weights
        - log_scales.sum(1)
        - 0.5 * standard.square().sum(2)
        - 0.5 * math.log(2 * math.pi) * x.shape[1]
    )
    # Not logsumexp, whose tangent has no gradient. Where all logs are -inf, no component has a share.
    top = logs.detach().amax(1, keepdim=True).clamp_min(torch.finfo(logs.dtype).min)
    powers = (logs - top).exp()
    total = powers.sum(1, keepdim=True)
    nothing = total == 0
    total = total.masked_fill(nothing, 1)
    log_prob = (top + total.log()).masked_fill(nothing, -math.inf).squeeze(1)
    share = powers / total
    return log_prob, -(share[:, :, None] * standard * (-log_scales).exp()).sum(1)


def mixture_log_prob(x: Tensor, means: Tensor, log_scales: Tensor, log_weights: Tensor) -> Tensor:
    """`log Σ_k w_k N(x; μ_k, diag σ_k²)` of every sample."""
    return mixture_log_prob_and_score(x, means, log_scales, log_weights)[0]


def rfft2(images: Tensor) -> Tensor:
    """`torch.fft.rfft2`, also of no images, which the library behind it refuses."""
    if images.numel() > 0:
        return torch.fft.rfft2(images)
    return images[..., : images.shape[-1] // 2 + 1].to(images.dtype.to_complex())


def irfft2(spectrum: Tensor, grid: tuple[int, int]) -> Tensor:
    """`torch.fft.irfft2`, also of no images."""
    if spectrum.numel() > 0:
        return torch.fft.irfft2(spectrum, s=grid)
    return spectrum.real[..., :1].expand(*spectrum.shape[:-1], grid[1])


def circulant_symbols(weight: Tensor, grid: tuple[int, int]) -> Tensor:
    """Symbols of a circular convolution, conjugated: (..., C, C, kh, kw) -> (..., H, W // 2 + 1, C, C).

    A real kernel's are conjugate at mirrored frequencies: the half spectrum of a real FFT has them all.
    """
    (rows, columns), (kh, kw) = grid, weight.shape[-2:]
    wrap_rows, wrap_columns = -(-kh // rows), -(-kw // columns)  # a larger kernel wraps around the grid
    padded = torch.nn.functional.pad(weight, (0, wrap_columns * columns - kw, 0, wrap_rows * rows - kh))
    wrapped = padded.unflatten(-1, (wrap_columns, columns)).unflatten(-3, (wrap_rows, rows)).sum((-4, -2))
    return rfft2(wrapped).movedim((-4, -3), (-2, -1))


def half_spectrum_counts(grid: tuple[int, int], device: torch.device) -> Tensor:
    """How often each column of a half spectrum occurs in the whole one.

    Twice, but once for those that hold both frequencies of a mirrored pair: the first, and the last where
    W is even.
    """
    columns = torch.arange(grid[1] // 2 + 1, device=device)
    return torch.where((columns == 0) | (2 * columns == grid[1]), 1, 2)


def circulant_logdet(weight: Tensor, grid: tuple[int, int]) -> Tensor:
    """`Σ_f log|det Ŵ(f)|` over the H W frequencies, for a kernel of shape (..., C, C, kh, kw) (App. A.3)."""
    logs = torch.linalg.slogdet(circulant_symbols(weight, grid)).logabsdet
    return (logs * half_spectrum_counts(grid, weight.device)).sum((-2, -1))


def circular_conv_inverse(y: Tensor, weight: Tensor, transpose: bool = False) -> tuple[Tensor, Tensor]:
    """Solves `Ŵ(f) x̂(f) = ŷ(f)` at every frequency; minus `circulant_logdet`, a 0-d tensor (App. A.3).

    `y(p) = Σ_tap w(tap) x(p + tap - c)` is a shift by the kernel's centre c after a correlation, whose symbol is
    the conjugate of the weight's transform. The transposed map has the conjugate transposed symbols.
    """
    grid, centre = (y.shape[-2], y.shape[-1]), [(k - 1) // 2 for k in weight.shape[-2:]]
    symbols = circulant_symbols(weight, grid)
    shifts = centre if transpose else [-shift for shift in centre]
    spectrum = rfft2(y.roll(shifts, dims=(-2, -1))).permute(2, 3, 1, 0)
    solved = torch.linalg.solve_ex(symbols.mT if transpose else symbols.conj(), spectrum)[0]
    logs = torch.linalg.slogdet(symbols).logabsdet * half_spectrum_counts(grid, weight.device)
    return irfft2(solved.permute(3, 2, 0, 1), grid), -logs.sum()


def perpendicular_norm(
    x: Tensor,
    weight: Tensor,
    t: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> Tensor:
    """`‖x⊥‖² = ‖x‖² - ‖t‖⁴ / ‖u‖²` with `t = W x` and `u = Wᵀ t`, for a linear layer or a convolution (Sec. 2.2)."""
    if x.dim() == 2:
        t = x @ weight.T if t is None else t
        u = t @ weight
    else:
        t = F.conv2d(x, weight, None, stride, padding, dilation, groups) if t is None else t
        u = conv2d_input(x.shape, weight, t, stride, padding, dilation, groups)
    xx, tt, uu = (v.flatten(1).square().sum(1) for v in (x, t, u))
    least = torch.finfo(x.dtype).tiny  # not 0, where the gradient of a root is infinite
    return (xx - tt * tt / uu.clamp_min(least)).clamp_min(least).sqrt()
