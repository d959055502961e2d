"""The circulant log-determinant and its gradient in numpy's long double: all frequencies, elimination by the book."""

import numpy as np
import pytest
import torch

PI = np.longdouble("3.14159265358979323846264338327950288")
needs_long_double = pytest.mark.skipif(
    np.finfo(np.longdouble).nmant < 63, reason="long double has no more bits than double"
)


def exact_logdet(weight: torch.Tensor, grid: tuple[int, int]) -> tuple[np.longdouble, np.ndarray]:
    """Value and gradient for one weight of shape (C, C, kh, kw)."""
    taps = weight.detach().double().numpy().astype(np.longdouble)
    waves = _waves(grid, taps.shape[-2:])
    symbols = np.einsum("oiab,fab->foi", taps, waves)
    logs, inverses = _eliminate(symbols)
    return logs.sum(), np.einsum("fio,fab->oiab", inverses, waves).real


def _waves(grid: tuple[int, int], kernel: tuple[int, int]) -> np.ndarray:
    """e^{2πi (f a / H + g b / W)} of all frequencies (f, g) and taps (a, b): (H W, kh, kw)."""
    angles = [
        2 * PI * np.outer(np.arange(size), np.arange(taps)).astype(np.longdouble) / size
        for size, taps in zip(grid, kernel, strict=True)
    ]
    rows, columns = (np.cos(a) + 1j * np.sin(a) for a in angles)
    return np.einsum("fa,gb->fgab", rows, columns).reshape(-1, *kernel)


def _eliminate(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log|det| and inverses of (F, n, n), by Gauss and Jordan with partial pivoting."""
    count, n, _ = matrices.shape
    work = np.concatenate([matrices, np.broadcast_to(np.eye(n), matrices.shape)], axis=2)
    every, logs = np.arange(count), np.zeros(count, np.longdouble)
    for k in range(n):
        chosen = k + np.abs(work[:, k:, k]).argmax(1)
        work[every, chosen], work[every, k] = work[every, k].copy(), work[every, chosen].copy()
        logs += np.log(np.abs(work[:, k, k]))
        work[:, k] /= work[:, k, k, None].copy()
        factors = work[:, :, k].copy()
        factors[:, k] = 0
        work -= factors[:, :, None] * work[:, None, k]
    return logs, work[:, :, n:]
