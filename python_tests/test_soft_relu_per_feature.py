"""soft-ReLU and its inverse with parameters per feature: the operator and the layer that learns them."""

import math
from itertools import chain

import pytest
import torch
from test_soft_relu import DTYPES, assert_as_good_as_eager, sample
from thread_oracle import assert_same_bits_by_threads
from torch import Tensor
from torch.library import opcheck

import led_fast
from led_fast import reference
from led_fast.nn import SoftReLU
from led_fast.ops.soft_relu_per_feature import of_slopes

# One element, rows shorter and longer than a table, runs shorter and longer than a block, several chunks of 16,384
# elements and several groups of samples.
SHAPES = [
    (1, 1),
    (40, 3),
    (33, 16),
    (17, 63),
    (5, 70),
    (3, 300),
    (7, 5, 9),
    (300, 4, 3),
    (2, 3, 70),
    (3, 4, 33, 31),
]
SHAPES += [(2, 2, 200, 100), (3000, 20), (3, 20_000), (200, 2, 130)]


def parameters_of(features: int, dtype: torch.dtype = torch.float64, seed: int = 3) -> list[Tensor]:
    """Slope ratios from 0.15 to 7, on both sides of 1, and 1 itself."""
    generator = torch.Generator().manual_seed(seed)
    random = torch.rand(4, features, generator=generator, dtype=torch.float64) * 2 - 1
    ratio = (2 * random[0]).exp()
    ratio[-1] = 1
    return [p.to(dtype) for p in (ratio, 3 * random[1].exp(), random[2], random[3])]


def both(function, x: Tensor, parameters: list[Tensor], cotangents: tuple[Tensor, Tensor], inverse: bool):
    """Outputs and gradients to x and all parameters."""
    leaves = [t.detach().requires_grad_() for t in (x, *parameters)]
    outputs = function(*leaves, inverse)
    given = [c.to(o.dtype) for c, o in zip(cotangents, outputs, strict=True)]
    return outputs, torch.autograd.grad(outputs, leaves, given)


