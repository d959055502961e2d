"""Fourier features: against float64, derivatives and hazards. For the layer see test_nn_fourier_features.py."""

import math

import numpy as np
import pytest
import torch
from thread_oracle import assert_same_bits_by_threads
from torch import Tensor
from torch.library import opcheck

import led_fast
from led_fast import fourier_features, reference

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
# Shape of x, and directions: one of each, none, coordinates without a partner, registers and blocks with a rest.
SHAPES = [
    ((1, 1), 1),
    ((7, 2), 3),
    ((3, 5, 2), 16),
    ((4, 3), 128),
    ((2,), 17),
    ((5, 16), 130),
    ((300, 2), 300),
    ((6, 7), 0),
    ((0, 2), 5),
    ((3, 0), 5),
    ((2, 0, 3), 4),
]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs_of(shape: tuple[int, ...], directions: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [normal(*shape).to(dtype), 3 * normal(shape[-1], directions, seed=1).to(dtype)]


def results_of(function, inputs: list[Tensor], grad: Tensor) -> list[Tensor]:
    """The features, and the gradients to both inputs for one cotangent."""
    leaves = [v.detach().requires_grad_() for v in inputs]
    features = function(*leaves)
    return [features.detach(), *torch.autograd.grad(features, leaves, grad.to(features.dtype))]


def phases_of_all_sizes(dtype: torch.dtype, largest: float) -> Tensor:
    """Of both signs, with those next to multiples of π/2 and to both ends of what three parts of it reach."""
    sizes = torch.logspace(-8, math.log10(largest), 20_001, dtype=torch.float64)
    crossings = torch.cat([torch.arange(70_000), torch.arange(10**6, 10**6 + 1000)]) * (math.pi / 2)
    ends = torch.tensor([2.0**15, 2.0**20]).double()[:, None] * (1 + 1e-7 * torch.arange(-20, 21))
    phases = torch.cat([sizes, crossings, ends.flatten()])
    return torch.cat([phases, -phases, torch.zeros(1)]).to(dtype)


def sine_and_cosine(phases: Tensor) -> Tensor:
    """(N, 2), by the C library, with more digits than float64 where it has them."""
    wide = phases.numpy().astype(np.longdouble)
    return torch.from_numpy(np.stack([np.sin(wide), np.cos(wide)], axis=1).astype(np.float64))


class TestValues:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize(("shape", "directions"), SHAPES)
    def test_values_and_gradients(self, shape, directions, dtype) -> None:
        inputs = inputs_of(shape, directions, dtype)
        grad = normal(*shape[:-1], shape[-1] + 2 * directions, seed=2).to(dtype)
        ours, eager = (results_of(f, inputs, grad) for f in (fourier_features, reference.fourier_features))
        exact = results_of(reference.fourier_features, [v.double() for v in inputs], grad)
        for got, plain, true in zip(ours, eager, exact, strict=True):
            assert got.dtype == dtype and got.shape == true.shape
            if got.numel() > 0:
                units = 64 if dtype == torch.float64 else 4  # the float64 oracle rounds, too
                rounding = units * torch.finfo(dtype).eps * true.abs().max().clamp(min=1)
                error, of_eager = ((v.double() - true).abs().max() for v in (got, plain))
                assert error <= 2 * of_eager + rounding

    @pytest.mark.parametrize(("dtype", "largest"), [(torch.float32, 3e38), (torch.float64, 1e300)])
    def test_phases_of_all_sizes(self, dtype, largest) -> None:
        phases = phases_of_all_sizes(dtype, largest)
        exact = sine_and_cosine(phases)
        ones = torch.ones(1, 1, dtype=dtype)
        beside = fourier_features(ones, phases[None])[0, 1:].unflatten(0, (2, -1)).mT
        below = fourier_features(phases[:, None], ones)
        assert torch.equal(below[:, 0], phases) and torch.equal(below[:, 1:], beside)
        assert (beside.double() - exact).abs().max() <= torch.finfo(dtype).eps
        small = phases.abs() < 0.7
        torch.testing.assert_close(
            beside[small, 0].double(), exact[small, 0], rtol=torch.finfo(dtype).eps, atol=0
        )

    @pytest.mark.parametrize("dtype", DTYPES[2:])
    def test_half_precision_is_computed_in_float32(self, dtype) -> None:
        """Phases would lose all their digits: 200 has none behind the point in bfloat16."""
        x, projection = (v.to(dtype) for v in (10 * normal(50, 3).abs(), 20 * normal(3, 40, seed=1)))
        phases = x.double() @ projection.double()
        features = fourier_features(x, projection)
        assert torch.equal(features[:, :3], x)
        exact = torch.cat([phases.sin(), phases.cos()], dim=1)
        rounding = torch.finfo(dtype).eps / 4 + 2 * torch.finfo(torch.float32).eps * phases.max().item()
        torch.testing.assert_close(features[:, 3:].double(), exact, rtol=0, atol=rounding)

    def test_the_gradient_of_the_squares_vanishes(self) -> None:
        """sin² + cos² = 1."""
        x, projection = inputs_of((50, 4), 33)
        x.requires_grad_()
        squares = fourier_features(x, projection)[:, 4:].square().sum()
        (grad,) = torch.autograd.grad(squares, x)
        torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=1e-13)


