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


@pytest.mark.parametrize(
    "shape", [(1, 1), (2, 2), (7, 7), (16, 16), (17, 17), (40, 40), (3, 2, 5, 5), (0, 3, 3)]
)
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


class TestSmall:
    """The kernel for matrices of few rows."""

    @pytest.mark.parametrize("n", [1, 2, 5, 16])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_is_as_good_as_lapack(self, n, dtype):
        matrix = torch.randn(50, n, n, dtype=torch.float64).to(dtype)
        logs, transposed = torch.ops.led_fast.small_inverse(matrix)
        one = torch.eye(n, dtype=torch.float64)
        own, lapack = (
            (matrix.double() @ found.double() - one).abs().amax((1, 2))
            for found in (transposed.mT, torch.linalg.inv(matrix))
        )
        rounding = torch.finfo(dtype).eps * torch.linalg.cond(matrix.double())
        assert (own <= 2 * lapack + 4 * rounding).all()
        torch.testing.assert_close(logs, torch.linalg.slogdet(matrix.double()).logabsdet.to(dtype))

    def test_takes_the_largest_pivot(self):
        matrix = torch.tensor([[1e-9, 1.0], [1.0, 1.0]])
        logs, transposed = torch.ops.led_fast.small_inverse(torch.stack([matrix, matrix.flip(0)]))
        torch.testing.assert_close(logs, torch.zeros(2))
        torch.testing.assert_close(transposed[0], torch.tensor([[-1.0, 1.0], [1.0, 0.0]]))

    def test_of_any_strides(self):
        matrix = torch.randn(3, 4, 4).mT[::2]
        torch.testing.assert_close(torch.ops.led_fast.small_inverse(matrix)[1], torch.linalg.inv(matrix).mT)

    def test_what_is_not_finite_stays_so(self):
        zeros, broken = torch.zeros(2, 2), torch.tensor([[0.0, torch.nan], [0.0, 1.0]])
        logs, transposed = torch.ops.led_fast.small_inverse(torch.stack([zeros, broken, broken + 1]))
        assert logs[0] == -torch.inf and logs[1:].isnan().all() and not transposed.isfinite().any()

    def test_refuses_what_is_no_square(self):
        with pytest.raises(RuntimeError, match=r"must have shape \(..., n, n\)"):
            torch.ops.led_fast.small_inverse(torch.zeros(2, 3))