@pytest.mark.parametrize("inverse", [False, True])
class TestValues:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("shape", SHAPES)
    def test_values_and_gradients(self, shape, dtype, inverse) -> None:
        self.check(sample(shape, dtype), dtype, inverse)

    @pytest.mark.parametrize("shape", [(3, 4, 7, 5), (3, 70, 7, 5), (2, 3, 90, 80)])
    def test_channels_last(self, shape, inverse) -> None:
        x = sample(shape, torch.float32).contiguous(memory_format=torch.channels_last)
        y, _ = of_slopes(x, *parameters_of(shape[1], torch.float32), inverse)
        assert y.stride() == x.stride()
        self.check(x, torch.float32, inverse)

    @staticmethod
    def check(x: Tensor, dtype: torch.dtype, inverse: bool) -> None:
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        parameters = parameters_of(x.shape[1], wide)
        cotangents = sample(x.shape, dtype, 1), sample(x.shape[:1], wide, 2)
        ours, grads = both(of_slopes, x, parameters, cotangents, inverse)
        eager, eager_grads = both(reference.soft_relu_per_feature, x, parameters, cotangents, inverse)
        exact, exact_grads = both(
            reference.soft_relu_per_feature,
            x.double(),
            [p.double() for p in parameters],
            tuple(c.double() for c in cotangents),
            inverse,
        )
        assert ours[0].dtype == dtype and ours[1].dtype == wide and ours[1].shape == x.shape[:1]
        for got, plain, true in zip(
            (*ours, grads[0]), (*eager, eager_grads[0]), (*exact, exact_grads[0]), strict=True
        ):
            assert_as_good_as_eager(got, plain, true, terms=x[0].numel())
        for got, plain, true in zip(grads[1:], eager_grads[1:], exact_grads[1:], strict=True):
            # Sums of many terms, each of which took some steps to make; in float64 the oracle rounds, too.
            units, terms = 8 if wide == torch.float32 else 32, x.numel() / x.shape[1]
            rounding = units * torch.finfo(wide).eps * true.abs().max().clamp(min=4 * terms**0.5)
            assert (got.double() - true).abs().max() <= 2 * (plain.double() - true).abs().max() + rounding

    def test_round_trip(self, inverse) -> None:
        x, parameters = sample((30, 50)), parameters_of(50)
        y, log_abs_det = of_slopes(x, *parameters, inverse)
        back, other = of_slopes(y, *parameters, not inverse)
        torch.testing.assert_close(back, x, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(other, -log_abs_det, rtol=1e-12, atol=1e-12)

    def test_one_feature_is_the_scalar_operator(self, inverse) -> None:
        x = sample((20, 6))
        scalar = led_fast.soft_relu_inverse if inverse else led_fast.soft_relu
        for got, plain in zip(
            scalar(x, torch.full((6,), 3.7, dtype=x.dtype), 0.6, 0.3, -0.2),
            scalar(x, 3.7, 0.6, 0.3, -0.2),
            strict=True,
        ):
            torch.testing.assert_close(got, plain, rtol=1e-13, atol=1e-13)

    def test_extreme_slopes(self, inverse) -> None:
        """Products of slopes neither underflow nor overflow; bends from nearly none to e^12."""
        ratio = torch.logspace(-12, 12, 41, base=math.e, dtype=torch.float64)
        parameters = [ratio, torch.full_like(ratio, 2.0), torch.zeros_like(ratio), torch.zeros_like(ratio)]
        x = torch.linspace(-50, 50, 9_000, dtype=torch.float64).view(3, 1, -1).expand(-1, 41, -1).contiguous()
        for view in (x, x[..., :1].contiguous()):
            exact = of_slopes(view, *parameters, inverse)
            got = of_slopes(view.float(), *(p.float() for p in parameters), inverse)
            scale = exact[0].abs().clamp(min=1) * (
                ratio.view(1, -1, 1).reciprocal().clamp(min=1) if inverse else 1
            )
            assert ((got[0].double() - exact[0]).abs() <= 1e-5 * scale).all()
            terms = 6.0 * view[0].numel()  # the sum of |log L'|, most of which cancels
            torch.testing.assert_close(got[1].double(), exact[1], rtol=0, atol=1e-7 * terms)

    def test_nan_stays_in_its_element_sample_and_feature(self, inverse) -> None:
        x = sample((4, 6, 70), torch.float32)
        x[2, 3, 5] = math.nan
        leaves = [t.requires_grad_() for t in (x, *parameters_of(6, torch.float32))]
        y, log_abs_det = of_slopes(*leaves, inverse)
        assert y.isnan().sum() == 1 and log_abs_det.isnan().tolist() == [False, False, True, False]
        grads = torch.autograd.grad(y.sum() + log_abs_det[[0, 1, 3]].sum(), leaves)
        for grad in grads[1:3]:
            assert grad.isnan().nonzero().flatten().tolist() == [3]

    @pytest.mark.parametrize("shape", [(3, 20_000), (5000, 3), (64, 30, 100)])
    def test_bits_do_not_depend_on_threads(self, shape, inverse) -> None:
        x, parameters = sample(shape, torch.float32), parameters_of(shape[1], torch.float32)
        cotangents = sample(shape, torch.float32, 1), sample(shape[:1], torch.float32, 2)
        assert_same_bits_by_threads(lambda: list(chain(*both(of_slopes, x, parameters, cotangents, inverse))))


@pytest.mark.parametrize("inverse", [False, True])
class TestDerivatives:
    @pytest.mark.parametrize("shape", [(3, 2), (2, 3, 2), (2, 2, 66)])
    def test_first_and_second(self, shape, inverse) -> None:
        inputs = [t.requires_grad_() for t in (sample(shape), *parameters_of(shape[1]))]

        def function(*tensors: Tensor):
            return of_slopes(*tensors, inverse)

        assert torch.autograd.gradcheck(function, inputs, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(function, inputs, check_fwd_over_rev=True)

    def test_third(self, inverse) -> None:
        x, parameters = sample((2, 3)).requires_grad_(), parameters_of(3)

        def slope(x: Tensor) -> Tensor:
            outputs = of_slopes(x, *parameters, inverse)
            return torch.autograd.grad(sum(o.sum() for o in outputs), x, create_graph=True)[0]

        assert torch.autograd.gradgradcheck(slope, (x,))

    @pytest.mark.parametrize("output", [0, 1])
    def test_one_output_alone(self, output, inverse) -> None:
        results = []
        for function in (of_slopes, reference.soft_relu_per_feature):
            leaves = [t.requires_grad_() for t in (sample((3, 4)), *parameters_of(4))]
            allow = dict(allow_unused=True, materialize_grads=True)
            results.append(torch.autograd.grad(function(*leaves, inverse)[output].sum(), leaves, **allow))
        torch.testing.assert_close(*results)

    def test_parameters_of_alpha_and_beta(self, inverse) -> None:
        alpha, beta = torch.tensor([2.0, 5.8, 3.0]).double(), torch.tensor([1.0, 1.0, 0.2]).double()
        inputs = [t.requires_grad_() for t in (sample((4, 3)), alpha, beta)]
        assert torch.autograd.gradcheck(led_fast.soft_relu_inverse if inverse else led_fast.soft_relu, inputs)


@pytest.mark.parametrize("inverse", [False, True])
class TestTorchIntegration:
    def test_opcheck(self, inverse) -> None:
        x, parameters = sample((3, 4)).requires_grad_(), [p.requires_grad_() for p in parameters_of(4)]
        opcheck(torch.ops.led_fast.soft_relu_per_feature.default, (x, *parameters, inverse))
        grad_y, grad_log = sample((3, 4), seed=1).requires_grad_(), sample((3,), seed=2).requires_grad_()
        opcheck(
            torch.ops.led_fast.soft_relu_per_feature_backward.default,
            (x, grad_y, grad_log, *parameters, inverse),
        )

    def test_compile(self, inverse) -> None:
        def loss(x: Tensor, *parameters: Tensor) -> Tensor:
            y, log_abs_det = of_slopes(x * 2, *parameters, inverse)
            return y.square().sum() + log_abs_det.sum()

        inputs = [t.requires_grad_() for t in (sample((5, 4)), *parameters_of(4))]
        value, plain = torch.compile(loss, fullgraph=True)(*inputs), loss(*inputs)
        torch.testing.assert_close(value, plain)
        torch.testing.assert_close(torch.autograd.grad(value, inputs), torch.autograd.grad(plain, inputs))

    def test_func_transforms(self, inverse) -> None:
        x, parameters = sample((4, 5, 3)), parameters_of(3)

        def loss(x: Tensor, *parameters: Tensor) -> Tensor:
            y, log_abs_det = of_slopes(x, *parameters, inverse)
            return y.square().sum() + log_abs_det.sum()

        mapped = torch.func.vmap(
            torch.func.grad(loss, argnums=(0, 1, 2)), in_dims=(0, None, None, None, None)
        )
        grads = [torch.func.grad(loss, argnums=(0, 1, 2))(sample_of, *parameters) for sample_of in x]
        torch.testing.assert_close(mapped(x, *parameters), tuple(map(torch.stack, zip(*grads, strict=True))))

    def test_reference_switch(self, inverse) -> None:
        x, parameters = sample((3, 4)), parameters_of(4)
        with led_fast.ops.use_reference():
            plain = of_slopes(x, *parameters, inverse)
        torch.testing.assert_close(of_slopes(x, *parameters, inverse), plain)

    @pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 3, 0)])
    def test_empty(self, shape, inverse) -> None:
        leaves = [t.requires_grad_() for t in (torch.empty(shape), *(torch.ones(shape[1]) for _ in range(4)))]
        y, log_abs_det = of_slopes(*leaves, inverse)
        assert y.shape == shape and log_abs_det.tolist() == [0.0] * shape[0]
        grads = torch.autograd.grad(y.sum() + log_abs_det.sum(), leaves)
        assert [g.shape for g in grads] == [t.shape for t in leaves] and not any(g.any() for g in grads)


