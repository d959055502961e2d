"""The log-determinant and inverse of one factorisation, against LAPACK's of each in float64."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from led_fast.ops.determinant import log_abs_det, log_abs_det_and_inverse


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def matrices(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype).requires_grad_()


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (7, 7), (40, 40), (3, 2, 5, 5)])
def test_values(shape):
    matrix = matrices(*shape)
    logs, transposed = log_abs_det_and_inverse(matrix)
    torch.testing.assert_close(logs, torch.linalg.slogdet(matrix).logabsdet)
    torch.testing.assert_close(transposed, torch.linalg.inv(matrix).mT)
    for found in (log_abs_det(matrix), log_abs_det(matrix.detach())):
        torch.testing.assert_close(found, logs)


@pytest.mark.parametrize("function", [log_abs_det, log_abs_det_and_inverse])
@pytest.mark.parametrize("shape", [(4, 4), (2, 3, 3)])
def test_gradients(function, shape):
    assert gradcheck(function, matrices(*shape))
    assert gradgradcheck(function, matrices(*shape))


def test_gradients_of_the_inverse_alone():
    assert gradcheck(lambda m: log_abs_det_and_inverse(m)[1], matrices(3, 3))


def test_transforms_and_plain_calls_agree():
    matrix = matrices(5, 5)
    weights = torch.randn(5, 5, dtype=torch.float64)

    def number(m):
        logs, transposed = log_abs_det_and_inverse(m)
        return logs + (weights * transposed).sum()

    (plain,) = torch.autograd.grad(number(matrix), matrix)
    torch.testing.assert_close(torch.func.grad(number)(matrix), plain)
    torch.testing.assert_close(torch.func.jacfwd(number)(matrix), plain)
    stacked = torch.stack([matrix, 2 * matrix])
    torch.testing.assert_close(torch.vmap(torch.func.grad(number))(stacked)[0], plain)


@pytest.mark.parametrize("function", [log_abs_det, lambda m: log_abs_det_and_inverse(m)[0]])
def test_singular(function):
    matrix = torch.tensor([[1.0, 2.0], [2.0, 4.0]], requires_grad=True)
    assert function(matrix) == -torch.inf == function(matrix.detach())
    assert not log_abs_det_and_inverse(matrix)[1].isfinite().any()


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4])
def test_errors_are_those_of_lapack(condition):
    """Of the inverse, of its products with vectors and of the logarithm, beside LAPACK's in float32."""
    n = 60
    left, right = (torch.linalg.qr(torch.randn(n, n, dtype=torch.float64)).Q for _ in range(2))
    exact = (
        left * torch.logspace(0, -torch.tensor(condition).log10().item(), n, dtype=torch.float64)
    ) @ right
    matrix = exact.float()
    exact = matrix.double()
    v = torch.randn(200, n)
    logs, transposed = log_abs_det_and_inverse(matrix)
    pairs = [
        (transposed.mT, torch.linalg.inv(matrix), torch.linalg.inv(exact)),
        (v @ transposed, torch.linalg.solve(matrix, v.mT).mT, torch.linalg.solve(exact, v.double().mT).mT),
        (v @ transposed.mT, torch.linalg.solve(matrix, v, left=False), v.double() @ torch.linalg.inv(exact)),
    ]
    pairs.append((logs, torch.linalg.slogdet(matrix).logabsdet, torch.linalg.slogdet(exact).logabsdet))
    for ours, theirs, truth in pairs:
        error, of_lapack = ((found.double() - truth).norm() for found in (ours, theirs))
        assert error <= 2 * of_lapack + 4 * torch.finfo(torch.float32).eps * (truth.norm() + n**0.5)
