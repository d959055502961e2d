"""The log density of mixtures and its score: against torch.distributions, derivatives and hazards."""

import math

import pytest
import torch
from mixture_cases import by_distributions, mixture_of, normal, points_of
from thread_oracle import assert_same_bits_by_threads
from torch import Tensor
from torch.library import opcheck

import led_fast
from led_fast import reference
from led_fast.ops.mixture import mixture_log_prob, mixture_log_prob_and_score

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
# Samples, dimension, components: one of each, registers and tiles with a rest, groups of components with a rest, one
# coordinate without a partner, tiles that are shorter because samples are longer.
SHAPES = [
    (1, 1, 1),
    (3, 2, 5),
    (17, 3, 4),
    (300, 2, 7),
    (513, 1, 3),
    (70, 16, 33),
    (150, 64, 6),
    (20, 150, 3),
]


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def inputs_of(shape: tuple[int, int, int], dtype: torch.dtype, kind: str = "broad") -> list[Tensor]:
    samples, dimension, components = shape
    mixture = mixture_of(components, dimension, kind)
    return [points_of(mixture, samples).to(dtype), *(p.to(real_dtype(dtype)) for p in mixture)]


def exact_of(*inputs: Tensor) -> Tensor:
    """By torch.distributions, which would normalise the weights."""
    return by_distributions(*inputs) + inputs[3].logsumexp(0)


def results_of(function, inputs: list[Tensor], grad: Tensor) -> list[Tensor]:
    """The log density, the score, and the gradients to all four for one cotangent."""
    leaves = [v.detach().requires_grad_() for v in inputs]
    log_prob, score = function(*leaves)
    gradients = torch.autograd.grad(log_prob, leaves, grad.to(log_prob.dtype))
    return [log_prob.detach(), score.detach(), *gradients]


def assert_as_good_as_eager(ours: Tensor, eager: Tensor, exact: Tensor, terms: int = 1) -> None:
    """Our largest error is at most twice that of plain PyTorch in the same dtype, plus rounding."""
    assert ours.shape == exact.shape
    units = 32 if ours.dtype == torch.float64 else 3  # the float64 oracle rounds, too
    rounding = units * terms * torch.finfo(ours.dtype).eps * exact.abs().max().clamp(min=1)
    assert (ours.double() - exact).abs().max() <= 2 * (eager.double() - exact).abs().max() + rounding


