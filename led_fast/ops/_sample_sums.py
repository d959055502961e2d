"""What operators on elements, with a sum over each sample, share: layout and dtype of results, sums, derivatives."""

from collections.abc import Callable

import torch
from torch import Tensor


def sample_dense_format(x: Tensor) -> torch.memory_format:
    """The layout of results; csrc/common/tensor.h makes the same choice."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    if not x.is_contiguous() and x.dim() in formats and x.is_contiguous(memory_format=formats[x.dim()]):
        return formats[x.dim()]
    return torch.contiguous_format


def log_dtype(x: Tensor) -> torch.dtype:
    """Of log densities and log-determinants: float64 for float64, float32 for all else."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def derivatives_by_gradient(gradient: Callable[..., Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and ∇ log|det| of a map of each element by itself, of x's shape, detached.

    Args:
        gradient: of its operator, `(x, grad_value, grad_log) -> grad_x`; either gradient may be None.
    """
    with torch.no_grad():
        x = x.detach()
        ones = x.new_ones(x.shape[0], dtype=log_dtype(x))
        return gradient(x, torch.ones_like(x), None), gradient(x, None, ones)


def derivatives_by_autograd(
    function: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor
) -> tuple[Tensor, Tensor]:
    """The same of a function that returns value and log|det|."""
    with torch.inference_mode(False), torch.enable_grad():
        # A tensor made in inference mode has no gradient, but its copy has.
        fixed = (x.clone() if x.is_inference() else x.detach()).requires_grad_()
        value, log_abs_det = function(fixed)
        (of_log,) = torch.autograd.grad(log_abs_det.sum(), fixed, retain_graph=True)
        (slope,) = torch.autograd.grad(value.sum(), fixed)
    return slope, of_log


def along_samples(v: Tensor, x: Tensor) -> Tensor:
    """One value a sample, (B,), so that it broadcasts over x, (B, ...)."""
    return v.reshape(-1, *[1] * (x.dim() - 1))


def per_sample_sum(v: Tensor) -> Tensor:
    """(B, ...) -> (B,)."""
    return v.unsqueeze(-1).flatten(1).sum(1)
