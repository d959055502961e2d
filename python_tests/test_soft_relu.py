"""soft-ReLU: the operator and its layer, against the plain formula, derivatives and hazards."""

import copy
import io
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from thread_oracle import assert_same_bits_by_threads, values_and_gradients
from torch import Tensor
from torch.library import opcheck

import led_fast
from led_fast import reference
from led_fast.nn import SoftReLU

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
# One element, a register and its neighbours, short rows beside long ones, several chunks of 16,384 elements.
SHAPES = [
    (1,),
    (5,),
    (1, 1),
    (7, 2),
    (40, 3),
    (33, 16),
    (17, 63),
    (2, 64),
    (3, 65),
    (5, 7, 3, 2),
    (2, 40_000),
]
PARAMETERS = dict(alpha=3.7, beta=0.6, u0=0.3, t0=-0.2)


def sample(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def assert_as_good_as_eager(ours: Tensor, eager: Tensor, exact: Tensor, terms: int = 1) -> None:
    """Our largest error is at most twice that of plain PyTorch in the same dtype, plus rounding of terms near 1."""
    assert ours.shape == exact.shape
    if exact.numel():
        units = 8 if ours.dtype == torch.float64 else 2  # the float64 oracle rounds, too
        rounding = units * torch.finfo(ours.dtype).eps * exact.abs().max().clamp(min=max(1, terms / 4))
        assert (ours.double() - exact).abs().max() <= 2 * (eager.double() - exact).abs().max() + rounding


def gradient(function, x: Tensor, cotangents: tuple[Tensor, Tensor]) -> Tensor:
    x = x.detach().requires_grad_()
    outputs = function(x, **PARAMETERS)
    given = [c.to(o.dtype) for c, o in zip(cotangents, outputs, strict=True)]
    return torch.autograd.grad(outputs, x, given)[0]


class TestValues:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("shape", SHAPES)
    def test_forward_and_backward(self, shape, dtype) -> None:
        x = sample(shape, dtype)
        ours, eager = led_fast.soft_relu(x, **PARAMETERS), reference.soft_relu(x, **PARAMETERS)
        exact = reference.soft_relu(x.double(), **PARAMETERS)
        assert ours[0].dtype == dtype
        assert ours[1].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        for got, plain, true in zip(ours, eager, exact, strict=True):
            assert_as_good_as_eager(got, plain, true)
        cotangents = sample(shape, seed=1), sample(shape[:1], seed=2)
        rounded = cotangents[0].to(dtype), cotangents[1].to(ours[1].dtype)
        assert_as_good_as_eager(
            gradient(led_fast.soft_relu, x, rounded),
            gradient(reference.soft_relu, x, rounded),
            gradient(reference.soft_relu, x.double(), rounded),
        )

    def test_log_abs_det_is_that_of_the_jacobian(self) -> None:
        x = sample((4, 6))
        _, log_abs_det = led_fast.soft_relu(x, **PARAMETERS)
        for row, value in zip(x, log_abs_det, strict=True):
            jacobian = torch.autograd.functional.jacobian(
                lambda v: led_fast.soft_relu(v[None], **PARAMETERS)[0][0], row
            )
            torch.testing.assert_close(
                value, torch.linalg.slogdet(jacobian).logabsdet, rtol=1e-12, atol=1e-12
            )
        assert log_abs_det.abs().min() > 0.1

    def test_default_t0_puts_zero_at_zero(self) -> None:
        y, _ = led_fast.soft_relu(torch.zeros(1, 1, dtype=torch.float64))
        assert abs(y.item()) < 1e-15

    @settings(max_examples=200, deadline=None)
    @given(
        shape=st.lists(st.integers(0, 9), min_size=1, max_size=4),
        dtype=st.sampled_from(DTYPES[1:]),  # those that the float64 oracle is more exact than
        beta=st.floats(0.5, 10),
        steepness=st.floats(1.001, 1e4),
        u0=st.floats(-2, 2),
    )
    def test_any_shape_and_parameters(self, shape, dtype, beta, steepness, u0) -> None:
        x, parameters = sample(tuple(shape), dtype), dict(alpha=beta * steepness, beta=beta, u0=u0)
        ours, eager, exact = (
            led_fast.soft_relu(x, **parameters),
            reference.soft_relu(x, **parameters),
            reference.soft_relu(x.double(), **parameters),
        )
        assert_as_good_as_eager(ours[0], eager[0], exact[0])
        # A slope near 1 is a difference of two logarithms near log(2), each of which rounds.
        assert_as_good_as_eager(ours[1], eager[1], exact[1], terms=x[:1].numel())

    @pytest.mark.parametrize("alpha", [1 + 1e-6, 5.8, 1e6, 1e29])
    @pytest.mark.parametrize("x", [torch.linspace(-50, 50, 1000).expand(2, -1), torch.full((20, 40), -50.0)])
    def test_extreme_slopes_do_not_underflow(self, alpha, x) -> None:
        exact = reference.soft_relu(x.double(), alpha)
        for got, true in zip(led_fast.soft_relu(x, alpha), exact, strict=True):
            torch.testing.assert_close(got.double(), true, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_huge_infinite_and_nan(self, dtype) -> None:
        x = torch.zeros(6, 100, dtype=dtype)
        for row, value in enumerate([1e4, -1e4, math.inf, -math.inf, math.nan]):
            x[row, 50] = value
        y, log_abs_det = led_fast.soft_relu(x)
        rest = led_fast.soft_relu(torch.zeros(1, 99, dtype=dtype))[1].item()
        slope = math.log(1 / 5.8)
        torch.testing.assert_close(
            log_abs_det,
            torch.tensor(
                [rest, rest + slope, rest, rest + slope, math.nan, 100 / 99 * rest], dtype=log_abs_det.dtype
            ),
            equal_nan=True,
            rtol=1e-5,
            atol=1e-5,
        )
        assert y[2, 50] == math.inf and y[3, 50] == -math.inf and y.isnan().sum() == 1
        leaf = x.requires_grad_()
        gradients = torch.autograd.grad(
            led_fast.soft_relu(leaf), leaf, [torch.ones_like(y), torch.ones_like(log_abs_det)]
        )[0]
        assert gradients.isnan().sum() == 1 and gradients.isinf().sum() == 0

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_every_half_precision_number(self, dtype) -> None:
        """The kernels convert half precisions themselves: all 65,536 of them, both ways."""
        x = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(dtype)[:, None]
        y, _ = led_fast.soft_relu(x, alpha=1 + 1e-6, t0=0.0)  # nearly the identity plus log(2)
        expected = led_fast.soft_relu(x.float(), alpha=1 + 1e-6, t0=0.0)[0].to(dtype)
        torch.testing.assert_close(y, expected, equal_nan=True, rtol=0, atol=0)


class TestLayout:
    @pytest.mark.parametrize(
        "view",
        [
            lambda x: x[:, ::2],
            lambda x: x.transpose(1, 2),
            lambda x: x.transpose(0, 1),
            lambda x: x[:, :1].expand(-1, 5, -1, -1),
            lambda x: x[:1].expand(4, -1, -1, -1),
            lambda x: x.contiguous(memory_format=torch.channels_last),
            lambda x: x.contiguous(memory_format=torch.channels_last)[1:],
            lambda x: x[:, :, 1:, 1:],
            lambda x: x.flatten()[3:].view(3, -1),
        ],
    )
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_strides(self, view, dtype) -> None:
        x = view(sample((3, 4, 6, 5), dtype).flatten()[:360].view(3, 4, 6, 5))
        dense = x.clone(memory_format=torch.contiguous_format)
        cotangents = sample(x.shape, dtype, 1), sample(x.shape[:1], torch.float32, 2)
        strided = (
            cotangents[0].transpose(-1, -2).contiguous().transpose(-1, -2),
            cotangents[1][:1].expand(len(x)),
        )
        for a, b in zip(led_fast.soft_relu(x), led_fast.soft_relu(dense), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            gradient(led_fast.soft_relu, x, strided),
            gradient(led_fast.soft_relu, dense, (strided[0].contiguous(), strided[1].contiguous())),
            rtol=0,
            atol=0,
        )

    def test_channels_last_stays(self) -> None:
        x = sample((2, 3, 4, 5)).contiguous(memory_format=torch.channels_last)
        assert led_fast.soft_relu(x)[0].stride() == x.stride()

    @pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)])
    def test_empty(self, shape) -> None:
        x = torch.empty(shape, requires_grad=True)
        y, log_abs_det = led_fast.soft_relu(x)
        assert y.shape == shape and log_abs_det.tolist() == [0.0] * shape[0]
        (y.sum() + log_abs_det.sum()).backward()
        assert x.grad.shape == shape