class TestHazards:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_infinite_and_nan(self, dtype) -> None:
        x, projection = inputs_of((5, 2), 20, dtype)
        x[1:4, 1] = torch.tensor([math.inf, -math.inf, math.nan]).to(dtype)
        features = fourier_features(x, projection)
        assert torch.equal(features[:, :2].isnan(), x.isnan())
        assert features[1:4, 2:].isnan().all() and features[[0, 4]].isfinite().all()
        projection[0, 3] = math.inf
        columns = fourier_features(x, projection)[[0, 4], 2:].unflatten(1, (2, -1)).isnan().all(0).any(0)
        assert columns.tolist() == [i == 3 for i in range(20)]

    def test_neighbours_do_not_matter(self) -> None:
        x, projection = inputs_of((60, 2), 130, torch.float32)
        x[::7] *= 1e6
        features = fourier_features(x, projection)
        assert torch.equal(torch.cat([fourier_features(row[None], projection) for row in x]), features)
        alone = torch.cat([fourier_features(x, projection[:, k : k + 1])[:, 2:] for k in range(130)], dim=1)
        assert torch.equal(alone, features[:, 2:].unflatten(1, (2, 130)).mT.flatten(1))

    @pytest.mark.parametrize(
        "view",
        [
            lambda v: v.repeat_interleave(2, 0)[::2],
            lambda v: v.mT.contiguous().mT,
            lambda v: torch.cat([v, v], -1)[..., : v.shape[-1]],
        ],
    )
    def test_strides(self, view) -> None:
        dense = inputs_of((7, 3), 5, torch.float32)
        strided = list(map(view, dense))
        assert not any(v.is_contiguous() for v in strided)
        grad = normal(1, 13, seed=2).float().expand(7, 13)
        ours, plain = (results_of(fourier_features, v, grad) for v in (strided, dense))
        assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))

    @pytest.mark.parametrize("dtype", DTYPES[1:])
    def test_the_dtype_is_that_of_the_projection(self, dtype) -> None:
        x, projection = normal(4, 2).to(dtype), normal(2, 3, seed=1).float()
        features = fourier_features(x, projection)
        torch.testing.assert_close(features, reference.fourier_features(x.float(), projection))
        leaf = x.requires_grad_()
        assert torch.autograd.grad(fourier_features(leaf, projection).sum(), leaf)[0].dtype == dtype

    def test_autocast_keeps_the_digits(self) -> None:
        inputs = [v.requires_grad_() for v in inputs_of((3, 2), 4, torch.float32)]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = fourier_features(*inputs)
            with led_fast.ops.use_reference():
                plain = fourier_features(*inputs)
            got = torch.autograd.grad(features.square().sum(), inputs, create_graph=True)
            second = torch.autograd.grad(sum(g.square().sum() for g in got), inputs)
        torch.testing.assert_close(features, plain)
        wanted = torch.autograd.grad(plain.square().sum(), inputs, create_graph=True)
        torch.testing.assert_close(got, wanted)
        torch.testing.assert_close(
            second, torch.autograd.grad(sum(g.square().sum() for g in wanted), inputs), rtol=1e-4, atol=1e-3
        )

    @pytest.mark.parametrize("shape", [(2000, 2), (3, 2, 300, 16)])
    def test_bits_do_not_depend_on_threads(self, shape) -> None:
        inputs = inputs_of(shape, 64, torch.float32)
        grad = normal(*shape[:-1], shape[-1] + 128, seed=2)
        assert_same_bits_by_threads(lambda: results_of(fourier_features, inputs, grad)[:2])

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            (lambda x, p: ([1.0], p), TypeError, "x must be a tensor, got list"),
            (lambda x, p: (x.int(), p), ValueError, "x must be float64"),
            (lambda x, p: (x, 1.0), TypeError, "projection must be a tensor"),
            (lambda x, p: (x, p.int()), ValueError, "projection must be float64"),
            (lambda x, p: (x, p[0]), ValueError, r"projection must have shape \(D, K\), got \(3,\)"),
            (lambda x, p: (x[:, :1], p), ValueError, r"x must have shape \(..., 2\), got \(4, 1\)"),
            (lambda x, p: (x[0, 0], p), ValueError, r"x must have shape \(..., 2\), got \(\)"),
            (lambda x, p: (x, p.to("meta")), ValueError, "projection must be on x's device cpu, got meta"),
        ],
    )
    def test_errors(self, change, error, message) -> None:
        with pytest.raises(error, match=f"fourier_features: {message}"):
            fourier_features(*change(*inputs_of((4, 2), 3, torch.float32)))

    def test_kernels_refuse_what_does_not_agree(self) -> None:
        op, backward = (
            torch.ops.led_fast.fourier_features.default,
            torch.ops.led_fast.fourier_features_backward.default,
        )
        x, projection = inputs_of((4, 2), 3)
        features = op(x, projection)
        for wrong in ((x[:, :1], projection), (x.float(), projection), (x, projection[0])):
            with pytest.raises(RuntimeError, match="fourier_features: "):
                op(*wrong)
        for wrong in ((features[:3], features, projection), (features.float(), features, projection),
                      (features[:, 1:], features[:, 1:], projection)):  # fmt: skip
            with pytest.raises(RuntimeError, match="fourier_features_backward: "):
                backward(*wrong)


