"""Circular convolutions undone on CUDA: cuFFT around the kernels of csrc/circular_conv_inverse/cuda.cu."""

import torch
from torch import Tensor

from led_fast.ops._shared_memory import exceeds_shared_memory
from led_fast.reference import circulant_symbols, half_spectrum_counts, irfft2, rfft2

_invert_op = torch.ops.led_fast.circular_conv_invert.default
_solve_op = torch.ops.led_fast.circular_conv_solve.default
_weight_gradient_op = torch.ops.led_fast.circular_conv_weight_gradient.default


def kept_shapes(y: Tensor, weight: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of the spectrum and of the inverse symbols that a forward pass keeps; the last dimension is re, im."""
    samples, channels, rows, columns = y.shape
    half = columns // 2 + 1
    return (samples, channels, rows, half, 2), (channels, channels, rows * half, 2)


@torch.library.impl("led_fast::circular_conv_inverse", "cuda")
def _inverse(y: Tensor, weight: Tensor, keep: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grid = (y.shape[2], y.shape[3])
    invert = _composed_invert if exceeds_shared_memory(weight) else _invert_op
    inverses, log_abs_det = invert(weight, *grid)
    solved = _solve_op(_spectrum(y), inverses, False)
    kept = (solved, inverses) if keep else (y.new_empty(0), y.new_empty(0))
    return _images(solved, y), log_abs_det, *kept


@torch.library.impl("led_fast::circular_conv_inverse_backward", "cuda")
def _backward(
    grad_x: Tensor | None,
    grad_log: Tensor | None,
    y: Tensor,
    weight: Tensor,
    solved: Tensor,
    inverses: Tensor,
    need_y: bool,
    need_weight: bool,
) -> tuple[Tensor, Tensor]:
    grad_y, grad_weight, spectrum = y.new_empty(0), y.new_empty(0), None
    if grad_x is not None:
        spectrum = _solve_op(_spectrum(grad_x), inverses, True)
    if need_y:
        grad_y = (
            torch.zeros_like(y, memory_format=torch.contiguous_format)
            if spectrum is None
            else _images(spectrum, y)
        )
    if need_weight:
        grad_weight = _weight_gradient_op(spectrum, grad_log, weight, solved, inverses, y.shape[3])
    return grad_y, grad_weight


def _spectrum(images: Tensor) -> Tensor:
    return torch.view_as_real(rfft2(images))


def _images(spectrum: Tensor, like: Tensor) -> Tensor:
    return irfft2(torch.view_as_complex(spectrum), (like.shape[2], like.shape[3])).contiguous()


def _composed_invert(weight: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """What the kernel computes, by PyTorch's factorisation."""
    grid, (kh, kw) = (rows, columns), weight.shape[2:]
    symbols = circulant_symbols(weight, grid).conj()
    factors, pivots, _ = torch.linalg.lu_factor_ex(symbols)
    logs = factors.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
    frequencies = [
        torch.arange(n, device=weight.device, dtype=weight.dtype) for n in (rows, columns // 2 + 1)
    ]
    turns = frequencies[0][:, None] * ((kh - 1) // 2 / rows) + frequencies[1] * ((kw - 1) // 2 / columns)
    phases = torch.polar(torch.ones_like(turns), 2 * torch.pi * turns)
    identity = torch.eye(weight.shape[0], dtype=symbols.dtype, device=weight.device)
    inverses = torch.linalg.lu_solve(factors, pivots, identity.expand_as(symbols)) * phases[..., None, None]
    inverses = torch.where(logs.isfinite()[..., None, None], inverses, torch.nan)
    kept = torch.view_as_real(inverses.flatten(0, 1).permute(1, 2, 0).contiguous())
    return kept, -(logs * half_spectrum_counts(grid, weight.device)).sum()
