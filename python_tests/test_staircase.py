"""The staircase and its inverse: against brute force, and within PyTorch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from staircase_cases import (
    BOTH,
    DTYPES,
    KINDS,
    REFERENCES,
    SHAPES,
    assert_as_good_as_eager,
    bisected,
    both,
    gradients,
    inputs_of,
    log_derivative_of,
    normal,
    parameters_of,
    real_dtype,
    value_of,
)
from torch import Tensor
from torch.library import opcheck

import led_fast
from led_fast import reference


class TestValues:
    @both
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("shape", SHAPES)
    def test_values_and_gradients(self, shape, dtype, name) -> None:
        inputs = inputs_of(shape, dtype)
        wide = [v.double() for v in inputs]
        ours, eager, exact = BOTH[name](*inputs), REFERENCES[name](*inputs), REFERENCES[name](*wide)
        assert ours[0].dtype == dtype and ours[1].dtype == real_dtype(dtype)
        for got, plain, true in zip(ours, eager, exact, strict=True):
            assert_as_good_as_eager(got, plain, true, terms=inputs[0][0].numel())
        cotangents = [normal(*shape, seed=5, dtype=dtype), normal(shape[0], seed=6, dtype=real_dtype(dtype))]
        mine, plain, true = (
            gradients(f, v, cotangents)
            for f, v in ((BOTH[name], inputs), (REFERENCES[name], inputs), (REFERENCES[name], wide))
        )
        for got, eager_grad, exact_grad, value in zip(mine, plain, true, inputs, strict=True):
            assert got.dtype == value.dtype
            # An inverse's are taken at an x that is a few roundings off.
            assert_as_good_as_eager(
                got, eager_grad, exact_grad, units=8 if name == "staircase_inverse" else 3
            )

    @both
    def test_log_abs_det_is_that_of_the_jacobian(self, name) -> None:
        x, *parameters = inputs_of((4, 3, 2), torch.float64, kind="trained")
        _, log_abs_det = BOTH[name](x, *parameters)
        for row, value in zip(x, log_abs_det, strict=True):
            jacobian = torch.autograd.functional.jacobian(
                lambda v: REFERENCES[name](v[None], *parameters)[0].flatten(), row
            )
            exact = torch.linalg.slogdet(jacobian.flatten(1)).logabsdet
            torch.testing.assert_close(value, exact, rtol=1e-10, atol=1e-10)
        assert log_abs_det.abs().min() > 0.1

    @settings(max_examples=150, deadline=None)
    @given(
        shape=st.lists(st.integers(0, 9), min_size=2, max_size=4),
        steps=st.integers(0, 9),
        dtype=st.sampled_from(DTYPES[1:]),
        kind=st.sampled_from(["gentle", "trained"]),
    )
    def test_any_shape_and_number_of_steps(self, shape, steps, dtype, kind) -> None:
        inputs = inputs_of(tuple(shape), dtype, steps, kind)
        ours, eager = led_fast.staircase(*inputs), reference.staircase(*inputs)
        exact = reference.staircase(*(v.double() for v in inputs))
        for got, plain, true in zip(ours, eager, exact, strict=True):
            assert_as_good_as_eager(got, plain, true, terms=inputs[0][:1].numel())
        back, log_back = led_fast.staircase_inverse(ours[0], *inputs[1:])
        assert back.shape == inputs[0].shape and log_back.shape == ours[1].shape

    @pytest.mark.parametrize("dtype", DTYPES[:2])
    def test_derivative_keeps_its_digits_beside_a_step(self, dtype) -> None:
        """1 - tanh² is e^{-2 |u|} there, long below the last digit of 1."""
        x, one = torch.linspace(-30, 30, 601, dtype=dtype)[:, None], torch.ones(1, 1, dtype=dtype)
        parameters = 0 * one, 1e8 * one, one, 1e-12 * one[0]
        _, log_abs_det = led_fast.staircase(x, *parameters)
        exact = log_derivative_of(x.double(), tuple(p.double() for p in parameters))[:, 0]
        torch.testing.assert_close(log_abs_det.double(), exact, rtol=0, atol=100 * torch.finfo(dtype).eps)

    @pytest.mark.parametrize("dtype", DTYPES[:2])
    def test_small_values_keep_their_digits(self, dtype) -> None:
        x = torch.logspace(-20, 1, 400, dtype=dtype)[:, None]
        x = torch.cat([x, -x])
        one = torch.ones(1, 1, dtype=dtype)
        y, _ = led_fast.staircase(x, 0 * one, one, one, 1e-30 * one[0])
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(y.double(), x.double().tanh(), rtol=4 * eps, atol=0)


class TestInverse:
    @pytest.mark.parametrize("dtype", DTYPES[:2])
    @pytest.mark.parametrize("steps", [1, 3, 8, 20])
    @pytest.mark.parametrize("kind", KINDS)
    def test_finds_what_bisection_finds(self, kind, steps, dtype) -> None:
        """x, and log dx/dy, lie between those of y less and y plus a few roundings of all terms."""
        features, count = 4, 1500
        parameters = tuple(p.to(dtype) for p in parameters_of(kind, features, steps))
        wide = tuple(p.double() for p in parameters)
        # Points everywhere, points on the steps, and what lies beyond all of them.
        x = 1.5 * normal(count, features)
        near = wide[0].T.repeat(count, 1)[: count // 3]
        x[: count // 3] = near + normal(*near.shape, seed=3) / wide[2].T.repeat(count, 1)[: count // 3]
        y = value_of(x, wide)
        y[1::2] = (3 * y.std() * normal(count, features, seed=4))[1::2]
        y = y.to(dtype)
        found, _ = led_fast.staircase_inverse(y, *parameters)
        eps = torch.finfo(dtype).eps
        noise = 6 * eps * (y.double().abs() + wide[1].sum(-1))
        low, high = bisected(y.double() - noise, wide), bisected(y.double() + noise, wide)
        margin = 2 * eps * found.double().abs()
        assert (found.double() >= low - margin).all() and (found.double() <= high + margin).all()
        logs = torch.stack(
            [
                led_fast.staircase_inverse(y[:, f : f + 1], *(p[f : f + 1] for p in parameters))[1]
                for f in range(features)
            ],
            dim=1,
        ).double()
        shares = torch.linspace(0, 1, 33, dtype=torch.float64)[:, None, None]
        between = -log_derivative_of(low + shares * (high - low), wide)
        # A float64 oracle rounds x itself, and a steep step magnifies that.
        slack = 16 * eps * (1 + between.abs().amax(0))
        if dtype == torch.float64:
            slack = slack + 4 * eps * (x.abs() + found.abs()) * wide[2].amax(-1)
        else:
            # How x + its last step differs from x is known to the second order only.
            slack = slack + (2 * eps * found.double().abs() * wide[2].amax(-1)).square()
        assert (logs >= between.amin(0) - slack).all() and (logs <= between.amax(0) + slack).all()

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_round_trip(self, dtype) -> None:
        x, *parameters = inputs_of((40, 3, 9), dtype, kind="trained")
        y, log_abs_det = led_fast.staircase(x, *parameters)
        back, log_back = led_fast.staircase_inverse(y, *parameters)
        again = led_fast.staircase(back, *parameters)[0]
        slack = 4 * torch.finfo(dtype).eps
        scale = y.abs().double() + parameters[1].double().sum(1)[:, None]
        steepest = (parameters[3] + (parameters[1] * parameters[2]).sum(1)).double()[:, None]
        assert ((again.double() - y.double()).abs() <= slack * (scale + x.abs().double() * steepest)).all()
        if dtype in DTYPES[:2]:
            torch.testing.assert_close(log_back, -log_abs_det, rtol=0, atol=2e4 * slack)

    def test_does_not_depend_on_neighbours(self) -> None:
        x, *parameters = inputs_of((200, 1), torch.float32, kind="cliffs")
        y = led_fast.staircase(x, *parameters)[0]
        together = led_fast.staircase_inverse(y, *parameters)
        alone = [led_fast.staircase_inverse(row[None], *parameters) for row in y]
        assert torch.equal(together[0], torch.cat([a[0] for a in alone]))
        assert torch.equal(together[1], torch.cat([a[1] for a in alone]))

    def test_equal_steps(self) -> None:
        """All their places coincide: two equal steps are one of twice the height."""
        y, centers, heights, steepness, slope = inputs_of((50, 1), torch.float32, 1)
        twice = torch.cat([heights, heights], 1) / 2
        equal = [torch.cat([v, v], 1) for v in (centers, steepness)]
        one = led_fast.staircase_inverse(y, centers, heights, steepness, slope)
        two = led_fast.staircase_inverse(y, equal[0], twice, equal[1], slope)
        torch.testing.assert_close(two, one, rtol=1e-6, atol=1e-6)

    def test_inputs_and_results_may_change_in_place(self) -> None:
        inputs = inputs_of((5, 3), torch.float64)
        cotangents = [normal(5, 3, seed=5), normal(5, seed=6)]
        expected = gradients(reference.staircase_inverse, inputs, cotangents)
        leaves = [v.clone().requires_grad_() for v in inputs]
        y = leaves[0] * 1
        x, log_abs_det = led_fast.staircase_inverse(y, *leaves[1:])
        with torch.no_grad():
            y.zero_()
        outputs = x.mul_(2), log_abs_det
        got = torch.autograd.grad(outputs, leaves, [cotangents[0] / 2, cotangents[1]])
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b)

    def test_a_gradient_without_what_was_kept_is_refused(self) -> None:
        y, *parameters = (v.requires_grad_() for v in inputs_of((2, 3), torch.float64))
        x, *_ = torch.ops.led_fast.staircase_inverse(y, *parameters, False)
        with pytest.raises(RuntimeError, match="keep must be True"):
            x.sum().backward()


class TestTorchIntegration:
    @both
    @pytest.mark.parametrize("dtype", [torch.float64, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
    def test_opcheck(self, dtype, name) -> None:
        for layout in (torch.contiguous_format, torch.channels_last):
            x, *parameters = inputs_of((2, 3, 4, 5), dtype)
            leaves = [
                x.contiguous(memory_format=layout).requires_grad_(),
                *(p.requires_grad_() for p in parameters),
            ]
            operator = getattr(torch.ops.led_fast, name).default
            backward = getattr(torch.ops.led_fast, f"{name}_backward").default
            if name == "staircase":
                y, log_abs_det = operator(*leaves)
                opcheck(operator, tuple(leaves))
            else:
                y, log_abs_det, kept = operator(*leaves, True)
                opcheck(operator, (*leaves, True))
                leaves[0], y = kept.detach().requires_grad_(), kept
            for grads in [(y, log_abs_det), (y, None), (None, log_abs_det)]:
                opcheck(
                    backward, (*leaves, *(g if g is None else g.detach().requires_grad_() for g in grads))
                )

    @both
    def test_compile_with_dynamic_shapes(self, name) -> None:
        def loss(*values: Tensor) -> Tensor:
            y, log_abs_det = BOTH[name](values[0] * 2, *values[1:])
            return y.square().sum() + log_abs_det.sum()

        compiled = torch.compile(loss, fullgraph=True, dynamic=True)
        for rows in (2, 5, 9):
            leaves = [v.requires_grad_() for v in inputs_of((rows, 3, 7), torch.float32)]
            value, plain = compiled(*leaves), loss(*leaves)
            torch.testing.assert_close(value, plain)
            torch.testing.assert_close(torch.autograd.grad(value, leaves), torch.autograd.grad(plain, leaves))

    @both
    @pytest.mark.parametrize(
        "in_dims", [(0,) + 4 * (None,), (1,) + 4 * (None,), 5 * (0,), (None, 0, 0, 0, 0)]
    )
    def test_vmap(self, in_dims, name) -> None:
        x, *parameters = inputs_of((4, 3, 5), torch.float64)
        values = [
            torch.stack([v, v * 0.9, v * 1.1, v * 1.2]).movedim(0, d) if d is not None else v
            for v, d in zip((x, *parameters), in_dims, strict=True)
        ]
        mapped, plain = (torch.func.vmap(f[name], in_dims=in_dims)(*values) for f in (BOTH, REFERENCES))
        torch.testing.assert_close(mapped, plain)

    @both
    def test_per_sample_gradients(self, name) -> None:
        x, *parameters = inputs_of((4, 3, 2), torch.float64)

        def per_sample(function):
            def loss(row: Tensor, *values: Tensor) -> Tensor:
                y, log_abs_det = function(row[None], *values)
                return y.square().sum() + log_abs_det.sum()

            grad = torch.func.grad(loss, argnums=(0, 1, 2, 3, 4))
            return torch.func.vmap(grad, in_dims=(0, None, None, None, None))(x, *parameters)

        torch.testing.assert_close(per_sample(BOTH[name]), per_sample(REFERENCES[name]))

    @both
    def test_autocast_keeps_the_dtype(self, name) -> None:
        x, *parameters = inputs_of((3, 4), torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y, log_abs_det = BOTH[name](x, *parameters)
            half, log_half = BOTH[name](x.bfloat16(), *parameters)
        assert (y.dtype, log_abs_det.dtype) == (torch.float32, torch.float32)
        assert (half.dtype, log_half.dtype) == (torch.bfloat16, torch.float32)

    @both
    def test_parameters_of_another_dtype(self, name) -> None:
        x, *parameters = (v.requires_grad_() for v in inputs_of((3, 4), torch.float64))
        narrow = x.detach().half()
        y, log_abs_det = BOTH[name](narrow, *parameters)
        assert y.dtype == torch.float16
        assert torch.autograd.grad(log_abs_det.sum(), parameters)[0].dtype == torch.float64

    @both
    def test_meta(self, name) -> None:
        y, log_abs_det = BOTH[name](*(v.to("meta") for v in inputs_of((4, 3), torch.float32)))
        assert y.shape == (4, 3) and log_abs_det.shape == (4,) and log_abs_det.is_meta


class TestBadArguments:
    @both
    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({0: [1.0]}, TypeError, "must be a tensor, got list"),
            ({0: torch.ones(2, 3, dtype=torch.int64)}, ValueError, "must be float64.*got torch.int64"),
            ({0: torch.ones(3)}, ValueError, r"must have shape \(B, F, ...\), got \(3,\)"),
            ({0: torch.ones(2, 4)}, ValueError, r"centers must have shape \(4, K\), got \(3, 2\)"),
            ({1: torch.ones(3)}, ValueError, r"centers must have shape \(3, K\), got \(3,\)"),
            ({2: torch.ones(3, 1)}, ValueError, r"heights must have shape \(3, 2\), got \(3, 1\)"),
            ({3: 1.0}, TypeError, "steepness must be a tensor, got float"),
            ({4: torch.ones(3, 2)}, ValueError, r"slope must have shape \(3,\), got \(3, 2\)"),
            ({4: torch.ones(3, device="meta")}, ValueError, "slope must be on .* device cpu, got meta"),
        ],
    )
    def test_refused(self, change, error, message, name) -> None:
        values = dict(enumerate([torch.ones(2, 3), *3 * [torch.ones(3, 2)], torch.ones(3)])) | change
        with pytest.raises(error, match=f"{name}: .*{message}"):
            BOTH[name](*values.values())

    def test_what_would_be_unsafe_is_refused_below_python(self) -> None:
        x, centers, slope = torch.ones(2, 3), torch.ones(3, 2), torch.ones(3)
        ops = torch.ops.led_fast
        with pytest.raises(RuntimeError, match="must have shape"):
            ops.staircase(x, centers[:2], centers[:2], centers[:2], slope)
        with pytest.raises(RuntimeError, match="must be float64 for float64 inputs"):
            ops.staircase(x.double(), centers, centers, centers, slope)
        with pytest.raises(RuntimeError, match="grad_log_abs_det must have one value a sample"):
            ops.staircase_backward(x, centers, centers, centers, slope, None, torch.ones(3))
        with pytest.raises(RuntimeError, match="must have its shape"):
            ops.staircase_inverse_backward(x, centers, centers, centers, slope, torch.ones(2, 2), None)
        with pytest.raises(RuntimeError, match="must be float64 or float32"):
            ops.staircase_inverse_backward(x.half(), centers, centers, centers, slope, None, torch.ones(2))
