"""The exact mode of x⊥ against the pseudo-inverse of the layer's matrix."""

import pytest
import torch
from perpendicular_cases import CASES, case, dense_matrix

from led_fast import perpendicular


def test_direction_is_exact_for_orthonormal_rows():
    rows = torch.linalg.qr(torch.randn(12, 5, dtype=torch.float64)).Q.T
    x = torch.randn(4, 12, dtype=torch.float64)
    torch.testing.assert_close(perpendicular(x, 3 * rows), perpendicular(x, 3 * rows, mode="exact"))
    kernel = rows.view(5, 3, 2, 2)
    x = torch.randn(4, 3, 6, 6, dtype=torch.float64)  # patches that do not overlap
    direction, exact = (perpendicular(x, kernel, stride=2, mode=mode) for mode in ("direction", "exact"))
    torch.testing.assert_close(direction, exact, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", ["image", "grouped", "dilated"])
def test_exact_equals_the_projection(name):
    x, weight, g = CASES[name]()
    matrix = dense_matrix(x.shape, weight, g)
    wanted = x.flatten(1) - (torch.linalg.pinv(matrix) @ (matrix @ x.flatten(1).T)).T
    torch.testing.assert_close(
        perpendicular(x, weight, **g, mode="exact").flatten(1), wanted, atol=1e-8, rtol=1e-8
    )


@pytest.mark.parametrize("outs", [3, 7, 9])  # fewer rows than columns, as many, more
def test_exact_linear_equals_the_projection(outs):
    x, weight = torch.randn(4, 7, dtype=torch.float64), torch.randn(outs, 7, dtype=torch.float64)
    wanted = x - x @ torch.linalg.pinv(weight) @ weight if outs < 7 else torch.zeros_like(x)
    torch.testing.assert_close(perpendicular(x, weight, mode="exact"), wanted, atol=1e-6, rtol=1e-6)
    weight[1] = weight[0]  # dependent rows
    wanted = x - x @ torch.linalg.pinv(weight) @ weight
    torch.testing.assert_close(perpendicular(x, weight, mode="exact"), wanted, atol=1e-6, rtol=1e-6)


def test_exact_gradients():
    x, weight, g = case(2, (6, 6), 3, (2, 2), batch=2, stride=2)
    x, weight = x.requires_grad_(), weight.requires_grad_()
    function = lambda x, w: perpendicular(x, w, **g, mode="exact")  # noqa: E731
    assert torch.autograd.gradcheck(function, (x, weight), fast_mode=True, atol=1e-4)
    assert torch.autograd.gradgradcheck(function, (x, weight), fast_mode=True, atol=1e-4)
    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in [(3, 7), (4, 7)]]
    assert torch.autograd.gradcheck(lambda x, w: perpendicular(x, w, mode="exact"), inputs)


def test_exact_of_zeros_is_finite():
    for x, weight in [
        (torch.zeros(2, 2, 4, 4), torch.randn(1, 2, 2, 2)),
        (torch.ones(2, 2, 4, 4), torch.zeros(1, 2, 2, 2)),
    ]:
        x, weight = x.requires_grad_(), weight.requires_grad_()
        rest = perpendicular(x, weight, mode="exact")
        torch.testing.assert_close(rest, x)
        assert all(v.isfinite().all() for v in torch.autograd.grad(rest.sum(), (x, weight)))
    torch.testing.assert_close(
        perpendicular(torch.ones(2, 3), torch.zeros(1, 3), mode="exact"), torch.ones(2, 3)
    )


def test_exact_says_when_it_does_not_converge(monkeypatch):
    monkeypatch.setattr("led_fast.ops.row_space.MAX_ITERATIONS", 2)
    x, weight, g = CASES["image"]()
    with pytest.raises(RuntimeError, match=r"residual of .* in 2 steps"):
        perpendicular(x, weight, **g, mode="exact")
