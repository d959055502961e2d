"""What elementwise operators with a sum for each sample share: layout of results, fake kernels, vmap."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from led_fast.ops._vmap import flat


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
    with torch.enable_grad():
        fixed = x.detach().requires_grad_()
        value, log_abs_det = function(fixed)
        (of_log,) = torch.autograd.grad(log_abs_det.sum(), fixed, retain_graph=True)
        (slope,) = torch.autograd.grad(value.sum(), fixed)
    return (score - of_log) / slope


def per_sample_sum(v: Tensor) -> Tensor:
    """(B, ...) -> (B,)."""
    return v.unsqueeze(-1).flatten(1).sum(1)


def register(name: str) -> None:
    """Registers fake kernels and vmap rules.

    Args:
        name: of an operator `name(x, *floats) -> (y, sums)`, whose gradient is
            `name_backward(x, grad_y, grad_sums, *floats) -> grad_x`.
    """
    op = getattr(torch.ops.led_fast, name).default
    backward_op = getattr(torch.ops.led_fast, f"{name}_backward").default

    def fake(x: Tensor, *floats: float) -> tuple[Tensor, Tensor]:
        y = torch.empty_like(x, memory_format=sample_dense_format(x))
        return y, x.new_empty(x.shape[0], dtype=log_dtype(x))

    def fake_backward(x: Tensor, grad_y: Tensor | None, grad_sums: Tensor | None, *floats: float) -> Tensor:
        return torch.empty_like(x, memory_format=sample_dense_format(x))

    def vmap(info: Any, in_dims: Any, x: Tensor, *floats: Any) -> Any:
        x = x.movedim(in_dims[0], 0)
        y, sums = op(x.flatten(0, 1), *floats)
        return (y.unflatten(0, x.shape[:2]), sums.unflatten(0, x.shape[:2])), (0, 0)

    def vmap_backward(
        info: Any, in_dims: Any, x: Tensor, grad_y: Tensor | None, grad_sums: Tensor | None, *floats: Any
    ) -> Any:
        given = zip((x, grad_y, grad_sums), in_dims[:3], strict=True)
        grad_x = backward_op(*(None if v is None else flat(info, v, dim) for v, dim in given), *floats)
        return grad_x.unflatten(0, (info.batch_size, grad_x.shape[0] // info.batch_size)), 0

    torch.library.register_fake(op.name(), fake)
    torch.library.register_fake(backward_op.name(), fake_backward)
    torch.library.register_vmap(op.name(), vmap)
    torch.library.register_vmap(backward_op.name(), vmap_backward)