class TestValues:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("shape", SHAPES)
    def test_values_score_and_gradients(self, shape, dtype) -> None:
        inputs, grad = inputs_of(shape, dtype), normal(shape[0], seed=7, dtype=real_dtype(dtype))
        ours = results_of(mixture_log_prob_and_score, inputs, grad)
        eager = results_of(reference.mixture_log_prob_and_score, inputs, grad)
        leaves = [v.double().requires_grad_() for v in inputs]
        log_prob = exact_of(*leaves)
        (score,) = torch.autograd.grad(log_prob.sum(), leaves[0], retain_graph=True)
        exact = [log_prob.detach(), score, *torch.autograd.grad(log_prob, leaves, grad.double())]
        dtypes = [real_dtype(dtype)] * 2 + [v.dtype for v in inputs]
        for got, plain, true, wanted in zip(ours, eager, exact, dtypes, strict=True):
            assert got.dtype == wanted
            assert_as_good_as_eager(got, plain, true, terms=1 + math.isqrt(shape[1]))
        assert torch.equal(mixture_log_prob(*inputs), ours[0])

    @pytest.mark.parametrize("dtype", DTYPES[:2])
    def test_needles_keep_their_digits(self, dtype) -> None:
        """Multiplied out, the squares of components narrow beside their means nearly cancel."""
        inputs = inputs_of((200, 5, 3), dtype, "needles")
        log_prob, score = mixture_log_prob_and_score(*inputs)
        leaf, *mixture = (v.double().requires_grad_() for v in inputs)
        exact = exact_of(leaf, *mixture)
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(log_prob.double(), exact, rtol=4 * eps, atol=8 * eps)
        (true,) = torch.autograd.grad(exact.sum(), leaf)
        torch.testing.assert_close(score.double(), true, rtol=16 * eps, atol=eps * true.abs().max().item())

    @pytest.mark.parametrize("dtype", DTYPES[:2])
    def test_shares_keep_their_digits_far_away(self, dtype) -> None:
        """Two equal components beside each other share what gradient there is, however small the density."""
        inputs = [v.to(dtype) for v in (torch.tensor([[300.0, 0.0]]), torch.zeros(2, 2), torch.zeros(2, 2))]
        inputs.append(torch.full((2,), 0.5, dtype=dtype).log())
        leaves = [v.requires_grad_() for v in inputs]
        of_weights = torch.autograd.grad(mixture_log_prob(*leaves).sum(), leaves[3])[0]
        torch.testing.assert_close(of_weights, torch.full_like(of_weights, 0.5), rtol=0, atol=1e-7)

    def test_weights_are_taken_as_they_are(self) -> None:
        x, *mixture, log_weights = inputs_of((5, 2, 3), torch.float64)
        moved = mixture_log_prob(x, *mixture, log_weights + 1.5)
        torch.testing.assert_close(moved, mixture_log_prob(x, *mixture, log_weights) + 1.5)

    def test_it_is_a_density(self) -> None:
        """By the trapezoidal rule, which is exact for what is smooth and decays."""
        axis = torch.linspace(-15, 15, 301, dtype=torch.float64)
        x = torch.cartesian_prod(axis, axis)
        total = mixture_log_prob(x, *mixture_of(5, 2)).exp().sum() * (axis[1] - axis[0]).square()
        torch.testing.assert_close(total.item(), 1.0, rtol=1e-7, atol=0)

    @pytest.mark.parametrize("dtype", DTYPES[:2])
    def test_a_component_without_weight_is_none(self, dtype) -> None:
        x, *mixture = inputs_of((20, 2, 5), dtype)
        whole = [torch.cat([p, p[:1]]) for p in mixture]
        whole[2][-1] = -math.inf
        grad = normal(20, seed=7, dtype=dtype)
        ours, plain = (results_of(mixture_log_prob_and_score, [x, *m], grad) for m in (whole, mixture))
        for a, b in zip(ours[:3], plain[:3], strict=True):
            torch.testing.assert_close(a, b)
        for a, b in zip(ours[3:], plain[3:], strict=True):
            torch.testing.assert_close(a[:-1], b)
            assert (a[-1] == 0).all()

    def test_any_order_of_components_and_any_neighbours(self) -> None:
        x, *mixture = inputs_of((300, 3, 30), torch.float64)
        order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(
            mixture_log_prob(x, *(p[order] for p in mixture)), mixture_log_prob(x, *mixture)
        )
        alone = torch.cat([mixture_log_prob(row[None], *mixture) for row in x])
        assert torch.equal(alone, mixture_log_prob(x, *mixture))


