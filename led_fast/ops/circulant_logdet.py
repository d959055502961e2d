"""log|det| of a circular convolution (LED, App. A.3), with its gradient from the same pass."""

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

from led_fast import reference
from led_fast.ops import _circulant_logdet_by_lu as _circulant_logdet_by_lu  # registers its operators
from led_fast.ops._autograd import differentiable, forward_mode
from led_fast.ops._checks import check_floating
from led_fast.ops._shared_memory import exceeds_shared_memory
from led_fast.ops.backend import reference_in_use
from led_fast.reference import circulant_symbols


def circulant_logdet(weight: Tensor, grid: Sequence[int]) -> Tensor:
    """The log-determinant of a circular convolution on H x W images (LED, App. A.3).

    `nn.Conv2d(C, C, (kh, kw), padding="same", padding_mode="circular")` is diagonal in Fourier space but for
    its channels: `log|det| = Σ_f log|det Ŵ(f)|` over the H W frequencies, Ŵ(f) the C x C symbol. The cost is
    O(H W C³). The symbols are never all stored: the memory is O(C² kh kw), plus a workspace of at most 128 MiB
    (float64: 256) or of four symbols a convolution, whichever is more, and on a GPU O(kh kw) numbers a frequency.
    Second derivatives do store them.

    On a GPU, all is kernels that the host does not wait for, unless a symbol exceeds the shared memory of a block (from
    some 90 to 170 channels of float32 on). PyTorch factors those, and the libraries behind it, cuSOLVER or MAGMA,
    may have the host wait: then a CUDA graph cannot capture the call.

    Args:
        weight: Shape (..., C, C, kh, kw), any strides; leading dimensions are a batch of convolutions.
            Kernels larger than the grid wrap around it. Half precisions are computed in float32.
        grid: (H, W), two positive integers.

    Returns:
        Shape (...), in nats; float64 for float64 weights, float32 otherwise, under autocast too. Where a
        symbol is exactly singular (its elimination meets a zero pivot) the result is -inf, and that frequency
        adds zero to the gradient. NaN or infinite weights give NaN. Differentiable any number of times: where
        `weight` requires a gradient, it is computed at once and kept, O(C² kh kw). The result does not depend
        on the number of threads.

    Raises:
        TypeError: `weight` is no tensor, or `grid` is not of integers.
        ValueError: `weight` is not of a floating-point dtype, has fewer than 4 dimensions, unequal channels or
            an empty kernel, or `grid` is not two positive integers.

    Example:
        >>> import torch, led_fast
        >>> weight = 2 * torch.eye(3)[:, :, None, None]  # y = 2 x: log|det| = 3 channels * 16 cells * log(2)
        >>> led_fast.circulant_logdet(weight, grid=(4, 4))
        tensor(33.2711)
    """
    rows, columns = _check(weight, grid)
    if weight.dtype in (torch.float16, torch.bfloat16):
        weight = weight.float()
    if torch.jit.is_tracing():
        return _traceable()(weight, torch.as_tensor(rows), torch.as_tensor(columns))
    if reference_in_use():
        return reference.circulant_logdet(weight, (rows, columns))
    value, with_grad = _by_lu if _exceeds_kernels(weight, rows, columns) else _by_kernels
    if torch.is_grad_enabled() and weight.requires_grad:
        return with_grad(weight, rows, columns)[0]
    return value(weight, rows, columns)


def _check(weight: Tensor, grid: Sequence[int]) -> tuple[int, int]:
    check_floating("circulant_logdet", "weight", weight)
    if weight.dim() < 4 or weight.shape[-4] != weight.shape[-3] or 0 in weight.shape[-2:]:
        raise ValueError(
            f"circulant_logdet: weight must have shape (..., C, C, kh, kw), got {tuple(weight.shape)}"
        )
    sizes = tuple(grid) if isinstance(grid, Sequence) else (grid,)
    integers = (int, torch.SymInt, Tensor) if torch.jit.is_tracing() else (int, torch.SymInt)
    if not all(isinstance(size, integers) and not isinstance(size, bool) for size in sizes):
        raise TypeError(f"circulant_logdet: grid must be two integers (H, W), got {grid!r}")
    if len(sizes) != 2 or min(sizes) < 1:
        raise ValueError(f"circulant_logdet: grid must be two positive integers (H, W), got {grid!r}")
    return sizes


