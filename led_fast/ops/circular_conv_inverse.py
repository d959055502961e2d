"""The inverse of a circular convolution, with its log-determinant (LED, App. A.3)."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from led_fast import reference
from led_fast.ops import _circular_conv_inverse_cuda
from led_fast.ops._autograd import differentiable, graph_wanted
from led_fast.ops._checks import check_floating
from led_fast.ops._vmap import flat, one_by_one, unflat
from led_fast.ops.autocast import without_autocast
from led_fast.ops.backend import reference_in_use
from led_fast.reference import circulant_symbols, irfft2, rfft2

_op = torch.ops.led_fast.circular_conv_inverse.default
_backward_op = torch.ops.led_fast.circular_conv_inverse_backward.default


def circular_conv_inverse(y: Tensor, weight: Tensor, transpose: bool = False) -> tuple[Tensor, Tensor]:
    """Finds x with `circular_conv(x, weight) = y`, and the log-determinant of the map from y to x.

    The convolution is that of `nn.Conv2d(C, C, (kh, kw), padding="same", padding_mode="circular", bias=False)`
    and of :class:`led_fast.nn.CircularConv2d` without its bias, with its centre at tap `(k - 1) // 2`. In
    Fourier space it multiplies each frequency's C channels by one C x C matrix, the symbol (LED, App. A.3).
    Each symbol is inverted once, for the log-determinant, all samples and the gradient. The cost is
    O(H W C³) + O(B H W C²), besides the Fourier transforms. Where nothing requires a gradient, the memory is
    that of the spectra and a bounded number of symbols; else all inverse symbols are kept, O(H W C²).

    On a GPU the host waits for nothing, and a CUDA graph can capture the call and its gradient once they have run,
    unless a symbol exceeds the shared memory of a block (from some 110 to 170 channels of float32 on). PyTorch factors
    those, and the libraries behind it, cuSOLVER or MAGMA, may have the host wait: then no graph can capture the call.

    Args:
        y: Shape (B, C, H, W), any strides; float64, float32, bfloat16 or float16. B may be 0.
        weight: Shape (C, C, kh, kw), of float64 where y is, else of any of the others. Kernels larger than the
            images wrap around them.
        transpose: Solves with the transposed map instead: `x = J⁻ᵀ y` for `J` the convolution's Jacobian. This
            is how a score moves through the layer.

    Returns:
        `x`, contiguous, of y's shape and dtype, and `log_abs_det` in nats of shape (B,), one for all samples:
        minus that of :func:`led_fast.circulant_logdet`, of float64 for float64 inputs and float32 otherwise.
        Half precisions are computed in float32, under autocast too. Differentiable any number of times, in
        both modes. The result does not depend on the number of threads.

        There is no x where a symbol is exactly singular (its elimination meets a zero pivot): x is NaN and
        log_abs_det is +inf. Weights that are not finite give NaN for both. The gradients are NaN as well. A NaN
        or infinite value in y makes NaN of its own sample only.

    Raises:
        TypeError: y or weight is no tensor, or `transpose` is no bool.
        ValueError: A dtype is not of floating point, or shapes, dtypes or devices do not agree.

    Example:
        >>> import torch, led_fast
        >>> layer, y = led_fast.nn.CircularConv2d(3, 5, bias=False), torch.randn(4, 3, 8, 8)
        >>> x, log_abs_det = led_fast.circular_conv_inverse(y, layer.weight)
        >>> torch.testing.assert_close(layer(x)[0], y, rtol=1e-4, atol=1e-4)
        >>> torch.testing.assert_close(layer(x)[1], -log_abs_det)
    """
    dtype = _check(y, weight, transpose)
    with without_autocast(y):
        given, taps = y.to(dtype), weight.to(dtype)
        if reference_in_use():
            x, log_abs_det = reference.circular_conv_inverse(given, taps, transpose)
        else:
            keep = torch.is_grad_enabled() and (y.requires_grad or weight.requires_grad)
            x, log_abs_det, _, _ = _inverse(given, _adjoint(taps) if transpose else taps, keep)
        return x.to(y.dtype), log_abs_det.repeat(y.shape[0])  # no view: the caller may add to it in place


def _check(y: Tensor, weight: Tensor, transpose: bool) -> torch.dtype:
    """Returns the dtype to compute in."""
    op = "circular_conv_inverse"
    check_floating(op, "y", y)
    check_floating(op, "weight", weight)
    if not isinstance(transpose, bool):
        raise TypeError(f"{op}: transpose must be a bool, got {transpose!r}")
    if weight.dim() != 4 or weight.shape[0] != weight.shape[1] or 0 in weight.shape[2:]:
        raise ValueError(f"{op}: weight must have shape (C, C, kh, kw), got {tuple(weight.shape)}")
    if y.dim() != 4 or y.shape[1] != weight.shape[0] or 0 in y.shape[2:]:
        raise ValueError(f"{op}: y must have shape (B, {weight.shape[0]}, H, W), got {tuple(y.shape)}")
    if (y.dtype == torch.float64) != (weight.dtype == torch.float64):
        raise ValueError(
            f"{op}: weight and y must both be float64 or neither, got weight of {weight.dtype}, y of {y.dtype}"
        )
    if y.device != weight.device:
        raise ValueError(f"{op}: weight must be on y's device {y.device}, got {weight.device}")
    return torch.float64 if y.dtype == torch.float64 else torch.float32


# ---- what the kernels compute, by differentiable PyTorch -----------------------------------------------------


def _adjoint(weight: Tensor) -> Tensor:
    """The transposed convolution's weight. Even kernels get a tap before the first: their centre is the left one."""
    kh, kw = weight.shape[-2:]
    return torch.nn.functional.pad(weight, (1 - kw % 2, 0, 1 - kh % 2, 0)).flip(-1, -2).transpose(0, 1)


