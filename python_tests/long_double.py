"""Circular convolutions in extended precision: what is true to float64, by definition, without torch or LAPACK.

`np.longdouble` has 64 bits of mantissa on x86, 2048 times finer than float64. Symbols are matrices of `clongdouble`
along the last two axes; numpy has no factorisation of such, so this is Gauss's with partial pivots.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

needs_long_double = pytest.mark.skipif(
    np.finfo(np.longdouble).nmant < 63, reason="long double has no more bits than double"
)
_TWO_PI = 8 * np.arctan(np.longdouble(1))


def _wide(x: Tensor) -> np.ndarray:
    return x.detach().cpu().numpy().astype(np.longdouble)


def _narrow(x: np.ndarray, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.from_numpy(np.asarray(x, dtype=np.float64)).to(dtype)


def _waves(size: int, taps: np.ndarray) -> np.ndarray:
    """exp(2 pi i f t / size), (size, taps)."""
    turns = np.outer(np.arange(size), taps) % size
    angle = _TWO_PI * turns.astype(np.longdouble) / size
    return np.cos(angle) + 1j * np.sin(angle)


def _transforms(weight: np.ndarray, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """By rows and columns, from the taps, counted from the kernel's centre, to frequencies."""
    rows, columns = (
        _waves(size, np.arange(taps) - (taps - 1) // 2)
        for size, taps in zip(grid, weight.shape[-2:], strict=True)
    )
    return rows, columns


def symbols(weight: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """(..., C, C, kh, kw) to (..., H, W, C, C)."""
    rows, columns = _transforms(weight, grid)
    return np.einsum("...ijab,fa,gb->...fgij", weight, rows, columns, optimize=True)


def inverse_and_log_abs_det(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of (..., C, C), by Gauss-Jordan with partial pivots."""
    size = matrices.shape[-1]
    work = matrices.reshape(-1, size, size).astype(np.clongdouble)
    work = np.concatenate([work, np.broadcast_to(np.eye(size, dtype=np.clongdouble), work.shape)], axis=2)
    logs, each = np.zeros(len(work), dtype=np.longdouble), np.arange(len(work))
    for step in range(size):
        pivot_row = step + np.abs(work[:, step:, step]).argmax(1)
        pivot = work[each, pivot_row].copy()
        work[each, pivot_row] = work[:, step]
        logs += np.log(np.abs(pivot[:, step]))
        # Columns before this one are done; so is the inverse's part that is still the identity.
        pivot /= pivot[:, step, None]
        factors = work[:, :, step].copy()
        work[:, :, step:] -= factors[:, :, None] * pivot[:, None, step:]
        work[:, step] = pivot
    return work[:, :, size:].reshape(matrices.shape), logs.reshape(matrices.shape[:-2])


def _gradient_at_taps(by_symbol: np.ndarray, weight: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """From d/dRe of the symbols, conjugated, (..., H, W, C, C), to d/dweight: what `symbols` does, transposed."""
    rows, columns = _transforms(weight, grid)
    return np.einsum("...fgij,fa,gb->...ijab", by_symbol, rows, columns, optimize=True).real


def exact_logdet(weight: Tensor, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """log|det| of every convolution, (...), and its gradient, both in extended precision."""
    taps = _wide(weight)
    inverse, logs = inverse_and_log_abs_det(symbols(taps, grid))
    return logs.sum((-2, -1)), _gradient_at_taps(inverse.swapaxes(-1, -2), taps, grid)


def circulant_logdet(weight: Tensor, grid: tuple[int, int], cotangent: Tensor) -> list[Tensor]:
    """log|det| of every convolution, and the gradient of `<cotangent, log|det|>`."""
    logs, gradient = exact_logdet(weight, grid)
    return [_narrow(logs), _narrow(gradient * _wide(cotangent)[..., None, None, None, None])]


def circular_conv_inverse(y: Tensor, weight: Tensor, cotangents: tuple[Tensor, Tensor]) -> list[Tensor]:
    """x, the log-determinant for every sample, and the gradients with respect to y and weight."""
    images, taps = _wide(y), _wide(weight)
    grid = images.shape[-2:]
    rows, columns = (_waves(size, np.arange(size)) for size in grid)
    area = grid[0] * grid[1]

    def spectrum(image: np.ndarray) -> np.ndarray:
        return np.einsum("bchw,fh,gw->bfgc", image, rows.conj(), columns.conj(), optimize=True)

    def image(spectrum: np.ndarray) -> np.ndarray:
        return np.einsum("bfgc,fh,gw->bchw", spectrum, rows, columns, optimize=True).real / area

    inverse, logs = inverse_and_log_abs_det(symbols(taps, grid))
    solved = np.einsum("fgij,bfgj->bfgi", inverse, spectrum(images))
    grad_x, grad_log = map(_wide, cotangents)
    moved = np.einsum("fgij,bfgi->bfgj", inverse.conj(), spectrum(grad_x))
    by_symbol = -np.einsum("bfgi,bfgj->fgij", moved.conj(), solved) / area
    by_symbol -= grad_log.sum() * inverse.swapaxes(-1, -2)
    return [
        _narrow(image(solved)),
        _narrow(np.broadcast_to(-logs.sum(), len(images))),
        _narrow(image(moved)),
        _narrow(_gradient_at_taps(by_symbol, taps, grid)),
    ]
