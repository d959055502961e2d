"""What operators on elements, with a sum over each sample, share: layout and dtype of results, sums, scores."""

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


def carry_score(function: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor, score: Tensor) -> Tensor:
    """The score of a density behind a map of each element by itself: `s' = (s - ∇ log|det|) / slope`, detached."""
    with torch.inference_mode(False), torch.enable_grad():
        # A tensor made in inference mode has no gradient, but its copy has.
        fixed = (x.clone() if x.is_inference() else x.detach()).requires_grad_()
        value, log_abs_det = function(fixed)
        (of_log,) = torch.autograd.grad(log_abs_det.sum(), fixed, retain_graph=True)
        (slope,) = torch.autograd.grad(value.sum(), fixed)
    return (score - of_log) / slope


def along_samples(v: Tensor, x: Tensor) -> Tensor:
    """One value a sample, (B,), so that it broadcasts over x, (B, ...)."""
    return v.reshape(-1, *[1] * (x.dim() - 1))


def per_sample_sum(v: Tensor) -> Tensor:
    """(B, ...) -> (B,)."""
    return v.unsqueeze(-1).flatten(1).sum(1)