class TestHazards:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_huge_infinite_and_nan(self, dtype) -> None:
        far = torch.finfo(real_dtype(dtype)).max ** 0.75 if dtype in DTYPES[:2] else math.inf
        inputs = inputs_of((6, 2, 9), dtype)
        inputs[0][:4, 1] = torch.tensor([far, -math.inf, math.inf, math.nan], dtype=torch.float64).to(dtype)
        leaves = [v.requires_grad_() for v in inputs]
        log_prob, score = mixture_log_prob_and_score(*leaves)
        assert log_prob[:3].tolist() == 3 * [-math.inf] and (score[:3] == 0).all()
        assert log_prob[3].isnan() and score[3].isnan().all()
        assert log_prob[4:].isfinite().all() and score[4:].isfinite().all()
        (grad_x,) = torch.autograd.grad(mixture_log_prob(*leaves)[[0, 1, 2, 4, 5]].sum(), leaves[0])
        assert (grad_x[:3] == 0).all() and grad_x[4:].isfinite().all()

    def test_nan_stays_in_its_own_sample(self) -> None:
        """Also where samples of other tiles take its place."""
        x, *mixture = inputs_of((700, 2, 9), torch.float32)
        x[50] = math.nan
        for result in mixture_log_prob_and_score(x, *mixture):
            wrong = result.reshape(700, -1).isnan().any(1)
            assert wrong.nonzero().tolist() == [[50]]

    @pytest.mark.parametrize("dtype", DTYPES[:2])
    @pytest.mark.parametrize("far", [lambda most: most**0.75, lambda most: 0.3 * most, lambda _: torch.inf])
    @pytest.mark.parametrize("graph", [False, True])
    def test_points_without_density_move_no_component(self, dtype, far, graph) -> None:
        x, *mixture = inputs_of((3, 2, 9), dtype)
        x[1] = far(torch.finfo(dtype).max)
        leaves = [p.requires_grad_() for p in mixture]
        ours = torch.autograd.grad(mixture_log_prob(x, *leaves).sum(), leaves, create_graph=graph)
        near = torch.autograd.grad(mixture_log_prob(x[[0, 2]], *leaves).sum(), leaves)
        for a, b in zip(ours, near, strict=True):
            torch.testing.assert_close(a, b)

    @pytest.mark.parametrize("dtype", DTYPES[:2])
    def test_scales_and_weights_of_any_size(self, dtype) -> None:
        scales = torch.tensor([-40.0, 0.0, 40.0], dtype=dtype)[:, None]
        x, means = torch.zeros(1, 1, dtype=dtype), torch.zeros(3, 1, dtype=dtype)
        weights = torch.tensor([-90.0, 300.0, 5.0], dtype=dtype)
        exact = exact_of(*(v.double() for v in (x, means, scales, weights)))
        log_prob = mixture_log_prob(x, means, scales, weights)
        torch.testing.assert_close(log_prob.double(), exact, rtol=2 * torch.finfo(dtype).eps, atol=0)

    @pytest.mark.parametrize("dtype", DTYPES[:2])
    @pytest.mark.parametrize("scale, distance", [(-46.0, 1e-20), (-60.0, 1e-28), (60.0, 1e28)])
    def test_scores_at_scales_of_any_size(self, dtype, scale, distance) -> None:
        """Squares of their reciprocals overflow, or are 0; beside them there is a component of its own."""
        x = torch.tensor([[distance], [0.5]], dtype=dtype)
        means = torch.zeros(2, 1, dtype=dtype)
        scales = torch.tensor([[scale], [0.0]], dtype=dtype)
        weights = torch.zeros(2, dtype=dtype)
        _, score = mixture_log_prob_and_score(x, means, scales, weights)
        _, exact = reference.mixture_log_prob_and_score(*(v.double() for v in (x, means, scales, weights)))
        torch.testing.assert_close(score.double(), exact, rtol=1e-4, atol=0)

    @pytest.mark.parametrize(
        "view",
        [
            lambda v: v.repeat_interleave(2, 0)[::2],
            lambda v: v.mT.contiguous().mT,
            lambda v: torch.cat([v, v], -1)[..., : v.shape[-1]],
        ],
    )
    def test_strides(self, view) -> None:
        dense = inputs_of((7, 3, 5), torch.float32)
        strided = [*map(view, dense[:3]), dense[3].repeat_interleave(2)[::2]]
        assert not any(v.is_contiguous() for v in strided[2:])
        grad = normal(7, seed=7, dtype=torch.float32)
        expanded = grad[:1].expand(7)
        for g in (grad, expanded):
            ours, plain = (results_of(mixture_log_prob_and_score, v, g) for v in (strided, dense))
            assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))

    def test_no_samples(self) -> None:
        leaves = [v.requires_grad_() for v in inputs_of((0, 2, 3), torch.float32)]
        log_prob, score = mixture_log_prob_and_score(*leaves)
        assert log_prob.shape == (0,) and score.shape == (0, 2)
        log_prob.sum().backward()
        assert all(v.grad.shape == v.shape and (v.grad == 0).all() for v in leaves)

    @pytest.mark.parametrize("shape", [(2000, 2, 100), (300, 64, 20)])
    def test_bits_do_not_depend_on_threads(self, shape) -> None:
        inputs, grad = inputs_of(shape, torch.float32), normal(shape[0], seed=7, dtype=torch.float32)
        assert_same_bits_by_threads(lambda: results_of(mixture_log_prob_and_score, inputs, grad))

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            (lambda x, m, s, w: ([1.0], m, s, w), TypeError, "x must be a tensor, got list"),
            (lambda x, m, s, w: (x.int(), m, s, w), ValueError, "x must be float64"),
            (lambda x, m, s, w: (x[0], m, s, w), ValueError, r"x must have shape \(B, D\), got \(2,\)"),
            (lambda x, m, s, w: (x, 1.0, s, w), TypeError, "means must be a tensor"),
            (lambda x, m, s, w: (x, m[:, :1], s, w), ValueError, r"means must have shape \(K, 2\)"),
            (lambda x, m, s, w: (x, m[:0], s[:0], w[:0]), ValueError, r"K > 0, got \(0, 2\)"),
            (lambda x, m, s, w: (x, m, s[:1], w), ValueError, r"log_scales must have shape \(3, 2\)"),
            (lambda x, m, s, w: (x, m, s, w[:, None]), ValueError, r"log_weights must have shape \(3,\)"),
            (lambda x, m, s, w: (x, m, s, w.to("meta")), ValueError, "log_weights must be on x's device cpu"),
        ],
    )
    @pytest.mark.parametrize("function", [mixture_log_prob, mixture_log_prob_and_score])
    def test_errors(self, function, change, error, message) -> None:
        with pytest.raises(error, match=f"{function.__name__}: .*{message}"):
            function(*change(*inputs_of((4, 2, 3), torch.float32)))