class TestBadArguments:
    @pytest.mark.parametrize(
        ("x", "alpha", "message"),
        [
            (torch.zeros(3), torch.ones(3), r"soft_relu: x must have shape \(B, F, ...\).*got \(3,\)"),
            (
                torch.zeros(2, 3),
                torch.ones(4),
                r"soft_relu: alpha must be a number or have shape \(3,\).*got \(4,\)",
            ),
            (
                torch.zeros(2, 3),
                torch.ones(3, dtype=torch.int64),
                "soft_relu: alpha must be float64.*torch.int64",
            ),
        ],
    )
    def test_tensors(self, x, alpha, message) -> None:
        with pytest.raises(ValueError, match=message):
            led_fast.soft_relu(x, alpha)

    def test_the_operator_refuses_other_vectors(self) -> None:
        ones = [torch.ones(3) for _ in range(3)]
        with pytest.raises(RuntimeError, match="parameters must be vectors of one value a feature"):
            torch.ops.led_fast.soft_relu_per_feature(torch.zeros(2, 3), *ones, torch.ones(4), False)

    @pytest.mark.parametrize(
        "arguments", [dict(features=3), dict(learned=True), dict(features=3, learned=True, u0=1.0)]
    )
    def test_layer(self, arguments) -> None:
        with pytest.raises(ValueError, match="SoftReLU: "):
            SoftReLU(**arguments)
        with pytest.raises(ValueError, match=r"SoftReLU: x must have shape \(B, 3, ...\), got \(2, 4\)"):
            SoftReLU(features=3, learned=True)(torch.zeros(2, 4))


