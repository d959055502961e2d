"""The inverse of soft-ReLU: the operator, against bisection, derivatives and hazards."""

import math

import pytest
import torch
from test_soft_relu import DTYPES, PARAMETERS, SHAPES, assert_as_good_as_eager, gradient, sample
from thread_oracle import assert_same_bits_by_threads, values_and_gradients
from torch import Tensor
from torch.library import opcheck

import led_fast
from led_fast import reference

# From a slope that hardly bends to the steepest allowed one, and bends as sharp as float32 has numbers for.
EXTREMES = [
    dict(alpha=5.8),
    PARAMETERS,
    dict(alpha=1 + 1e-6),
    dict(alpha=1.3, u0=-0.4),
    dict(alpha=12.0),
    dict(alpha=40.0, t0=0.0),
    dict(alpha=300.0, beta=0.5),
    dict(alpha=1e6),
    dict(alpha=1e-3, beta=1e-5, u0=5.0),
    dict(alpha=1.0, beta=1e-15),
    dict(alpha=1e30),
]


def bisected(
    y: Tensor, alpha: float = 5.8, beta: float = 1.0, u0: float = 0.0, t0: float | None = None
) -> Tensor:
    """The solution in float64. It lies where L's asymptotes, and log(2) / alpha above them, say."""
    assert y.dtype == torch.float64
    w = y + (math.log(2) / alpha if t0 is None else t0)
    high = torch.minimum(w, w * (alpha / beta)) + u0
    below = w - math.log(2) / alpha
    low = torch.minimum(below, below * (alpha / beta)) + u0
    for _ in range(200):
        middle = 0.5 * low + 0.5 * high
        above = reference.soft_relu(middle, alpha, beta, u0, t0)[0] > y
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return 0.5 * low + 0.5 * high


def assert_exact(y: Tensor, **parameters: float) -> None:
    """x and log_abs_det of each element are the solution's, up to few roundings of the equation's terms and of x.

    An error of y grows by 1 / L'. The solution is that of float64, which test_against_bisection compares.
    """
    alpha, beta = parameters["alpha"], parameters.get("beta", 1.0)
    t0, u0 = (  # as float32 has them: their rounding is no error of ours
        torch.tensor(value).item()
        for value in (parameters.get("t0", math.log(2) / alpha), parameters.get("u0", 0.0))
    )
    x, log_abs_det = (
        out.squeeze(1) if out.dim() > 1 else out
        for out in led_fast.soft_relu_inverse(y[:, None], alpha, beta, u0, t0)
    )
    exact, exact_log = led_fast.soft_relu_inverse(y[:, None].double(), alpha, beta, u0, t0)
    exact, inverse_slope = exact[:, 0], exact_log.exp()
    assert not x.isnan().any() and not log_abs_det.isnan().any()
    eps, information = torch.finfo(torch.float32).eps, torch.finfo(y.dtype)
    terms = (y.double() + t0).abs() + torch.nn.functional.softplus((alpha - beta) * (exact - u0)) / alpha
    error = 4 * eps * (exact.abs() + abs(u0) + terms * inverse_slope)
    rounding = 0.5 * information.eps * exact.abs() + information.smallest_normal
    within = ((x.double() - exact).abs() <= error + rounding) | (exact.abs() > 0.99 * information.max)
    assert within.all(), f"{parameters}: x at {y[~within][:5].tolist()}"
    sigma = torch.sigmoid((alpha - beta) * (exact - u0))
    ratio = (alpha - beta) ** 2 / alpha * sigma * (1 - sigma) * inverse_slope  # L'' / L'
    wrong = (log_abs_det - exact_log).abs() > 4 * eps * (1 + exact_log.abs()) + error * ratio
    assert not wrong.any(), f"{parameters}: log_abs_det at {y[wrong][:5].tolist()}"