class TestDerivatives:
    @pytest.mark.parametrize("shape", [(3, 5), (2, 70), (4,)])
    def test_first_and_second(self, shape) -> None:
        x = sample(shape).requires_grad_()

        def function(x: Tensor):
            return led_fast.soft_relu(x, **PARAMETERS)

        assert torch.autograd.gradcheck(function, (x,))
        assert torch.autograd.gradgradcheck(function, (x,))

    @pytest.mark.parametrize("output", [0, 1])
    def test_one_output_alone(self, output) -> None:
        x = sample((3, 40)).requires_grad_()
        ours, plain = (
            torch.autograd.grad(f(x)[output].sum(), x)[0] for f in (led_fast.soft_relu, reference.soft_relu)
        )
        torch.testing.assert_close(ours, plain)

    def test_third_derivative(self) -> None:
        def third(function) -> Tensor:
            x = sample((2, 3)).requires_grad_()
            value = sum(out.sum() for out in function(x))
            for _ in range(3):
                (value,) = torch.autograd.grad(value.sum(), x, create_graph=True)
            return value

        torch.testing.assert_close(third(led_fast.soft_relu), third(reference.soft_relu))


class TestTorchIntegration:
    @pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4, 5)])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_opcheck(self, shape, dtype) -> None:
        inputs = [sample(shape, dtype)]
        if len(shape) == 4:
            inputs.append(inputs[0].contiguous(memory_format=torch.channels_last))
        for x in inputs:
            x.requires_grad_()
            y, log_abs_det = led_fast.soft_relu(x)
            opcheck(torch.ops.led_fast.soft_relu.default, (x, 5.8, 1.0, 0.0, 0.1))
            for gradients in [(y, log_abs_det), (y, None), (None, log_abs_det)]:
                leaves = [g if g is None else g.detach().requires_grad_() for g in gradients]
                opcheck(torch.ops.led_fast.soft_relu_backward.default, (x, *leaves, 5.8, 1.0, 0.0))

    def test_compile_with_dynamic_shapes(self) -> None:
        def loss(x: Tensor) -> Tensor:
            y, log_abs_det = led_fast.soft_relu(x * 2)
            return y.square().sum() + log_abs_det.sum()

        compiled = torch.compile(loss, fullgraph=True, dynamic=True)
        for rows in (2, 5, 9):
            x = sample((rows, 7), torch.float32).requires_grad_()
            value, plain = compiled(x), loss(x)
            torch.testing.assert_close(value, plain)
            torch.testing.assert_close(torch.autograd.grad(value, x), torch.autograd.grad(plain, x))

    @pytest.mark.parametrize("in_dim", [0, 1, -1])
    def test_vmap(self, in_dim) -> None:
        x = sample((4, 3, 5))
        mapped, plain = (
            torch.func.vmap(f, in_dims=in_dim)(x) for f in (led_fast.soft_relu, reference.soft_relu)
        )
        torch.testing.assert_close(mapped, plain)

    def test_func_transforms(self) -> None:
        def per_sample(function):
            def loss(x: Tensor) -> Tensor:
                y, log_abs_det = function(x)
                return y.square().sum() + log_abs_det.sum()

            return torch.func.vmap(torch.func.grad(loss))(x), torch.func.jacrev(torch.func.jacrev(loss))(x[0])

        x = sample((4, 3, 2))
        torch.testing.assert_close(per_sample(led_fast.soft_relu), per_sample(reference.soft_relu))

    def test_autocast_keeps_the_dtype(self) -> None:
        x = sample((3, 4), torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y, log_abs_det = led_fast.soft_relu(x)
            half, log_half = led_fast.soft_relu(x.bfloat16())
        assert (y.dtype, log_abs_det.dtype) == (torch.float32, torch.float32)
        assert (half.dtype, log_half.dtype) == (torch.bfloat16, torch.float32)

    def test_meta(self) -> None:
        y, log_abs_det = led_fast.soft_relu(torch.empty(4, 3, device="meta"))
        assert y.shape == (4, 3) and log_abs_det.shape == (4,) and log_abs_det.is_meta

    @pytest.mark.parametrize("shape", [(3, 100_000), (5000, 3), (64, 300)])
    def test_bits_do_not_depend_on_threads(self, shape) -> None:
        x = sample(shape, torch.float32).requires_grad_()
        assert_same_bits_by_threads(lambda: values_and_gradients(led_fast.soft_relu(x), x))


class TestBadArguments:
    @pytest.mark.parametrize(
        ("x", "error", "message"),
        [
            ([1.0], TypeError, "soft_relu: x must be a tensor, got list"),
            (torch.ones(3, dtype=torch.int64), ValueError, "soft_relu: x must be float64.*got torch.int64"),
            (torch.ones(3, dtype=torch.complex64), ValueError, "got torch.complex64"),
            (torch.tensor(1.0), ValueError, "0-d"),
        ],
    )
    def test_input(self, x, error, message) -> None:
        with pytest.raises(error, match=message):
            led_fast.soft_relu(x)

    @pytest.mark.parametrize(
        "parameters",
        [
            dict(alpha=1.0, beta=1.0),
            dict(alpha=0.5),
            dict(alpha=-1.0),
            dict(alpha=0.0),
            dict(beta=0.0),
            dict(beta=-1.0),
            dict(alpha=math.nan),
            dict(alpha=math.inf),
            dict(beta=math.nan),
            dict(u0=math.inf),
            dict(t0=math.nan),
            dict(beta=1e-31),
        ],
    )
    def test_parameters(self, parameters) -> None:
        with pytest.raises(ValueError, match="soft_relu: "):
            led_fast.soft_relu(torch.zeros(2, 2), **parameters)
        with pytest.raises(ValueError, match="SoftReLU: "):
            SoftReLU(**parameters)

    def test_gradients_of_another_shape_are_refused(self) -> None:
        with pytest.raises(RuntimeError, match="grad_log_abs_det must have one value a sample"):
            torch.ops.led_fast.soft_relu_backward(torch.zeros(2, 3), None, torch.zeros(3), 5.8, 1.0, 0.0)
        with pytest.raises(RuntimeError, match="grad_y must have x's shape"):
            torch.ops.led_fast.soft_relu_backward(torch.zeros(2, 3), torch.zeros(3, 2), None, 5.8, 1.0, 0.0)


class TestLayer:
    def test_equals_the_operator(self) -> None:
        x = sample((3, 4))
        torch.testing.assert_close(
            SoftReLU(**PARAMETERS)(x), led_fast.soft_relu(x, **PARAMETERS), rtol=0, atol=0
        )
        torch.testing.assert_close(SoftReLU()(x), led_fast.soft_relu(x), rtol=0, atol=0)

    def test_inverse(self) -> None:
        layer, x = SoftReLU(**PARAMETERS), sample((3, 4))
        y, log_abs_det = layer(x)
        torch.testing.assert_close(layer.inverse(y), (x, -log_abs_det), rtol=1e-12, atol=1e-12)

    def test_copies_and_pickles(self) -> None:
        layer, x = SoftReLU(**PARAMETERS), sample((3, 4))
        buffer = io.BytesIO()
        torch.save(layer, buffer)
        buffer.seek(0)
        copies = [
            copy.deepcopy(layer),
            pickle.loads(pickle.dumps(layer)),
            torch.load(buffer, weights_only=False),
        ]
        assert not layer.state_dict()
        for other in copies:
            assert repr(other) == repr(layer)
            torch.testing.assert_close(other(x), layer(x), rtol=0, atol=0)
