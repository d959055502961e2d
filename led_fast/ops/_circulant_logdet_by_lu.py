"""The circulant log-determinant by PyTorch's LU factorisation: matrices too large, or too few, for the kernels.

The symbols, `Ŵ(f) = Σ_t w_t e^{iψ_t(f)}`, are computed, factored and, for the gradient, inverted a chunk of frequencies
at a time: no more than four times a chunk, and a few copies of the weight, are in memory. Sums over taps and
frequencies are products of float64 matrices, because no setting of PyTorch rounds those further.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

_CHUNK_ELEMENTS = 1 << 22  # complex numbers of a chunk's symbols: 32 MiB of float32

_LIBRARY = torch.library.Library("led_fast", "FRAGMENT")  # while it lives, what it registered holds
_LIBRARY.define("circulant_logdet_by_lu(Tensor weight, SymInt rows, SymInt columns) -> Tensor")
_LIBRARY.define(
    "circulant_logdet_by_lu_with_grad(Tensor weight, SymInt rows, SymInt columns) -> (Tensor, Tensor)"
)


def value(weight: Tensor, rows: int, columns: int) -> Tensor:
    taps = _taps(weight)
    logdet = taps.new_zeros(len(taps))
    for chunk in _chunks(weight, rows, columns):
        logdet += _log_abs_det(torch.linalg.lu_factor_ex(_symbols(taps, chunk, weight.dtype))[0], chunk)
    return _output(logdet, weight, weight.shape[:-4])


def value_and_gradient(weight: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    taps, channels = _taps(weight), weight.shape[-3]
    logdet, gradient = taps.new_zeros(len(taps)), torch.zeros_like(taps)
    identity = torch.eye(channels, dtype=weight.dtype.to_complex(), device=weight.device)
    for chunk in _chunks(weight, rows, columns):
        factors, pivots, info = torch.linalg.lu_factor_ex(_symbols(taps, chunk, weight.dtype))
        logdet += _log_abs_det(factors, chunk)
        inverses = torch.linalg.lu_solve(factors, pivots, identity)
        del factors
        inverses.masked_fill_((info > 0)[..., None, None], 0)  # a singular symbol adds nothing
        entries = inverses.mT.flatten(-2)  # a view: a matrix stands column by column in memory
        gradient += (chunk.counts * chunk.cosines).mT @ entries.real.double()
        gradient -= (chunk.counts * chunk.sines).mT @ entries.imag.double()
        del inverses, entries
    return _output(logdet, weight, weight.shape[:-4]), _output(gradient.mT, weight, weight.shape)


def _output(values: Tensor, like: Tensor, shape: torch.Size) -> Tensor:
    """Those values in a tensor of its own: an operator's output may be changed in place, which a view may not."""
    output = like.new_empty(shape)
    output.view(values.shape).copy_(values)
    return output


class _Chunk(NamedTuple):
    """Some frequencies of the half spectrum."""

    cosines: Tensor  # (F, taps) of the angles ψ
    sines: Tensor
    counts: Tensor  # (F, 1): how often the whole spectrum has each, itself and mirrored


def _taps(weight: Tensor) -> Tensor:
    """(convolutions, taps, C C), by input and output channel, in float64."""
    batch, taps = math.prod(weight.shape[:-4]), weight.shape[-2] * weight.shape[-1]
    by_tap = weight.transpose(-4, -3).reshape(batch, weight.shape[-3] ** 2, taps).mT
    return by_tap.to(torch.float64, memory_format=torch.contiguous_format, copy=True)


def _symbols(taps: Tensor, chunk: _Chunk, dtype: torch.dtype) -> Tensor:
    """(convolutions, F, C, C), each column by column in memory, as the factorisation wants it."""
    channels = math.isqrt(taps.shape[-1])
    symbols = torch.complex((chunk.cosines @ taps).to(dtype), (chunk.sines @ taps).to(dtype))
    return symbols.unflatten(-1, (channels, channels)).mT


def _log_abs_det(factors: Tensor, chunk: _Chunk) -> Tensor:
    """Σ_f log|det| of each convolution."""
    logs = factors.diagonal(dim1=-2, dim2=-1).to(torch.complex128).abs().log().sum(-1)
    return logs @ chunk.counts[:, 0]


def balanced(frequencies: int, most: int) -> int:
    """The size of the chunks, as equal as can be, in which `frequencies` are taken at most so many at a time."""
    return -(-frequencies // -(-frequencies // most))


def _chunks(weight: Tensor, rows: int, columns: int) -> Iterator[_Chunk]:
    """The half spectrum in balanced chunks."""
    mirrored = (2 - columns % 2) * (rows // 2 + 1)
    frequencies = mirrored + (columns - 1) // 2 * rows
    per_frequency = max(1, math.prod(weight.shape[:-2]))
    size = balanced(frequencies, max(1, _CHUNK_ELEMENTS // per_frequency))
    for first in range(0, frequencies, size):
        index = torch.arange(first, min(first + size, frequencies), device=weight.device)
        yield _chunk(index, mirrored, rows, columns, (weight.shape[-2], weight.shape[-1]))


def _chunk(index: Tensor, mirrored: int, rows: int, columns: int, kernel: tuple[int, int]) -> _Chunk:
    """Columns 0 and W/2, of which rows 0 to H/2 suffice, come first; then columns 1 to (W - 1)/2."""
    half, rest = rows // 2 + 1, index - mirrored
    row = torch.where(rest < 0, index % half, rest % rows)
    column = torch.where(rest < 0, index // half * (columns // 2), 1 + rest // rows)
    alone = (rest < 0) & (2 * row % rows == 0)
    of_rows, of_columns = _phases(row, rows, kernel[0]), _phases(column, columns, kernel[1])
    phases = (of_rows[:, :, None] * of_columns[:, None, :]).flatten(1)
    return _Chunk(phases.real.contiguous(), phases.imag.contiguous(), (2.0 - alone.double())[:, None])


def _phases(frequency: Tensor, size: int, taps: int) -> Tensor:
    """e^{iψ} of taps along an axis of `size`, centred, (F, taps): exact at quarter turns."""
    offsets = torch.arange(1 - taps, taps, 2, device=frequency.device)
    half_turns = frequency[:, None] * offsets % (2 * size)  # ψ = π / size times this
    quarter = (4 * half_turns + size) // (2 * size)  # the nearest quarter turn
    rest = (2 * half_turns - quarter * size).double() * (math.pi / (2 * size))
    cosine, sine = rest.cos(), rest.sin()
    swapped, negative = quarter % 2 == 1, [(quarter + k) // 2 % 2 == 1 for k in (1, 0)]
    parts = torch.where(swapped, sine, cosine), torch.where(swapped, cosine, sine)
    return torch.complex(*(torch.where(n, -p, p) for n, p in zip(negative, parts, strict=True)))


torch.library.impl("led_fast::circulant_logdet_by_lu", "default", value)
torch.library.impl("led_fast::circulant_logdet_by_lu_with_grad", "default", value_and_gradient)
