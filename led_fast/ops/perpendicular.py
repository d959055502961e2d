"""The part of an input that a linear layer or convolution does not look at (LED, Sec. 2.2 and App. B.2)."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from led_fast import reference
from led_fast.ops import _layer_map
from led_fast.ops._autograd import differentiable, graph_wanted, not_differentiable
from led_fast.ops._checks import check_floating
from led_fast.ops._layer_map import Geometry
from led_fast.ops._sample_sums import along_samples
from led_fast.ops._vmap import flat, one_by_one, unflat
from led_fast.ops.autocast import autocast_is_on, without_autocast
from led_fast.ops.backend import reference_in_use
from led_fast.ops.row_space import project

_norm_op = torch.ops.led_fast.perpendicular_norm.default
_norm_backward_op = torch.ops.led_fast.perpendicular_norm_backward.default
_norm_to_op = torch.ops.led_fast.perpendicular_norm_to.default
MODES = ("direction", "exact")

INTEGER: Any = (int, torch.SymInt)

Size = int | tuple[int, int]


def perpendicular_norm(
    x: Tensor,
    weight: Tensor,
    t: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """`‖x⊥‖₂` per sample, where `x⊥ = x - û ûᵀ x`, `u = Wᵀ t`, `û = u / ‖u‖` and `t = W x` (LED, Sec. 2.2).

    W is the linear map of a linear layer or convolution without its bias, `Wᵀ` the transposed convolution.
    The transposed convolution is fused with the sums where that is faster: then u never reaches memory.

    Args:
        x: Shape (B, F) for a linear layer or (B, C, H, W) for a convolution; float64, float32, bfloat16 or
            float16. B may be 0.
        weight: Shape (O, F), or (O, C / groups, kh, kw). Of x's dtype; under autocast of any, see Returns.
        t: `W x` without bias, where the caller has it already: (B, O) or (B, O, h, w). Gradients flow to it.
            Any other value is projected on just as well: `u = Wᵀ t` is all that counts. Of any dtype.
        stride: As in :class:`torch.nn.Conv2d`, like the next three; at their defaults for a linear layer.
        padding: Zeros on both sides.
        dilation: Spacing of the kernel's taps.
        groups: Must divide C and O.

    Returns:
        Shape (B,), float64 where x or weight is and float32 otherwise. Under autocast, too: x, weight and t are
        widened first, and gradients have the dtype of what they belong to. Take them outside of the autocast
        block, as PyTorch says of any gradient. `‖x⊥‖` is the square root of a sum of squares, not of a
        difference: its error is a few roundings of `‖x‖ (1 + ‖|W|ᵀ|t|‖ / ‖u‖)`, also where `x⊥` is nearly 0.
        A convolution in TF32, cuDNN's default for float32 (`torch.backends.cudnn.allow_tf32`), rounds to 11 bits:
        t and, with more than 4 channels a group, u are then off by some 4e-4 of themselves, and `‖x⊥‖` by up to
        as much of `‖x‖`, most where `x⊥` is nearly 0. Where `u = 0`, `x⊥ = x`; where `x⊥ = 0`, all gradients
        are 0. Differentiable any number of times.

    Raises:
        TypeError: x, weight or t is no tensor, or stride, padding, dilation or groups are no integers.
        ValueError: A dtype is not of floating point; shapes, dtypes or devices do not agree; or a number is out
            of range.

    Example:
        >>> import torch, led_fast
        >>> x, weight = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]])  # it sees one coordinate
        >>> led_fast.perpendicular_norm(x, weight, x @ weight.mT)
        tensor([4.])
    """
    geometry = _check("perpendicular_norm", x, weight, t, stride, padding, dilation, groups)
    with without_autocast(x):
        x, weight, t = _widen(x, weight, t)
        if reference_in_use():
            return reference.perpendicular_norm(x, weight, t, stride, padding, dilation, groups)
        if t is None:
            t = _layer_map.apply(x, weight, geometry)
        if x.dim() == 4 and _fused_is_faster(x, weight, geometry):
            wanted = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad or t.requires_grad)
            keep_u = wanted and not torch.jit.is_tracing()  # a trace is one for both
            return _norm(x, weight, t, *geometry, keep_u)[0]
        return _norm_to(x, _layer_map.transpose(t, weight, x.shape, geometry))[0]


def perpendicular(
    x: Tensor,
    weight: Tensor,
    t: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
    mode: str = "direction",
) -> Tensor:
    """`x⊥` itself, whose norm :func:`perpendicular_norm` gives; or the part of x that W cannot see at all.

    Args:
        x: See :func:`perpendicular_norm`, like the following ones.
        weight: The layer's weight.
        t: `W x` without bias. Not used in exact mode.
        stride: The convolution's stride.
        padding: Zeros on both sides.
        dilation: Spacing of the kernel's taps.
        groups: Must divide C and O.
        mode: "direction": `x - û ûᵀ x`, perpendicular to the one direction `u = Wᵀ t`. "exact": `x - Wᵀ (W
            Wᵀ)⁻¹ W x`, perpendicular to every row of W; 0 where the layer does not reduce dimension. The two
            agree where W's rows are orthonormal up to one scale. Exact mode factors in float64: by Cholesky
            for linear layers, where singular values below about 1e-6 of the largest count as 0, and by
            conjugate gradients for convolutions, to a residual `‖W x⊥‖ ≤ 1e-10 ‖W x‖`.

    Returns:
        Of x's shape, in float64 where x or weight is and float32 otherwise; under autocast and in TF32, which
        exact mode does not use, as :func:`perpendicular_norm`. Differentiable any number of times.

    Raises:
        TypeError: See :func:`perpendicular_norm`.
        ValueError: Likewise, or the mode is unknown.
        RuntimeError: Conjugate gradients did not reach their tolerance.

    Example:
        >>> import torch, led_fast
        >>> x, weight = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]])
        >>> led_fast.perpendicular(x, weight, x @ weight.mT)
        tensor([[0., 4.]])
    """
    geometry = _check("perpendicular", x, weight, t, stride, padding, dilation, groups)
    if mode not in MODES:
        raise ValueError(f"perpendicular: mode must be one of {MODES}, got {mode!r}")
    with without_autocast(x):
        x, weight, t = _widen(x, weight, t)
        if mode == "exact":
            return x - project(x, weight, geometry)
        t = _layer_map.apply(x, weight, geometry) if t is None else t
        u = _layer_map.transpose(t, weight, x.shape, geometry)
        return x - _coefficient(x, u) * u


# ---- arguments -------------------------------------------------------------------------------------------


def _pair(op: str, name: str, value: Any, smallest: int) -> list[Any]:
    values = (
        [value, value]
        if isinstance(value, INTEGER)
        else list(value)
        if isinstance(value, (tuple, list))
        else []
    )
    if len(values) != 2 or not all(isinstance(v, INTEGER) for v in values):
        raise TypeError(f"{op}: {name} must be an integer or a pair of them, got {value!r}")
    if min(values) < smallest:
        raise ValueError(f"{op}: {name} must be at least {smallest}, got {value!r}")
    return values


def _check(op: str, x, weight, t, stride, padding, dilation, groups: Any) -> Geometry:
    check_floating(op, "x", x)
    check_floating(op, "weight", weight)
    if x.dim() not in (2, 4):
        raise ValueError(f"{op}: x must have shape (B, F) or (B, C, H, W), got {tuple(x.shape)}")
    if weight.dim() != x.dim():
        raise ValueError(f"{op}: weight must have {x.dim()} dimensions like x, got {tuple(weight.shape)}")
    if weight.dtype != x.dtype and not autocast_is_on(x):
        raise ValueError(f"{op}: weight must have x's dtype {x.dtype}, got {weight.dtype}")
    if weight.device != x.device:
        raise ValueError(f"{op}: weight must be on x's device {x.device}, got {weight.device}")
    stride, padding = _pair(op, "stride", stride, 1), _pair(op, "padding", padding, 0)
    dilation = _pair(op, "dilation", dilation, 1)
    if not isinstance(groups, INTEGER):
        raise TypeError(f"{op}: groups must be an integer, got {groups!r}")
    if groups < 1 or x.shape[1] % groups or weight.shape[0] % groups:
        raise ValueError(
            f"{op}: groups must divide the channels of x ({x.shape[1]}) and weight ({weight.shape[0]}), got {groups}"
        )
    if weight.shape[1] * groups != x.shape[1]:
        raise ValueError(
            f"{op}: weight must have shape[1] = {x.shape[1] // groups} for x, got {tuple(weight.shape)}"
        )
    out: tuple[int, ...] = (x.shape[0], weight.shape[0])
    if x.dim() == 4:
        grid = [
            (x.shape[2 + i] + 2 * padding[i] - dilation[i] * (weight.shape[2 + i] - 1) - 1) // stride[i] + 1
            for i in range(2)
        ]
        if min(grid) < 1 or min(weight.shape[2:]) < 1:
            raise ValueError(
                f"{op}: weight's kernel must fit x {tuple(x.shape)}, got {tuple(weight.shape[2:])}"
            )
        out = (*out, *grid)
    elif (stride, padding, dilation, groups) != ([1, 1], [0, 0], [1, 1], 1):
        raise ValueError(
            f"{op}: x must have 4 dimensions for stride, padding, dilation and groups, got {tuple(x.shape)}"
        )
    if t is not None:
        check_floating(op, "t", t)
        if tuple(t.shape) != out:
            raise ValueError(f"{op}: t must have shape {out}, got {tuple(t.shape)}")
        if t.device != x.device:
            raise ValueError(f"{op}: t must be on x's device {x.device}, got {t.device}")
    return stride, padding, dilation, groups


def _widen(x: Tensor, weight: Tensor, t: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    dtype = torch.float64 if torch.float64 in (x.dtype, weight.dtype) else torch.float32
    return x.to(dtype), weight.to(dtype), None if t is None else t.to(dtype)


# ---- the choice of the kernel ------------------------------------------------------------------------------


def _is_dcgan(weight: Tensor, geometry: Geometry) -> bool:
    stride, _, dilation, groups = geometry
    return (*weight.shape[2:], *stride, *dilation, groups) == (4, 4, 2, 2, 1, 1, 1)


def _fused_is_faster(x: Tensor, weight: Tensor, geometry: Geometry) -> bool:
    """Whether the fused kernel beats the library's transposed convolution.

    Measured around the borders: bench/results/perpendicular_crossover_cpu.json (bench/test_perpendicular.py).
    On a CPU alone; that a GPU's borders are the same is an estimate (bench/gpu_cases.py times both ways there).
    """
    if weight.shape[2] * weight.shape[3] > (24 if x.dtype == torch.float64 else 48):
        return False
    return weight.shape[1] <= 4 or (_is_dcgan(weight, geometry) and x.device.type == "cpu")


def _fused_backward_is_faster(weight: Tensor, t: Tensor, geometry: Geometry) -> bool:
    """Likewise for the gradients."""
    if not (_is_dcgan(weight, geometry) and weight.shape[1] > 4 and t.device.type == "cpu"):
        return False
    tiles = -(-t.shape[2] // 2) * -(-t.shape[3] // 2)
    return t.shape[0] * tiles >= 16


def _unfolding_is_faster(weight: Tensor, t: Tensor, geometry: Geometry) -> bool:
    cells = t.shape[0] * t.shape[2] * t.shape[3]
    return t.device.type == "cpu" and geometry[3] == 1 and cells <= 16 and weight.numel() >= 2**18


# ---- autograd --------------------------------------------------------------------------------------------


def _coefficient(x: Tensor, u: Tensor) -> Tensor:
    """`<u, x> / <u, u>` of every sample, 0 where u = 0; shaped to multiply u."""
    ux, uu = (u * x).flatten(1).sum(1), (u * u).flatten(1).sum(1)
    return along_samples(torch.where(uu > 0, ux / torch.where(uu > 0, uu, 1), 0), x)


def _scale(grad: Tensor, norm: Tensor) -> Tensor:
    """`g / ‖x⊥‖`, 0 where `x⊥ = 0`."""
    return torch.where(norm > 0, grad / torch.where(norm > 0, norm, 1), 0)


def _gradients_to(
    grad: Tensor, x: Tensor, u: Tensor, coefficient: Tensor, norm: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`g x⊥ / ‖x⊥‖` wrt x and `-a g x⊥ / ‖x⊥‖` wrt u: a minimises the norm, so its own change does not count."""
    rest = torch.addcmul(x, u, coefficient, value=-1)
    if norm is None:
        square = rest.flatten(1).square().sum(1)
        norm = torch.where(square > 0, torch.where(square > 0, square, 1).sqrt(), 0)
    grad_x = rest * along_samples(_scale(grad, norm), x)
    return grad_x, grad_x * -coefficient