class TestDerivatives:
    @pytest.mark.parametrize(("shape", "directions"), [((4, 2), 3), ((2, 3, 1), 17), ((3,), 2), ((3, 2), 0)])
    def test_first_and_second(self, shape, directions) -> None:
        leaves = [v.requires_grad_() for v in inputs_of(shape, directions)]
        assert torch.autograd.gradcheck(
            fourier_features, leaves, check_forward_ad=True, check_batched_grad=True
        )
        assert torch.autograd.gradgradcheck(fourier_features, leaves, check_fwd_over_rev=True)

    @pytest.mark.parametrize("which", [0, 1])
    def test_gradient_to_one_input(self, which) -> None:
        inputs = inputs_of((9, 2), 5)
        leaf = inputs[which].requires_grad_()

        def penalty(function) -> Tensor:
            (grad,) = torch.autograd.grad(
                function(*inputs).square().cumsum(-1).sum(), leaf, create_graph=True
            )
            return torch.autograd.grad(grad.square().sum(), leaf)[0]

        torch.testing.assert_close(penalty(fourier_features), penalty(reference.fourier_features))

    def test_third_derivative(self) -> None:
        def third(function) -> Tensor:
            leaves = [v.requires_grad_() for v in inputs_of((3, 2), 2)]
            value = function(*leaves).square().cumsum(-1).sum()
            for _ in range(3):
                value = sum(g.square().sum() for g in torch.autograd.grad(value, leaves, create_graph=True))
            return value

        torch.testing.assert_close(third(fourier_features), third(reference.fourier_features))

    @pytest.mark.parametrize("direction", [torch.func.jacfwd, torch.func.jacrev])
    def test_hessians_of_rows(self, direction) -> None:
        x, projection = inputs_of((4, 2), 5)

        def hessians(function) -> Tensor:
            value = direction(torch.func.grad(lambda row: function(row, projection).square().cumsum(0).sum()))
            return torch.func.vmap(value)(x)

        torch.testing.assert_close(hessians(fourier_features), hessians(reference.fourier_features))

    def test_a_result_may_change_in_place(self) -> None:
        inputs, grad = inputs_of((5, 2), 3), normal(5, 8, seed=2)
        expected = results_of(fourier_features, inputs, grad)[1:]
        leaves = [v.requires_grad_() for v in inputs]
        got = torch.autograd.grad(fourier_features(*leaves).mul_(2), leaves, grad / 2)
        torch.testing.assert_close(list(got), expected)