class TestLearnedLayer:
    def test_starts_as_documented(self) -> None:
        torch.manual_seed(0)
        layer = SoftReLU(features=200, learned=True)
        left = layer(torch.full((1, 200), -100.0))[0] / (-100 - layer.position)
        slopes = torch.tensor([0.8, 1.25])
        near = (left[0, :, None] - slopes).abs()
        assert (near.amin(1) < 0.02).all() and 60 < (near.argmin(1) == 0).sum() < 140
        assert -1.5 <= layer.position.min() < -1.3 and 1.3 < layer.position.max() <= 1.5
        assert layer(layer.position[None].detach())[0].abs().max() < 1e-6

    def test_learns_and_inverts(self) -> None:
        torch.manual_seed(0)
        layer = SoftReLU(features=5, learned=True).double()
        x = sample((64, 5))
        optimiser = torch.optim.Adam(layer.parameters(), lr=0.05)
        first = None
        for _ in range(60):
            y, log_abs_det = layer(x)
            loss = (y.square().sum(1) / 2 - log_abs_det).mean()
            first = loss.item() if first is None else first
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        assert loss.item() < first - 0.3
        y, log_abs_det = layer(x)
        torch.testing.assert_close(layer.inverse(y), (x, -log_abs_det), rtol=1e-9, atol=1e-9)

    def test_stays_in_its_bounds(self) -> None:
        layer = SoftReLU(features=2, learned=True)
        with torch.no_grad():
            layer.log_ratio.copy_(torch.tensor([-7.0, 7.0]) / 3)
            layer.log_sharpness.copy_(torch.tensor([-2.0, 7.0]) / 3)
            x = sample((5, 2), torch.float32)
            at_bounds = layer(x)
            layer.log_ratio.copy_(torch.tensor([-1e8, 1e8]))
            layer.log_sharpness.copy_(torch.tensor([-1e8, 1e8]))
        torch.testing.assert_close(layer(x), at_bounds)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_of_half_precision_is_zero_where_it_bends(self, dtype) -> None:
        layer = SoftReLU(features=2, learned=True).to(dtype)
        with torch.no_grad():
            layer.log_ratio.copy_(torch.tensor([2.25, -2.25]))
        y, _ = layer(layer.position.detach().repeat(3, 1))
        assert y.abs().max() < 1e-4

    def test_state_and_repr(self) -> None:
        layer, other = SoftReLU(features=3, learned=True), SoftReLU(features=3, learned=True)
        other.load_state_dict(layer.state_dict())
        x = sample((2, 3), torch.float32)
        torch.testing.assert_close(other(x), layer(x), rtol=0, atol=0)
        assert repr(layer) == "SoftReLU(features=3, learned=True)"


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("bad", [-1.0, 0.0, math.nan])
@pytest.mark.parametrize("which", ["ratio", "sharpness"])
def test_parameters_out_of_range_give_nan(which, bad, inverse):
    good = {"ratio": 0.5, "sharpness": 4.0}
    ratio, sharpness = (torch.tensor([good[n], bad if n == which else good[n]]) for n in good)
    x = torch.randn(3, 2, 300)
    y, log_abs_det = of_slopes(x, ratio, sharpness, torch.zeros(2), torch.zeros(2), inverse)
    assert y[:, 0].isfinite().all() and y[:, 1].isnan().all() and log_abs_det.isnan().all()


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"alpha": -1.0, "beta": torch.ones(2)}, ValueError, "alpha must be positive and finite, got -1.0"),
        ({"alpha": torch.ones(2), "beta": 0.0}, ValueError, "beta must be positive and finite, got 0.0"),
        ({"u0": math.nan, "beta": torch.ones(2)}, ValueError, "u0 must be finite, got nan"),
        ({"u0": "abc", "beta": torch.ones(2)}, TypeError, "u0 must be a number, got str"),
        ({"alpha": None, "beta": torch.ones(2)}, TypeError, "alpha must be a number, got NoneType"),
    ],
)
def test_numbers_beside_vectors_are_checked(parameters, error, message):
    with pytest.raises(error, match=message):
        led_fast.soft_relu(torch.zeros(3, 2), **parameters)