def _at_taps(image: Tensor, weight: Tensor) -> Tensor:
    """The values of (..., H, W) at the offsets of the weight's taps from its first."""
    rows, columns = (
        torch.arange(taps, device=weight.device) % size
        for taps, size in zip(weight.shape[-2:], image.shape[-2:], strict=True)
    )
    return image[..., rows[:, None], columns]


def _centre(weight: Tensor) -> list[int]:
    return [(taps - 1) // 2 for taps in weight.shape[-2:]]


def _convolve(x: Tensor, weight: Tensor) -> Tensor:
    grid = (x.shape[-2], x.shape[-1])
    symbols = circulant_symbols(weight, grid).conj()
    spectrum = torch.einsum("hwij,bjhw->bihw", symbols, rfft2(x))
    return irfft2(spectrum, grid).roll(_centre(weight), dims=(-2, -1))


def _gradient_of_convolve(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """The gradient of `<grad, _convolve(x, weight)>` with respect to the weight."""
    grad = grad.roll([-shift for shift in _centre(weight)], dims=(-2, -1))
    products = torch.einsum("bihw,bjhw->ijhw", rfft2(grad).conj(), rfft2(x))
    return _at_taps(irfft2(products, (x.shape[-2], x.shape[-1])), weight)


def _gradient_of_logdet(weight: Tensor, grid: tuple[int, int]) -> Tensor:
    """The gradient of the convolution's log-determinant: `Re Σ_f Ŵ(f)^{-T} ω^{tap f}`."""
    inverses = torch.linalg.inv_ex(circulant_symbols(weight, grid))[0].mH.movedim((-2, -1), (0, 1))
    return _at_taps(torch.fft.irfft2(inverses, s=grid, norm="forward"), weight)


# ---- autograd ------------------------------------------------------------------------------------------------


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    y, weight, _ = inputs
    _, _, solved, inverses = output
    ctx.save_for_backward(y, weight, solved, inverses)
    ctx.mark_non_differentiable(solved, inverses)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_x: Tensor | None, grad_log: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    need_y, need_weight, _ = ctx.needs_input_grad
    if grad_x is None and (grad_log is None or not need_weight):
        return None, None, None
    y, weight, solved, inverses = ctx.saved_tensors
    if graph_wanted() or inverses.numel() == 0:  # nothing was kept
        return *_composed_gradients(grad_x, grad_log, y, weight, need_weight), None
    need_y &= grad_x is not None
    grad_y, grad_weight = _backward_op(grad_x, grad_log, y, weight, solved, inverses, need_y, need_weight)
    return grad_y if need_y else None, grad_weight if need_weight else None, None


def _composed_gradients(
    grad_x: Tensor | None, grad_log: Tensor | None, y: Tensor, weight: Tensor, need_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """As the backward kernel computes them, by differentiable functions."""
    parts, grad_y = [], None
    if grad_x is not None:
        grad_y = _inverse(grad_x, _adjoint(weight), True)[0]
        if need_weight:
            parts.append(-_gradient_of_convolve(grad_y, _inverse(y, weight, True)[0], weight))
    if grad_log is not None and need_weight:
        parts.append(-grad_log * _gradient_of_logdet(weight, (y.shape[-2], y.shape[-1])))
    return grad_y, sum(parts[1:], parts[0]) if parts else None


def _jvp(inputs: Any, output: Any, tangents: Any) -> tuple[Tensor | None, ...]:
    (_, weight, _), (x, *_), (v, v_weight, _) = inputs, output, tangents
    tangent_log = None
    if v_weight is not None:
        moved = _convolve(x, v_weight)
        v = -moved if v is None else v - moved
        tangent_log = -(_gradient_of_logdet(weight, (x.shape[-2], x.shape[-1])) * v_weight).sum()
    return _inverse(v, weight, True)[0], tangent_log, None, None


_inverse = differentiable(_op, _backward, _setup, _jvp)


# ---- shapes, batches -----------------------------------------------------------------------------------------


def _kept_sizes(y: Tensor, weight: Tensor) -> tuple[int, int]:
    """Of the spectrum and the inverse symbols that are kept, in the layout of csrc/circular_conv_inverse/cpu.cpp."""
    samples, channels, rows, columns = y.shape
    mirrored = 2 - columns % 2
    frequencies = mirrored * (rows // 2 + 1) + (columns - mirrored) // 2 * rows

    def size(width: Any) -> Any:
        return frequencies * (2 * channels * ((width + 15) // 16 * 16) + 16)

    return size(samples), size(channels)


@torch.library.register_fake("led_fast::circular_conv_inverse")
def _fake(y: Tensor, weight: Tensor, keep: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    kept_shapes = _circular_conv_inverse_cuda.kept_shapes if y.is_cuda else _kept_sizes
    solved, inverses = kept_shapes(y, weight) if keep else (0, 0)
    x = torch.empty_like(y, memory_format=torch.contiguous_format)
    return x, y.new_empty(()), y.new_empty(solved), y.new_empty(inverses)


@torch.library.register_fake("led_fast::circular_conv_inverse_backward")
def _fake_backward(
    grad_x: Tensor | None,
    grad_log: Tensor | None,
    y: Tensor,
    weight: Tensor,
    solved: Tensor,
    inverses: Tensor,
    need_y: bool,
    need_weight: bool,
) -> tuple[Tensor, ...]:
    return tuple(
        torch.empty_like(like, memory_format=torch.contiguous_format) if needed else like.new_empty(0)
        for like, needed in ((y, need_y), (weight, need_weight))
    )


@torch.library.register_vmap("led_fast::circular_conv_inverse")
def _vmap(info: Any, in_dims: Any, y: Tensor, weight: Tensor, keep: bool) -> Any:
    if in_dims[1] is None:
        # Nothing is kept, because it would be of all calls' samples, and not of each call's: gradients are composed.
        x, log_abs_det, *nothing = _op(flat(info, y, in_dims[0]), weight, False)
        return (unflat(info, x, y, in_dims[0]), log_abs_det, *nothing), (0, None, None, None)
    return one_by_one(_op, info, in_dims, y, weight, keep)


torch.library.register_vmap("led_fast::circular_conv_inverse_backward", partial(one_by_one, _backward_op))
