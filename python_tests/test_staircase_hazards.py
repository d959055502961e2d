"""The staircase and its inverse: hazards and derivatives."""

import math

import pytest
import torch
from staircase_cases import (
    BOTH,
    DTYPES,
    REFERENCES,
    both,
    gradients,
    inputs_of,
    normal,
    parameters_of,
    real_dtype,
)
from thread_oracle import assert_same_bits_by_threads, values_and_gradients
from torch import Tensor

import led_fast


class TestHazards:
    @both
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_huge_infinite_and_nan(self, name, dtype) -> None:
        x = torch.zeros(6, 2, 50, dtype=dtype)
        for row, value in enumerate([1e4, -1e4, math.inf, -math.inf, math.nan]):
            x[row, 1, 20] = value
        parameters = [p.to(real_dtype(dtype)) for p in parameters_of("gentle", 2, 3)]
        leaves = [x.requires_grad_(), *(p.requires_grad_() for p in parameters)]
        y, log_abs_det = BOTH[name](*leaves)
        one = BOTH[name](torch.zeros(1, 2, 50, dtype=dtype), *parameters)[1].item()
        rest = one - BOTH[name](torch.zeros(1, 2, 1, dtype=dtype), *parameters)[1].item()
        first = BOTH[name](torch.zeros(1, 1, 1, dtype=dtype), *(p[:1] for p in parameters))[1].item()
        flat = parameters[3][1].log().item() * (1 if name == "staircase" else -1)
        expected = torch.tensor([rest + first + flat] * 4 + [math.nan, one], dtype=log_abs_det.dtype)
        torch.testing.assert_close(log_abs_det, expected, equal_nan=True, rtol=1e-5, atol=1e-4)
        assert y[2, 1, 20] == math.inf and y[3, 1, 20] == -math.inf and y.isnan().sum() == 1
        grad = torch.autograd.grad(
            (y, log_abs_det), leaves, [torch.ones_like(y), torch.ones_like(log_abs_det)]
        )
        assert grad[0].isnan().sum() == 1 and grad[0].isinf().sum() == 0
        assert all(g[0].isfinite().all() for g in grad[1:]) and all(g[1].isnan().all() for g in grad[1:])

    def test_infinite_elements_leave_the_steps_alone(self) -> None:
        x, *parameters = inputs_of((3, 1), torch.float32)
        x[1] = math.inf
        outputs = led_fast.staircase(*(leaves := [x, *(p.requires_grad_() for p in parameters)]))
        grad = torch.autograd.grad(outputs[1].sum(), leaves[1:])
        assert all(g.isfinite().all() for g in grad)

    @both
    @pytest.mark.parametrize(
        "view",
        [
            lambda x: x[:, :, ::2],
            lambda x: x.transpose(2, 3),
            lambda x: x[:, :1].expand(-1, 4, -1, -1),
            lambda x: x[:1].expand(4, -1, -1, -1),
            lambda x: x.contiguous(memory_format=torch.channels_last),
            lambda x: x.contiguous(memory_format=torch.channels_last)[1:],
            lambda x: x[:, :, 1:, 1:],
            lambda x: x.flatten()[3:-1].view(-1, 4),
        ],
    )
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_strides(self, view, dtype, name) -> None:
        x = view(normal(3, 4, 6, 5, dtype=dtype))
        parameters = [p.float() for p in parameters_of("gentle", 4, 3)]
        dense = x.clone(memory_format=torch.contiguous_format)
        cotangents = [normal(*x.shape, seed=5, dtype=dtype), normal(len(x), seed=6)]
        strided = [
            cotangents[0].transpose(-1, -2).contiguous().transpose(-1, -2),
            cotangents[1][:1].expand(len(x)),
        ]
        for a, b in zip(BOTH[name](x, *parameters), BOTH[name](dense, *parameters), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)
        given = [strided[0].contiguous(), strided[1].contiguous()]
        ours, expected = (
            gradients(BOTH[name], [v, *parameters], c) for v, c in ((x, strided), (dense, given))
        )
        for a, b in zip(ours, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)

    @both
    def test_channels_last_stays(self, name) -> None:
        x = normal(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
        assert BOTH[name](x, *parameters_of("gentle", 3, 2))[0].stride() == x.stride()

    @both
    @pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 3, 0), (0, 2, 4, 4)])
    def test_empty(self, shape, name) -> None:
        leaves = [v.requires_grad_() for v in inputs_of(shape, torch.float32)]
        y, log_abs_det = BOTH[name](*leaves)
        assert y.shape == shape and log_abs_det.tolist() == [0.0] * shape[0]
        (y.sum() + log_abs_det.sum()).backward()
        assert all(v.grad.shape == v.shape and (v.grad == 0).all() for v in leaves)

    @both
    @pytest.mark.parametrize("shape", [(3, 2, 200, 130), (500, 3), (64, 4, 16, 16)])
    def test_bits_do_not_depend_on_threads(self, shape, name) -> None:
        leaves = [v.requires_grad_() for v in inputs_of(shape, torch.float32, kind="trained")]
        assert_same_bits_by_threads(lambda: values_and_gradients(BOTH[name](*leaves), leaves))