@torch.library.register_fake("led_fast::perpendicular_norm")
def _fake(x, weight, t, stride, padding, dilation, groups, keep_u):
    u = torch.empty_like(x, memory_format=torch.contiguous_format) if keep_u else x.new_empty(0)
    return x.new_empty(x.shape[0]), x.new_empty(x.shape[0]), u


@torch.library.register_fake("led_fast::perpendicular_norm_to")
def _fake_to(x, u):
    return x.new_empty(x.shape[0]), x.new_empty(x.shape[0])


@torch.library.register_fake("led_fast::perpendicular_norm_backward")
def _fake_backward(
    x, weight, t, u, coefficient, scale, stride, padding, dilation, groups, need_weight, need_t
):
    outputs = [(x, True), (weight, need_weight), (t, need_t)]
    return tuple(
        torch.empty_like(v, memory_format=torch.contiguous_format) if needed else v.new_empty(0)
        for v, needed in outputs
    )


def _setup(ctx, inputs, output) -> None:
    x, weight, t, *ctx.geometry, ctx.keep_u = inputs
    norm, coefficient, u = output
    ctx.save_for_backward(x, weight, t, norm.clone(), coefficient, u)  # the caller may change norm in place
    ctx.set_materialize_grads(False)


def _backward(ctx, grad: Tensor | None, *_):
    if grad is None:
        return (None,) * 8
    with without_autocast(grad):  # as in the forward pass
        return (*_gradients(ctx, grad), None, None, None, None, None)


