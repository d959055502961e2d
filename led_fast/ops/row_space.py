"""The orthogonal projection on the row space of a linear layer or convolution."""

import torch
from torch import Tensor
from torch.autograd import forward_ad

from led_fast.ops import _layer_map
from led_fast.ops._autograd import forward_mode
from led_fast.ops._layer_map import Geometry

TOLERANCE = 1e-10  # of conjugate gradients, relative
MAX_ITERATIONS = 2000
_RIDGE = 1e-12  # relative to the mean eigenvalue: keeps Cholesky alive where rows depend on each other


def project(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """`Wᵀ (W Wᵀ)⁻¹ W x`, the part of x in the span of the rows of W. Differentiable any number of times."""
    if x.dim() == 2:
        basis = _orthonormal_rows(weight.double()).to(x.dtype)
        return x @ basis.T @ basis
    wide, wide_weight = x.double(), weight.double()
    y = _Solve.apply(_layer_map.apply(wide, wide_weight, geometry), wide_weight, x.shape, geometry)
    return _layer_map.transpose(y, wide_weight, x.shape, geometry).to(x.dtype)


def _orthonormal_rows(weight: Tensor) -> Tensor:
    gram = weight @ weight.T
    ridge = _RIDGE * gram.diagonal().mean() + torch.finfo(weight.dtype).tiny
    factor = torch.linalg.cholesky(gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
    return torch.linalg.solve_triangular(factor, weight, upper=False)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1).reshape(-1, 1, 1, 1)


def _conjugate_gradients(target: Tensor, weight: Tensor, shape: torch.Size, geometry: Geometry) -> Tensor:
    """Solves `W Wᵀ y = target` for every sample at once, from 0: finds the smallest solution."""
    y, rest, direction = torch.zeros_like(target), target, target
    squared = _dot(rest, rest)
    enough = TOLERANCE**2 * squared
    for _ in range(MAX_ITERATIONS):
        active = squared > enough
        if not active.any():
            return y
        image = _layer_map.transpose(direction, weight, shape, geometry)
        curvature = _dot(image, image)
        step = torch.where(active & (curvature > 0), squared / torch.where(curvature > 0, curvature, 1), 0)
        y = y + step * direction
        rest = rest - step * _layer_map.apply(image, weight, geometry)
        new = _dot(rest, rest)
        direction = rest + torch.where(active, new / torch.where(active, squared, 1), 0) * direction
        squared = torch.where(active, new, squared)
    worst = (squared / enough).max().sqrt() * TOLERANCE
    raise RuntimeError(
        f"perpendicular: conjugate gradients reached a relative residual of {worst:.1e} in {MAX_ITERATIONS} "
        f"steps, {TOLERANCE:.0e} wanted; the rows of weight are nearly dependent"
    )


class _Solve(torch.autograd.Function):
    """y = (W Wᵀ)⁻¹ target, differentiated implicitly: its derivatives are further solves."""

    @staticmethod
    def forward(target, weight, shape, geometry):
        return _conjugate_gradients(target, weight, shape, geometry)

    @staticmethod
    def setup_context(ctx, inputs, output):
        target, weight, ctx.shape, ctx.geometry = inputs
        ctx.save_for_backward(target, weight, output)
        ctx.save_for_forward(target, weight)

    @staticmethod
    def backward(ctx, grad):
        target, weight, y = ctx.saved_tensors
        if forward_mode():  # a saved output has no tangent
            y = _Solve.apply(target, weight, ctx.shape, ctx.geometry)
        grad_target = _Solve.apply(grad, weight, ctx.shape, ctx.geometry)
        grad_weight = None
        if ctx.needs_input_grad[1]:  # of -<Wᵀ grad_target, Wᵀ y>, which is linear in both W
            for a, b in [(grad_target, y), (y, grad_target)]:
                image = _layer_map.transpose(a, weight, ctx.shape, ctx.geometry)
                part = _layer_map.weight_gradient(image, weight, -b, ctx.geometry)
                grad_weight = part if grad_weight is None else grad_weight + part
        return grad_target, grad_weight, None, None

    @staticmethod
    def jvp(ctx, v_target, v_weight, *_):
        target, weight = (forward_ad.unpack_dual(v).primal for v in ctx.saved_tensors)
        change = torch.zeros_like(target) if v_target is None else v_target
        if v_weight is not None:  # W Wᵀ y = target, differentiated
            y = _Solve.apply(target, weight, ctx.shape, ctx.geometry)
            for a, b in [(weight, v_weight), (v_weight, weight)]:
                image = _layer_map.transpose(y, a, ctx.shape, ctx.geometry)
                change = change - _layer_map.apply(image, b, ctx.geometry)
        return _Solve.apply(change, weight, ctx.shape, ctx.geometry)

    @staticmethod
    def vmap(info, in_dims, target, weight, shape, geometry):
        targets, weights = (
            v.expand(info.batch_size, *v.shape) if dim is None else v.movedim(dim, 0)
            for v, dim in ((target, in_dims[0]), (weight, in_dims[1]))
        )
        each = zip(targets, weights, strict=True)
        return torch.stack([_Solve.apply(t, w, shape, geometry) for t, w in each]), 0