@pytest.mark.parametrize("function", [led_fast.soft_relu, led_fast.soft_relu_inverse])
@pytest.mark.parametrize("gap", [0.1, 1e-2, 1e-3, 1e-4])
def test_alpha_may_be_close_to_beta(gap, function):
    x, beta = sample((300, 1), torch.float32), torch.tensor([1.75])
    alpha = (beta + gap).requires_grad_()
    y, log_abs_det = function(x, alpha, beta)
    exact, exact_log = function(x.double(), alpha.item(), beta.item())  # by numbers, which go another way
    torch.testing.assert_close(y.double(), exact, rtol=5e-7, atol=1e-6)
    torch.testing.assert_close(log_abs_det.double(), exact_log, rtol=1e-5, atol=5e-7)
    (grad,) = torch.autograd.grad(y.sum(), alpha)
    at = (x.double() if function is led_fast.soft_relu else exact).requires_grad_()
    wide = alpha.detach().double().requires_grad_()
    plain = (torch.logaddexp(wide * at, beta.double() * at) - math.log(2)) / wide
    slopes = torch.autograd.grad(plain.sum(), at, retain_graph=True)[0]
    weights = (
        torch.ones_like(at) if function is led_fast.soft_relu else -1 / slopes
    )  # of the implicit function
    (exact_grad,) = torch.autograd.grad(plain, wide, weights)
    # Each element's part is a difference of two, which the gap divides.
    torch.testing.assert_close(grad.double(), exact_grad, rtol=1e-6 + 1e-6 / gap, atol=0)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("far", [math.inf, -math.inf, 1e38, -1e38])
@pytest.mark.parametrize("shape", [(5, 2), (5, 2, 100)])
def test_far_elements_that_do_not_count_move_no_parameter(shape, far, inverse):
    x, parameters = sample(shape, torch.float32), parameters_of(2, torch.float32)
    cotangents = sample(shape, torch.float32, 1), sample(shape[:1], torch.float32, 2)
    x[3], cotangents[0][3], cotangents[1][3] = far, 0, 0
    _, (_, *grads) = both(of_slopes, x, parameters, cotangents, inverse)
    kept = [0, 1, 2, 4]
    _, (_, *wanted) = both(of_slopes, x[kept], parameters, tuple(c[kept] for c in cotangents), inverse)
    torch.testing.assert_close(grads, wanted, rtol=1e-5, atol=1e-5)