class TestValues:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("shape", SHAPES)
    def test_forward_and_backward(self, shape, dtype) -> None:
        y = sample(shape, dtype)
        ours, eager = (f(y, **PARAMETERS) for f in (led_fast.soft_relu_inverse, reference.soft_relu_inverse))
        exact = reference.soft_relu_inverse(y.double(), **PARAMETERS)
        assert ours[0].dtype == dtype
        assert ours[1].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        for got, plain, true in zip(ours, eager, exact, strict=True):
            assert_as_good_as_eager(got, plain, true, terms=y[:1].numel())
        cotangents = sample(shape, seed=1), sample(shape[:1], seed=2)
        rounded = cotangents[0].to(dtype), cotangents[1].to(ours[1].dtype)
        assert_as_good_as_eager(
            gradient(led_fast.soft_relu_inverse, y, rounded),
            gradient(reference.soft_relu_inverse, y, rounded),
            gradient(reference.soft_relu_inverse, y.double(), rounded),
        )

    @pytest.mark.parametrize("parameters", EXTREMES, ids=str)
    def test_against_bisection(self, parameters) -> None:
        parameters = dict(t0=0.0) | parameters  # whose difference to y would be all of it for steep slopes
        bend = 1 / (parameters["alpha"] - parameters.get("beta", 1.0))
        x = torch.cat(
            [torch.linspace(-60, 60, 20_001), torch.logspace(-8, 2, 500), -torch.logspace(-8, 4, 500)]
        )
        y = reference.soft_relu(x.double() * bend + parameters.get("u0", 0.0), **parameters)[0]
        expected, (got, log_abs_det) = (
            bisected(y, **parameters),
            led_fast.soft_relu_inverse(y[:, None], **parameters),
        )
        slope = -reference.soft_relu(expected[:, None], **parameters)[1]
        unit = torch.finfo(torch.float64).eps * (y.abs() + bend + 1 / parameters["alpha"])
        error = 8 * (unit * slope.exp() + 2e-16 * (expected.abs() + abs(parameters.get("u0", 0.0))))
        assert ((got[:, 0] - expected).abs() <= error).all()
        torch.testing.assert_close(log_abs_det, slope, rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("parameters", EXTREMES, ids=str)
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_every_finite_half_precision_number(self, dtype, parameters) -> None:
        y = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(dtype)
        assert_exact(y[y.isfinite()], **parameters)

    @pytest.mark.parametrize("parameters", EXTREMES, ids=str)
    def test_random_float32_numbers(self, parameters) -> None:
        self.check_random_numbers(parameters, 100_000)

    @pytest.mark.slow
    @pytest.mark.parametrize("parameters", EXTREMES, ids=str)
    def test_very_many_random_float32_numbers(self, parameters) -> None:
        for seed in range(10):
            self.check_random_numbers(parameters, 1_000_000, seed)

    @pytest.mark.slow
    def test_a_hundred_million_random_float32_numbers(self) -> None:
        for seed in range(100):
            self.check_random_numbers(dict(alpha=5.8), 1_000_000, seed)

    @staticmethod
    def check_random_numbers(parameters: dict[str, float], count: int, seed: int = 0) -> None:
        """Half of them any bits, half near the bend."""
        generator = torch.Generator().manual_seed(seed)
        any_bits = torch.randint(-(2**31), 2**31, (count // 2,), generator=generator).to(torch.int32)
        near = 20 * torch.randn(count // 2, generator=generator, dtype=torch.float64)
        near = near / (parameters["alpha"] - parameters.get("beta", 1.0)) + parameters.get("u0", 0.0)
        y = torch.cat([any_bits.view(torch.float32), led_fast.soft_relu(near, **parameters)[0].float()])
        assert_exact(y[y.isfinite()], **parameters)

    @pytest.mark.parametrize("parameters", EXTREMES[:6], ids=str)
    def test_round_trip(self, parameters) -> None:
        x = sample((50, 30), torch.float64)
        y, log_abs_det = led_fast.soft_relu(x, **parameters)
        back, inverse_log_abs_det = led_fast.soft_relu_inverse(y, **parameters)
        torch.testing.assert_close(back, x, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(inverse_log_abs_det, -log_abs_det, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_huge_infinite_and_nan(self, dtype) -> None:
        y = torch.zeros(6, 100, dtype=dtype)
        for row, value in enumerate([1e4, -1e4, math.inf, -math.inf, math.nan]):
            y[row, 50] = value
        x, log_abs_det = led_fast.soft_relu_inverse(y)
        rest, log_ratio = led_fast.soft_relu_inverse(torch.zeros(1, 99, dtype=dtype))[1].item(), math.log(5.8)
        expected = [rest, rest + log_ratio, rest, rest + log_ratio, math.nan, 100 / 99 * rest]
        torch.testing.assert_close(
            log_abs_det,
            torch.tensor(expected, dtype=log_abs_det.dtype),
            equal_nan=True,
            rtol=1e-5,
            atol=1e-5,
        )
        assert x[2, 50] == math.inf and x[3, 50] == -math.inf and x.isnan().sum() == 1
        leaf = y.requires_grad_()
        gradients = torch.autograd.grad(
            led_fast.soft_relu_inverse(leaf), leaf, [torch.ones_like(x), torch.ones_like(log_abs_det)]
        )[0]
        assert gradients.isnan().sum() == 1 and gradients.isinf().sum() == 0
        torch.testing.assert_close(gradients[1, 50].item(), 5.8, rtol=1e-2, atol=0)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    def test_subnormal_numbers(self, dtype) -> None:
        tiny = torch.tensor([[0.0, -0.0, 1e-45, 1e-310, -1e-40]], dtype=dtype)
        x = led_fast.soft_relu_inverse(tiny)[0]
        assert (x.abs() <= torch.finfo(dtype).eps).all()  # L(0) = 0, up to the rounding of t0


class TestLayout:
    @pytest.mark.parametrize(
        "view",
        [
            lambda y: y[:, ::2],
            lambda y: y.transpose(0, 1),
            lambda y: y[:1].expand(4, -1, -1, -1),
            lambda y: y.contiguous(memory_format=torch.channels_last),
        ],
    )
    def test_strides(self, view) -> None:
        y = view(sample((3, 4, 6, 5)))
        for got, plain in zip(
            led_fast.soft_relu_inverse(y), led_fast.soft_relu_inverse(y.contiguous()), strict=True
        ):
            torch.testing.assert_close(got, plain, rtol=1e-13, atol=1e-13)

    def test_channels_last_stays(self) -> None:
        y = sample((2, 3, 4, 5)).contiguous(memory_format=torch.channels_last)
        assert led_fast.soft_relu_inverse(y)[0].stride() == y.stride()

    @pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
    def test_empty(self, shape) -> None:
        y = torch.empty(shape, requires_grad=True)
        x, log_abs_det = led_fast.soft_relu_inverse(y)
        assert x.shape == shape and log_abs_det.tolist() == [0.0] * shape[0]
        (x.sum() + log_abs_det.sum()).backward()
        assert y.grad.shape == shape


class TestDerivatives:
    @pytest.mark.parametrize("shape", [(3, 5), (2, 70), (4,)])
    def test_first_and_second(self, shape) -> None:
        y = sample(shape).requires_grad_()

        def function(y: Tensor):
            return led_fast.soft_relu_inverse(y, **PARAMETERS)

        assert torch.autograd.gradcheck(function, (y,), check_forward_ad=True)
        assert torch.autograd.gradgradcheck(function, (y,), check_fwd_over_rev=True)

    @pytest.mark.parametrize("output", [0, 1])
    def test_one_output_alone(self, output) -> None:
        y = sample((3, 40)).requires_grad_()
        ours, plain = (
            torch.autograd.grad(f(y)[output].sum(), y)[0]
            for f in (led_fast.soft_relu_inverse, reference.soft_relu_inverse)
        )
        torch.testing.assert_close(ours, plain)

    def test_third_derivative_is_that_of_the_inverse_function(self) -> None:
        """x''' = (3 L''^2 - L' L''') / L'^5."""
        x = sample((2, 3)).requires_grad_()
        y = led_fast.soft_relu(x, **PARAMETERS)[0]
        slopes, value = [], y
        for _ in range(3):
            (value,) = torch.autograd.grad(value.sum(), x, create_graph=True)
            slopes.append(value)
        leaf = y.detach().requires_grad_()
        value = led_fast.soft_relu_inverse(leaf, **PARAMETERS)[0]
        for _ in range(3):
            (value,) = torch.autograd.grad(value.sum(), leaf, create_graph=True)
        torch.testing.assert_close(value, (3 * slopes[1] ** 2 - slopes[0] * slopes[2]) / slopes[0] ** 5)

    def test_steep_slopes_have_finite_gradients(self) -> None:
        """Left of a bend of ratio 1e30 the gradient is 1e30; at the right side it is 1."""
        y = torch.tensor([[-1e3, 1e-3, 1.0]], requires_grad=True)
        x, _ = led_fast.soft_relu_inverse(y, alpha=1.0, beta=1e-30, t0=0.0)
        (grad,) = torch.autograd.grad(x.sum(), y)
        wanted = [1e30, 1 / (1 - math.exp(-1e-3)), 1 / (1 - math.exp(-1.0))]
        torch.testing.assert_close(
            grad[0].double(), torch.tensor(wanted, dtype=torch.float64), rtol=1e-5, atol=0
        )

    def test_the_result_may_be_changed_in_place(self) -> None:
        y = sample((3, 4)).requires_grad_()
        x, _ = led_fast.soft_relu_inverse(y)
        x.mul_(2)
        x.sum().backward()
        plain = torch.autograd.grad(2 * reference.soft_relu_inverse(y)[0].sum(), y)[0]
        torch.testing.assert_close(y.grad, plain)


class TestTorchIntegration:
    @pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4, 5)])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_opcheck(self, shape, dtype) -> None:
        y = sample(shape, dtype).requires_grad_()
        x, log_abs_det = led_fast.soft_relu_inverse(y)
        opcheck(torch.ops.led_fast.soft_relu_inverse.default, (y, 5.8, 1.0, 0.0, 0.1))
        for gradients in [(x, log_abs_det), (x, None), (None, log_abs_det)]:
            leaves = [g if g is None else g.detach().requires_grad_() for g in gradients]
            opcheck(torch.ops.led_fast.soft_relu_inverse_backward.default, (y, *leaves, 5.8, 1.0, 0.0, 0.1))

    def test_compile_with_dynamic_shapes(self) -> None:
        def loss(y: Tensor) -> Tensor:
            x, log_abs_det = led_fast.soft_relu_inverse(y * 2)
            return x.square().sum() + log_abs_det.sum()

        compiled = torch.compile(loss, fullgraph=True, dynamic=True)
        for rows in (2, 5):
            y = sample((rows, 7), torch.float32).requires_grad_()
            value, plain = compiled(y), loss(y)
            torch.testing.assert_close(value, plain)
            torch.testing.assert_close(torch.autograd.grad(value, y), torch.autograd.grad(plain, y))

    @pytest.mark.parametrize("in_dim", [0, 1, -1])
    def test_vmap(self, in_dim) -> None:
        y = sample((4, 3, 5))
        mapped, plain = (
            torch.func.vmap(f, in_dims=in_dim)(y)
            for f in (led_fast.soft_relu_inverse, reference.soft_relu_inverse)
        )
        torch.testing.assert_close(mapped, plain)

    def test_func_transforms(self) -> None:
        def loss(y: Tensor) -> Tensor:
            x, log_abs_det = led_fast.soft_relu_inverse(y)
            return x.square().sum() + log_abs_det.sum()

        y = sample((4, 3, 2))
        expected = []
        for row in y:
            leaf = row.clone().requires_grad_()
            expected.append(torch.autograd.functional.hessian(loss, leaf))
        torch.testing.assert_close(torch.func.vmap(torch.func.hessian(loss))(y), torch.stack(expected))
        torch.testing.assert_close(torch.func.jacrev(torch.func.jacrev(loss))(y[0]), expected[0])

    def test_meta(self) -> None:
        x, log_abs_det = led_fast.soft_relu_inverse(torch.empty(4, 3, device="meta"))
        assert x.shape == (4, 3) and log_abs_det.shape == (4,) and log_abs_det.is_meta

    @pytest.mark.parametrize("shape", [(3, 100_000), (5000, 3), (64, 300)])
    def test_bits_do_not_depend_on_threads(self, shape) -> None:
        y = sample(shape, torch.float32).requires_grad_()
        assert_same_bits_by_threads(lambda: values_and_gradients(led_fast.soft_relu_inverse(y), y))

    def test_reference_switch(self) -> None:
        y = sample((3, 4))
        with led_fast.ops.use_reference():
            plain = led_fast.soft_relu_inverse(y)
        torch.testing.assert_close(led_fast.soft_relu_inverse(y), plain)


class TestBadArguments:
    @pytest.mark.parametrize(
        ("y", "error", "message"),
        [
            ([1.0], TypeError, "soft_relu_inverse: y must be a tensor, got list"),
            (
                torch.ones(3, dtype=torch.int64),
                ValueError,
                "soft_relu_inverse: y must be float64.*got torch.int64",
            ),
            (torch.tensor(1.0), ValueError, "0-d"),
        ],
    )
    def test_input(self, y, error, message) -> None:
        with pytest.raises(error, match=message):
            led_fast.soft_relu_inverse(y)

    @pytest.mark.parametrize(
        "parameters", [dict(alpha=1.0), dict(beta=0.0), dict(u0=math.inf), dict(beta=1e-31)]
    )
    def test_parameters(self, parameters) -> None:
        with pytest.raises(ValueError, match="soft_relu_inverse: "):
            led_fast.soft_relu_inverse(torch.zeros(2, 2), **parameters)