class TestDerivatives:
    @both
    @pytest.mark.parametrize("shape", [(3, 2), (2, 2, 20)])
    def test_first_and_second(self, shape, name) -> None:
        leaves = [v.requires_grad_() for v in inputs_of(shape, torch.float64, steps=2)]
        assert torch.autograd.gradcheck(BOTH[name], leaves, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(BOTH[name], leaves)

    @both
    @pytest.mark.parametrize("output", [0, 1])
    def test_one_output_alone(self, output, name) -> None:
        inputs = inputs_of((3, 2, 20), torch.float64)
        cotangents = [None, None]
        cotangents[output] = [normal(3, 2, 20, seed=5), normal(3, seed=6)][output]
        ours, plain = (gradients(f[name], inputs, cotangents) for f in (BOTH, REFERENCES))
        for a, b in zip(ours, plain, strict=True):
            torch.testing.assert_close(a, b)

    @both
    def test_third_derivative(self, name) -> None:
        def third(function) -> list[Tensor]:
            leaves = [v.requires_grad_() for v in inputs_of((2, 2), torch.float64, steps=2)]
            value = sum(out.sum() for out in function(*leaves))
            for _ in range(3):
                value = sum(g.square().sum() for g in torch.autograd.grad(value, leaves, create_graph=True))
            return [value]

        for a, b in zip(third(BOTH[name]), third(REFERENCES[name]), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)

    @both
    def test_forward_over_reverse(self, name) -> None:
        inputs = inputs_of((2, 2), torch.float64, steps=2)

        def loss(function):
            def of(*values: Tensor) -> Tensor:
                y, log_abs_det = function(*values)
                return y.sin().sum() + log_abs_det.square().sum()

            return torch.func.jacfwd(torch.func.grad(of, argnums=(0, 1, 3)), argnums=(0, 2, 4))(*inputs)

        for a, b in zip(loss(BOTH[name]), loss(REFERENCES[name]), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    ("which", "bad"), [*((i, math.nan) for i in range(4)), *((i, math.inf) for i in (1, 2, 3))]
)  # a centre may be infinite: its step is out of sight
@both
def test_a_parameter_that_is_not_finite_gives_no_finite_results(name, bad, which) -> None:
    x, *parameters = inputs_of((3, 2, 7), torch.float32)
    parameters[which].flatten()[0] = bad
    value, log_abs_det = BOTH[name](x, *parameters)
    assert not log_abs_det.isfinite().any()
    if name == "staircase_inverse":
        assert value[:, 0].isnan().all() and value[:, 1].isfinite().all()


@both
def test_derivatives_beside_a_steep_step_keep_their_digits(name) -> None:
    """Of every kind and order: there 1 - tanh² has none left."""
    parameters = [torch.zeros(1, 1), torch.full((1, 1), math.exp(-2)), torch.full((1, 1), math.exp(9.0))]
    parameters.append(torch.full((1,), 1e-3))
    places = torch.tensor([8.5, -9.5, 11.0])[:, None] / math.exp(9.0)
    x = places if name == "staircase" else led_fast.staircase(places, *parameters)[0]

    def derivatives(x: Tensor, parameters: list[Tensor]) -> list[Tensor]:
        def log(x: Tensor) -> Tensor:
            return BOTH[name](x, *parameters)[1].sum()

        x = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(log(x), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x)
        ones = torch.ones_like(x)
        tangents = [torch.func.jvp(f, (x.detach(),), (ones,))[1] for f in (log, torch.func.grad(log))]
        torch.testing.assert_close(tangents, [first.sum().detach(), second], rtol=1e-4, atol=0)
        return [first, second]

    found = derivatives(x, parameters)
    if name == "staircase":  # an inverse's y, rounded, is that of another x
        exact = derivatives(x.double(), [p.double() for p in parameters])
        torch.testing.assert_close([d.double() for d in found], exact, rtol=1e-4, atol=0)


def test_a_derivative_that_is_not_positive_has_no_finite_logarithm():
    one, x = torch.ones(2, 1), 100 * torch.randn(3, 2, 50)
    for slope, wanted in ((-3.0, math.nan), (0.0, -math.inf)):
        _, log_abs_det = led_fast.staircase(x, 0 * one, one, one, torch.tensor([1.0, slope]))
        torch.testing.assert_close(log_abs_det, torch.full((3,), wanted), equal_nan=True)


def test_vmap_over_empty_batches():
    one, x = torch.ones(2, 1), torch.zeros(3, 0, 2)
    for op in (led_fast.staircase, led_fast.staircase_inverse):
        y, log_abs_det = torch.vmap(lambda v, op=op: op(v, 0 * one, one, one, torch.ones(2)))(x)
        assert y.shape == (3, 0, 2) and log_abs_det.shape == (3, 0)