def _gradients(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    x, weight, t, norm, coefficient, u = ctx.saved_tensors
    _, need_weight, need_t, *_ = ctx.needs_input_grad
    differentiable = graph_wanted()
    if differentiable or not ctx.keep_u:
        u = _layer_map.transpose(t, weight, x.shape, ctx.geometry)
    if not differentiable and _fused_backward_is_faster(weight, t, ctx.geometry):
        scale = _scale(grad, norm)
        gradients = _norm_backward_op(x, weight, t, u, coefficient, scale, *ctx.geometry, need_weight, need_t)
        grad_x, grad_weight, grad_t = (v if v.dim() > 1 else None for v in gradients)
    else:
        if differentiable:
            grad_x, grad_u = _gradients_to(grad, x, u, _coefficient(x, u), None)
        else:
            grad_x, grad_u = _gradients_to(grad, x, u, along_samples(coefficient, x), norm)
        if not differentiable and need_weight and need_t and _unfolding_is_faster(weight, t, ctx.geometry):
            grad_t, grad_weight = _layer_map.both_by_unfolding(grad_u, weight, t, ctx.geometry)
        else:
            grad_weight = _layer_map.weight_gradient(grad_u, weight, t, ctx.geometry) if need_weight else None
            grad_t = _layer_map.apply(grad_u, weight, ctx.geometry) if need_t else None
    return grad_x, grad_weight, grad_t


def _setup_to(ctx, inputs, output) -> None:
    norm, coefficient = output
    ctx.save_for_backward(*inputs, norm.clone(), coefficient)
    ctx.set_materialize_grads(False)


def _backward_to(ctx, grad: Tensor | None, _):
    if grad is None:
        return None, None
    x, u, norm, coefficient = ctx.saved_tensors
    if graph_wanted():
        return _gradients_to(grad, x, u, _coefficient(x, u), None)
    return _gradients_to(grad, x, u, along_samples(coefficient, x), norm)


def _jvp(inputs, output, tangents):
    (x, weight, t, *geometry, _), (v, v_weight, v_t, *_) = inputs, tangents
    u = _layer_map.transpose(t, weight, x.shape, geometry)
    parts = []
    if v_weight is not None:
        parts.append(_layer_map.transpose(t, v_weight, x.shape, geometry))
    if v_t is not None:
        parts.append(_layer_map.transpose(v_t, weight, x.shape, geometry))
    return _tangent(x, u, v, sum(parts[1:], parts[0]) if parts else None), None, None


def _jvp_to(inputs, output, tangents):
    return _tangent(*inputs, *tangents), None


def _tangent(x: Tensor, u: Tensor, v: Tensor | None, v_u: Tensor | None) -> Tensor:
    """`<x⊥, v - a v_u> / ‖x⊥‖`, 0 where x⊥ = 0, of every sample."""
    grad_x, grad_u = _gradients_to(x.new_ones(x.shape[0]), x, u, _coefficient(x, u), None)
    parts = [(g * d).flatten(1).sum(1) for g, d in ((grad_x, v), (grad_u, v_u)) if d is not None]
    return sum(parts[1:], parts[0])


_norm = differentiable(_norm_op, _backward, _setup, _jvp)
_norm_to = differentiable(_norm_to_op, _backward_to, _setup_to, _jvp_to)
not_differentiable(_norm_backward_op)


# ---- vmap ------------------------------------------------------------------------------------------------


@torch.library.register_vmap("led_fast::perpendicular_norm_to")
def _vmap_to(info, in_dims, x, u):
    outputs = _norm_to_op(flat(info, x, in_dims[0]), flat(info, u, in_dims[1]))
    return tuple(unflat(info, v, x, in_dims[0]) for v in outputs), (0, 0)


@torch.library.register_vmap("led_fast::perpendicular_norm")
def _vmap(info, in_dims, x, weight, t, *arguments):
    if in_dims[1] is not None:
        return one_by_one(_norm_op, info, in_dims, x, weight, t, *arguments)
    *outputs, u = _norm_op(flat(info, x, in_dims[0]), weight, flat(info, t, in_dims[2]), *arguments)
    outputs = [unflat(info, v, x, in_dims[0]) for v in outputs]
    if u.dim() == 1:  # not kept
        return (*outputs, u), (0, 0, None)
    return (*outputs, unflat(info, u, x, in_dims[0])), (0, 0, 0)


torch.library.register_vmap("led_fast::perpendicular_norm_backward", partial(one_by_one, _norm_backward_op))