class TestTorchIntegration:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_opcheck(self, dtype) -> None:
        leaves = [v.requires_grad_() for v in inputs_of((2, 3, 2), 4, dtype)]
        opcheck(torch.ops.led_fast.fourier_features.default, leaves)
        features = fourier_features(*leaves).detach()
        given = [torch.ones_like(features), features, leaves[1].detach()]
        opcheck(torch.ops.led_fast.fourier_features_backward.default, [v.requires_grad_() for v in given])

    def test_compile_with_dynamic_shapes(self) -> None:
        def loss(x: Tensor, projection: Tensor) -> Tensor:
            return fourier_features(x * 2, projection).square().cumsum(-1).sum()

        compiled = torch.compile(loss, fullgraph=True, dynamic=True)
        for rows in (2, 5, 9):
            leaves = [v.requires_grad_() for v in inputs_of((rows, 3), 7)]
            value, plain = compiled(*leaves), loss(*leaves)
            torch.testing.assert_close(value, plain)
            torch.testing.assert_close(torch.autograd.grad(value, leaves), torch.autograd.grad(plain, leaves))

    def test_a_trace_made_without_gradients_has_them(self) -> None:
        inputs = inputs_of((4, 2), 3)
        with torch.no_grad():
            traced = torch.jit.trace(fourier_features, tuple(inputs))
        leaves = [v.requires_grad_() for v in inputs]
        ours, plain = (torch.autograd.grad(f(*leaves).sum(), leaves) for f in (traced, fourier_features))
        torch.testing.assert_close(ours, plain)

    @pytest.mark.parametrize("in_dims", [(0, None), (1, None), (0, 0), (None, 1), (1, 2)])
    def test_vmap(self, in_dims) -> None:
        values = [
            torch.stack([v, v * 0.9, v * 1.1]).movedim(0, d) if d is not None else v
            for v, d in zip(inputs_of((4, 2), 5), in_dims, strict=True)
        ]

        def gradients(function):
            grad = torch.func.grad(lambda *v: function(*v).square().cumsum(-1).sum(), argnums=(0, 1))
            return [
                torch.func.vmap(function, in_dims=in_dims)(*values),
                *torch.func.vmap(grad, in_dims=in_dims)(*values),
            ]

        for ours, plain in zip(*map(gradients, (fourier_features, reference.fourier_features)), strict=True):
            torch.testing.assert_close(ours, plain)

    def test_vmap_over_no_calls(self) -> None:
        x, projection = inputs_of((4, 2), 5)
        assert torch.func.vmap(fourier_features, in_dims=(0, None))(x[:0], projection).shape == (0, 12)
        none = projection.expand(0, 2, 5)
        assert torch.func.vmap(fourier_features, in_dims=(None, 0))(x, none).shape == (0, 4, 12)


def test_what_is_kept_for_the_gradient_goes_with_it() -> None:
    """As saved tensors are freed by backward, and are not kept where hooks, such as a checkpoint's, want to know."""
    x, projection = torch.randn(5, 2, requires_grad=True), torch.randn(2, 3)
    out = fourier_features(x, projection)
    assert out.grad_fn.features is not None
    (found,) = torch.autograd.grad(out.sum(), x, retain_graph=True)
    assert out.grad_fn.features is None
    torch.testing.assert_close(torch.autograd.grad(out.sum(), x)[0], found)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        assert fourier_features(x, projection).grad_fn.features is None