def _of_traced_sizes(weight: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return torch.ops.led_fast.circulant_logdet(weight, int(rows), int(columns))


@cache
def _traceable() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """For `torch.jit.trace`, whose sizes are tensors: the operator by itself would keep those of the example."""
    return torch.jit.script(_of_traced_sizes)


def _exceeds_kernels(weight: Tensor, rows: int, columns: int) -> bool:
    """Whether PyTorch's own factorisation is the better one, by measurement, or the only one."""
    channels = weight.shape[-3]
    if weight.is_cuda:
        return channels > 32 and exceeds_shared_memory(weight)
    return channels >= 64 and rows * columns <= 3  # one or two frequencies leave SIMD lanes empty


def _scale(gradient: Tensor, factor: Tensor) -> Tensor:
    return gradient * (factor.reshape(*factor.shape, 1, 1, 1, 1) if factor.dim() else factor)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((-4, -3, -2, -1))


def _hessian_product(weight: Tensor, direction: Tensor, rows: int, columns: int) -> Tensor:
    """`d<direction, gradient(weight)> / d weight`, by differentiable PyTorch on the half spectrum.

    The gradient is `Re Σ_f Ŵ^{-T} ω^{tap f}`; along V it changes by `-Re Σ_f (Ŵ^{-1} V̂ Ŵ^{-1})^T ω^{tap f}`.
    """
    grid = rows, columns
    symbol, change = circulant_symbols(weight, grid), circulant_symbols(direction, grid)
    with torch.no_grad():
        singular = (torch.linalg.inv_ex(symbol)[1] != 0)[..., None, None]
    identity = torch.eye(symbol.shape[-1], dtype=symbol.dtype, device=symbol.device)
    inverse = torch.linalg.inv_ex(torch.where(singular, identity, symbol))[0].masked_fill(singular, 0)
    product = (inverse @ change @ inverse).mH.movedim((-2, -1), (-4, -3))
    image = torch.fft.irfft2(product, s=grid, norm="forward")
    kh, kw = weight.shape[-2:]
    at_rows = torch.arange(kh, device=weight.device) % rows
    at_columns = torch.arange(kw, device=weight.device) % columns
    return -image[..., at_rows[:, None], at_columns]


def _operators(name: str) -> tuple[Callable[..., Tensor], Callable[..., tuple[Tensor, Tensor]]]:
    """An operator for the value and one for value and gradient, with all that PyTorch wants to know of them."""
    op, op_with_grad = (getattr(torch.ops.led_fast, n).default for n in (name, f"{name}_with_grad"))

    def setup(ctx, inputs, output) -> None:
        weight, ctx.rows, ctx.columns = inputs
        ctx.save_for_backward(weight)

    def backward(ctx, grad_logdet: Tensor):
        (weight,) = ctx.saved_tensors
        _, gradient = with_grad(weight, ctx.rows, ctx.columns)
        return _scale(gradient, grad_logdet), None, None

    def jvp(inputs, output: Tensor, tangents) -> Tensor:
        weight, rows, columns = inputs
        return _inner(with_grad(weight, rows, columns)[1], tangents[0])

    def setup_with_grad(ctx, inputs, output) -> None:
        weight, ctx.rows, ctx.columns = inputs
        ctx.save_for_backward(weight, output[1])
        ctx.set_materialize_grads(False)

    def backward_with_grad(ctx, grad_logdet: Tensor | None, grad_gradient: Tensor | None):
        weight, gradient = ctx.saved_tensors
        grad_weight = None
        if grad_logdet is not None:
            if forward_mode():  # a saved output has no tangent
                gradient = with_grad(weight, ctx.rows, ctx.columns)[1]
            grad_weight = _scale(gradient, grad_logdet)
        if grad_gradient is not None:
            second = _hessian_product(weight, grad_gradient, ctx.rows, ctx.columns)
            grad_weight = second if grad_weight is None else grad_weight + second
        return grad_weight, None, None

    def jvp_with_grad(inputs, output, tangents) -> tuple[Tensor, Tensor]:
        # The Hessian is symmetric: its product with the tangent is the gradient's tangent.
        weight, rows, columns = inputs
        return _inner(output[1], tangents[0]), _hessian_product(weight, tangents[0], rows, columns)

    @torch.library.register_fake(op.name())
    def fake(weight: Tensor, rows: int, columns: int) -> Tensor:
        return weight.new_empty(weight.shape[:-4])

    @torch.library.register_fake(op_with_grad.name())
    def fake_with_grad(weight: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        return weight.new_empty(weight.shape[:-4]), weight.new_empty(weight.shape)

    @torch.library.register_vmap(op.name())
    def vmap(info, in_dims, weight: Tensor, rows: int, columns: int):
        return op(weight.movedim(in_dims[0], 0), rows, columns), 0

    @torch.library.register_vmap(op_with_grad.name())
    def vmap_with_grad(info, in_dims, weight: Tensor, rows: int, columns: int):
        return op_with_grad(weight.movedim(in_dims[0], 0), rows, columns), (0, 0)

    with_grad = differentiable(op_with_grad, backward_with_grad, setup_with_grad, jvp_with_grad)
    return differentiable(op, backward, setup, jvp), with_grad


_by_kernels = _operators("circulant_logdet")
_by_lu = _operators("circulant_logdet_by_lu")