class TestDerivatives:
    @pytest.mark.parametrize("shape", [(4, 2, 3), (3, 1, 1)])
    @pytest.mark.parametrize("function", [mixture_log_prob, mixture_log_prob_and_score])
    def test_first_and_second(self, function, shape) -> None:
        leaves = [v.requires_grad_() for v in inputs_of(shape, torch.float64)]
        assert torch.autograd.gradcheck(function, leaves, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(function, leaves)

    @pytest.mark.parametrize("which", [(0,), (1,), (3,), (0, 2)])
    def test_gradients_to_some_inputs(self, which) -> None:
        inputs = inputs_of((9, 2, 5), torch.float64)
        for i in which:
            inputs[i].requires_grad_()
        leaves = [inputs[i] for i in which]
        ours, plain = (
            torch.autograd.grad(f(*inputs).square().sum(), leaves)
            for f in (mixture_log_prob, reference.mixture_log_prob)
        )
        torch.testing.assert_close(ours, plain)

    def test_third_derivative(self) -> None:
        def third(function) -> Tensor:
            leaves = [v.requires_grad_() for v in inputs_of((3, 2, 2), torch.float64)]
            value = function(*leaves).square().sum()
            for _ in range(3):
                value = sum(g.square().sum() for g in torch.autograd.grad(value, leaves, create_graph=True))
            return value

        torch.testing.assert_close(
            third(mixture_log_prob), third(reference.mixture_log_prob), rtol=1e-7, atol=1e-7
        )

    def test_the_jacobian_of_the_score_is_the_hessian(self) -> None:
        x, *mixture = inputs_of((4, 3, 5), torch.float64)
        hessian = torch.func.vmap(torch.func.hessian(lambda row: mixture_log_prob(row[None], *mixture)[0]))(x)
        jacobian = torch.func.vmap(
            torch.func.jacfwd(lambda row: mixture_log_prob_and_score(row[None], *mixture)[1][0])
        )(x)
        torch.testing.assert_close(jacobian, hessian)


class TestTorchIntegration:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_opcheck(self, dtype) -> None:
        leaves = [v.requires_grad_() for v in inputs_of((5, 2, 3), dtype)]
        op, backward = (
            torch.ops.led_fast.mixture_log_prob.default,
            torch.ops.led_fast.mixture_log_prob_backward.default,
        )
        opcheck(op, (*leaves, True))
        inputs = [v.detach() for v in leaves]
        log_prob, _, shares = op(*inputs, True)
        opcheck(op, (*inputs, False))
        opcheck(backward, (torch.ones_like(log_prob), *inputs, shares))

    def test_compile_with_dynamic_shapes(self) -> None:
        def loss(*values: Tensor) -> Tensor:
            log_prob, score = mixture_log_prob_and_score(values[0] * 2, *values[1:])
            return log_prob.square().sum() + (score.detach() * values[0]).sum()

        compiled = torch.compile(loss, fullgraph=True, dynamic=True)
        for rows in (2, 5, 9):
            leaves = [v.requires_grad_() for v in inputs_of((rows, 3, 7), torch.float32)]
            value, plain = compiled(*leaves), loss(*leaves)
            torch.testing.assert_close(value, plain)
            torch.testing.assert_close(torch.autograd.grad(value, leaves), torch.autograd.grad(plain, leaves))

    def test_a_trace_made_without_gradients_has_them(self) -> None:
        inputs = inputs_of((4, 2, 3), torch.float64)
        with torch.no_grad():
            traced = torch.jit.trace(mixture_log_prob, tuple(inputs))
        leaves = [v.requires_grad_() for v in inputs]
        ours, plain = (torch.autograd.grad(f(*leaves).sum(), leaves) for f in (traced, mixture_log_prob))
        torch.testing.assert_close(ours, plain)

    @pytest.mark.parametrize(
        "in_dims",
        [(0, None, None, None), (1, None, None, None), (0, 0, 0, 0), (None, 1, 0, 0), (None, None, None, 0)],
    )
    @pytest.mark.parametrize("function", ["mixture_log_prob", "mixture_log_prob_and_score"])
    def test_vmap(self, function, in_dims) -> None:
        values = [
            torch.stack([v, v * 0.9, v * 1.1]).movedim(0, d) if d is not None else v
            for v, d in zip(inputs_of((4, 2, 5), torch.float64), in_dims, strict=True)
        ]
        mapped, plain = (
            torch.func.vmap(getattr(module, function), in_dims=in_dims)(*values)
            for module in (led_fast, reference)
        )
        torch.testing.assert_close(mapped, plain)

    def test_per_sample_gradients(self) -> None:
        x, *mixture = inputs_of((4, 2, 5), torch.float64)

        def per_sample(function):
            grad = torch.func.grad(lambda row, *m: function(row[None], *m)[0].square(), argnums=(0, 1, 2, 3))
            return torch.func.vmap(grad, in_dims=(0, None, None, None))(x, *mixture)

        torch.testing.assert_close(per_sample(mixture_log_prob), per_sample(reference.mixture_log_prob))

    def test_results_may_change_in_place(self) -> None:
        inputs, grad = inputs_of((5, 2, 3), torch.float64), normal(5, seed=7)
        expected = results_of(mixture_log_prob_and_score, inputs, grad)[2:]
        leaves = [v.requires_grad_() for v in inputs]
        log_prob, score = mixture_log_prob_and_score(*leaves)
        with torch.no_grad():
            score.zero_()
        got = torch.autograd.grad(log_prob.mul_(2), leaves, grad / 2)
        torch.testing.assert_close(list(got), expected)

    def test_autocast_keeps_the_dtype(self) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            log_prob, score = mixture_log_prob_and_score(*inputs_of((3, 2, 4), torch.float32))
        assert log_prob.dtype == score.dtype == torch.float32
