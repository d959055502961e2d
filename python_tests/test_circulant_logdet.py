"""The circulant log-determinant against the dense Jacobian, plain PyTorch in fp64, and itself."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from thread_oracle import assert_same_bits_by_threads
from torch import nn

import led_fast
from led_fast import reference

_op = torch.ops.led_fast


def dense_log_abs_det(weight: torch.Tensor, grid: tuple[int, int]) -> float:
    """log|det| of the circular cross-correlation's (C H W) x (C H W) matrix, built tap by tap."""
    (channels, _, kh, kw), (rows, columns) = weight.shape, grid
    matrix = torch.zeros(channels, rows, columns, channels, rows, columns, dtype=weight.dtype)
    for y in range(rows):
        for x in range(columns):
            for a in range(kh):
                for b in range(kw):
                    matrix[:, y, x, :, (y + a - kh // 2) % rows, (x + b - kw // 2) % columns] += weight[
                        :, :, a, b
                    ]
    return torch.linalg.slogdet(matrix.reshape(channels * rows * columns, -1)).logabsdet.item()


def random_weight(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    return (weight / math.sqrt(shape[-1] * shape[-2] * shape[-3])).to(dtype)


def hostile_weight(kind: str, channels: int, seed: int) -> torch.Tensor:
    """Weights whose elimination needs good pivots, or whose symbols are ill-conditioned."""
    weight = random_weight(channels, channels, 3, 3, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    if kind == "zero centre":
        weight[:, :, 1, 1] = 0
    elif kind == "scaled rows":
        scales = torch.logspace(-6, 6, channels, dtype=torch.float64)[
            torch.randperm(channels, generator=generator)
        ]
        weight *= scales[:, None, None, None]
    elif kind == "ill-conditioned":
        u, v = (
            torch.linalg.qr(random_weight(channels, channels, 1, 1, seed=seed + i)[:, :, 0, 0])[0]
            for i in (1, 2)
        )
        weight *= 1e-5
        weight[:, :, 1, 1] += u @ torch.diag(torch.logspace(0, -4, channels, dtype=torch.float64)) @ v
    return weight.float()


def gradient(function, weight: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    weight = weight.detach().requires_grad_()
    return torch.autograd.grad(function(weight, grid).sum(), weight)[0]


GRIDS = [(1, 1), (1, 6), (7, 1), (2, 2), (3, 5), (4, 4), (4, 7), (6, 3)]
KERNELS = [(1, 1), (2, 2), (3, 3), (1, 4), (5, 2), (5, 5)]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_equals_the_dense_jacobian(channels, kernel, grid):
    weight = random_weight(channels, channels, *kernel)
    expected = dense_log_abs_det(weight, grid)
    assert led_fast.circulant_logdet(weight, grid).item() == pytest.approx(expected, rel=1e-10, abs=1e-10)
    assert reference.circulant_logdet(weight, grid).item() == pytest.approx(expected, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("channels", [3, 4, 7, 8, 9, 16, 17, 31, 33])
@pytest.mark.parametrize("grid", [(4, 4), (5, 3)], ids=str)
def test_equals_the_dense_jacobian_at_many_channels(channels, grid):
    weight = random_weight(channels, channels, 3, 3)
    expected = dense_log_abs_det(weight, grid)
    assert abs(expected) > 0.1
    assert led_fast.circulant_logdet(weight, grid).item() == pytest.approx(expected, rel=1e-10)


def test_is_the_log_abs_det_of_conv2d():
    conv = nn.Conv2d(2, 2, 3, padding="same", padding_mode="circular", bias=False, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: conv(x[None])[0], torch.randn(2, 4, 5, dtype=torch.float64)
    )
    expected = torch.linalg.slogdet(jacobian.reshape(40, 40)).logabsdet.item()
    assert led_fast.circulant_logdet(conv.weight, (4, 5)).item() == pytest.approx(expected, rel=1e-10)


# Every edge of the elimination: panels of 4, blocks of 16 from 48 channels on, tiles of 3 x 4.
@pytest.mark.parametrize("channels", [1, 2, 3, 6, 13, 18, 32, 47, 48, 50, 65, 131])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_value_and_gradient_equal_the_reference(channels, dtype):
    weight, grid = random_weight(2, channels, channels, 3, 2, dtype=dtype), (5, 6)
    wanted = reference.circulant_logdet(weight.double(), grid)
    wanted_gradient = gradient(reference.circulant_logdet, weight.double(), grid)
    tolerance = 1e-11 if dtype == torch.float64 else 1e-4
    with torch.no_grad():
        value = led_fast.circulant_logdet(weight, grid)
    differentiated = led_fast.circulant_logdet(weight.clone().requires_grad_(), grid)
    torch.testing.assert_close(value.double(), wanted, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(differentiated.double(), wanted, rtol=tolerance, atol=tolerance)
    error = gradient(led_fast.circulant_logdet, weight, grid).double() - wanted_gradient
    assert error.norm() <= 10 * tolerance * wanted_gradient.norm()


@pytest.mark.parametrize("grid", [(1, 1), (1, 2), (3, 1)], ids=str)
def test_few_frequencies_of_large_matrices(grid):
    """One or two frequencies of many channels take PyTorch's own factorisation, with the same conventions."""
    weight = random_weight(4, 66, 66, 2, 3)
    wanted = reference.circulant_logdet(weight[:2], grid)
    torch.testing.assert_close(led_fast.circulant_logdet(weight[:2], grid), wanted)
    weight[1, 5], weight[2, 0, 1, 1, 1], weight[3, 3, 7, 0, 2] = 0, math.nan, math.inf
    value = led_fast.circulant_logdet(weight.requires_grad_(), grid)
    (grad,) = torch.autograd.grad(value[:2].clamp(min=-1e9).sum(), weight)
    torch.testing.assert_close(value[0], wanted[0])
    assert value[1] == -math.inf and value[2:].isnan().all()
    assert grad[0].ne(0).any() and grad[1].eq(0).all()


@given(
    channels=st.integers(1, 16),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    batch=st.lists(st.integers(1, 3), max_size=2),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=1000, deadline=None, derandomize=True)
def test_random_shapes_agree_with_the_reference(channels, kernel, grid, batch, dtype, seed):
    weight = random_weight(*batch, channels, channels, *kernel, dtype=dtype, seed=seed)
    result = led_fast.circulant_logdet(weight, grid)
    wanted = reference.circulant_logdet(weight.double(), grid)
    assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert result.shape == tuple(batch)
    if dtype == torch.float64:
        torch.testing.assert_close(result, wanted, rtol=1e-10, atol=1e-9)
    else:
        smallest = torch.linalg.svdvals(reference.circulant_symbols(weight.double(), grid))[..., -1].amin(
            (-2, -1)
        )
        sensitivity = grid[0] * grid[1] * channels * 2e-6 / smallest.clamp(max=1)
        assert ((result.double() - wanted).abs() <= sensitivity + 1e-6 * wanted.abs()).all()


@pytest.mark.parametrize("kind", ["normal", "zero centre", "scaled rows", "ill-conditioned"])
@pytest.mark.parametrize("channels", [8, 24, 64])
def test_float32_is_as_accurate_as_plain_pytorch(kind, channels):
    """Median error over many weights at most twice plain PyTorch's: a single error is a draw of chance."""
    grid, ours, plain, ours_gradient, plain_gradient = (4, 4), [], [], [], []
    for seed in range(24 if channels < 64 else 10):
        weight = hostile_weight(kind, channels, seed)
        exact, exact_gradient = (
            f(reference.circulant_logdet, weight.double(), grid) for f in (lambda f, w, g: f(w, g), gradient)
        )
        ours.append(led_fast.circulant_logdet(weight, grid) - exact)
        plain.append(reference.circulant_logdet(weight, grid) - exact)
        size = exact_gradient.norm()
        ours_gradient.append(
            (gradient(led_fast.circulant_logdet, weight, grid) - exact_gradient).norm() / size
        )
        plain_gradient.append(
            (gradient(reference.circulant_logdet, weight, grid) - exact_gradient).norm() / size
        )
    median = lambda values: torch.stack(values).abs().median()  # noqa: E731
    rounding = abs(exact.item()) * 2**-23
    assert median(ours) <= 2 * median(plain) + rounding
    assert median(ours_gradient) <= 2 * median(plain_gradient) + 2**-22


def test_gradcheck_and_gradgradcheck():
    weight = random_weight(2, 2, 2, 2, 3).requires_grad_()
    for grid in [(3, 4), (1, 1)]:
        function = lambda w, grid=grid: led_fast.circulant_logdet(w, grid)  # noqa: E731
        assert torch.autograd.gradcheck(function, weight)
        assert torch.autograd.gradgradcheck(function, weight)


def test_operators_called_directly_are_differentiable():
    weight = random_weight(2, 2, 2, 2).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda w: _op.circulant_logdet(w, 3, 4), weight)
    assert torch.autograd.gradcheck(lambda w: _op.circulant_logdet_with_grad(w, 3, 4), weight)


@pytest.mark.parametrize("op", [_op.circulant_logdet, _op.circulant_logdet_with_grad], ids=str)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(op, requires_grad):
    weight = random_weight(2, 3, 3, 3, 3, dtype=torch.float32).requires_grad_(requires_grad)
    torch.library.opcheck(op.default, (weight, 4, 5))


def test_compiles_in_one_graph():
    def loss(weight):
        return led_fast.circulant_logdet(weight, (4, 5)).square().sum()

    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in [(3, 3, 3, 3), (2, 4, 4, 3, 3), (2, 5, 5, 3, 3)]:
        weight = random_weight(*shape).requires_grad_()
        torch.testing.assert_close(compiled(weight), loss(weight))
        torch.testing.assert_close(*(torch.autograd.grad(f(weight), weight)[0] for f in (compiled, loss)))


def test_vmap():
    weights = random_weight(4, 3, 3, 3, 3)
    function = lambda w: led_fast.circulant_logdet(w, (4, 4))  # noqa: E731
    torch.testing.assert_close(torch.vmap(function)(weights), function(weights))
    torch.testing.assert_close(torch.vmap(function, in_dims=2)(weights.movedim(0, 2)), function(weights))
    differentiable = weights.clone().requires_grad_()
    (grad,) = torch.autograd.grad(torch.vmap(function)(differentiable).sum(), differentiable)
    torch.testing.assert_close(grad, gradient(led_fast.circulant_logdet, weights, (4, 4)))
    per_sample = torch.vmap(torch.func.grad(function))(weights)
    torch.testing.assert_close(per_sample, grad)
    hessian = torch.func.jacrev(torch.func.jacrev(function))(weights[0])
    torch.testing.assert_close(hessian, torch.autograd.functional.hessian(function, weights[0]))


def test_leading_dimensions_are_a_batch():
    weights = random_weight(2, 3, 5, 5, 3, 3)
    result = led_fast.circulant_logdet(weights, (4, 3))
    assert result.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            assert result[i, j] == led_fast.circulant_logdet(weights[i, j], (4, 3))
    assert led_fast.circulant_logdet(weights[:0], (4, 3)).shape == (0, 3)
    assert led_fast.circulant_logdet(weights[..., :0, :0, :, :], (4, 3)).eq(0).all()


@pytest.mark.parametrize("layout", ["transposed", "sliced", "expanded", "channels_last"])
def test_strides_do_not_matter(layout):
    base = random_weight(6, 6, 3, 3)
    weight = {
        "transposed": lambda: base.transpose(-1, -2).transpose(0, 1),
        "sliced": lambda: random_weight(12, 6, 3, 6)[::2, :, :, ::2],
        "expanded": lambda: base[:, :, :, :1].expand(-1, -1, -1, 3),
        "channels_last": lambda: base.to(memory_format=torch.channels_last),
    }[layout]()
    dense = weight.contiguous().clone(memory_format=torch.contiguous_format)
    assert led_fast.circulant_logdet(weight, (5, 4)) == led_fast.circulant_logdet(dense, (5, 4))
    assert torch.equal(*(gradient(led_fast.circulant_logdet, w, (5, 4)) for w in (weight, dense)))


def test_equal_for_any_number_of_threads():
    weight = random_weight(2, 20, 20, 3, 3, dtype=torch.float32)

    def results():
        value = led_fast.circulant_logdet(weight, (17, 12))
        return value, gradient(led_fast.circulant_logdet, weight, (17, 12))

    assert_same_bits_by_threads(results, (1, 2, 3, 7))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precisions_are_computed_in_float32(dtype):
    weight = random_weight(5, 5, 3, 3).to(dtype).requires_grad_()
    result = led_fast.circulant_logdet(weight, (4, 4))
    assert result.dtype == torch.float32
    assert torch.equal(result, led_fast.circulant_logdet(weight.float(), (4, 4)))
    (grad,) = torch.autograd.grad(result, weight)
    assert grad.dtype == dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(led_fast.circulant_logdet(weight.float(), (4, 4)), result)


def test_singular_symbols_give_minus_infinity_and_spare_the_others():
    """A zero row is singular everywhere, a high-pass kernel at frequency 0 alone."""
    weights = random_weight(3, 4, 4, 3, 3).requires_grad_()
    weights.data[1, 2] = 0
    result = led_fast.circulant_logdet(weights, (4, 4))
    assert result[1] == -math.inf and result[[0, 2]].isfinite().all()
    (grad,) = torch.autograd.grad(result[[0, 2]].sum() + result[1].clamp(min=-1e9), weights)
    assert grad.isfinite().all() and grad[1].eq(0).all() and grad[0].ne(0).any()

    high_pass = torch.tensor([[[[1.0, -1.0]]]], dtype=torch.float64, requires_grad=True)
    value = led_fast.circulant_logdet(high_pass, (1, 5))
    assert value == -math.inf
    value.backward()
    frequencies = torch.arange(1, 5, dtype=torch.float64) * 2 * math.pi / 5
    wave = torch.exp(1j * frequencies)
    expected = torch.stack([(1 / (1 - wave)).real.sum(), (wave / (1 - wave)).real.sum()])
    torch.testing.assert_close(high_pass.grad.flatten(), expected)


def test_a_singular_frequency_adds_nothing_to_the_gradient():
    weight = torch.zeros(2, 2, 1, 2, dtype=torch.float64)
    weight[0, 0, 0] = torch.tensor([1.0, -1.0])  # singular at frequency 0, where the other channel is not
    weight[1, 1, 0] = torch.tensor([1.0, 0.5])
    regular = lambda w, grid: 2 * torch.linalg.slogdet(reference.circulant_symbols(w, grid)[:, 1:])[1]  # noqa: E731
    wanted = gradient(regular, weight, (1, 5))
    torch.testing.assert_close(gradient(led_fast.circulant_logdet, weight, (1, 5)), wanted)


def test_second_derivative_at_singular_symbols_is_finite():
    weight = torch.tensor([[[[1.0, -1.0]]]], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(led_fast.circulant_logdet(weight, (1, 5)), weight, create_graph=True)
    (second,) = torch.autograd.grad(grad.square().sum(), weight)
    assert second.isfinite().all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_non_finite_weights_give_nan_in_their_own_result(bad, dtype):
    weights = random_weight(3, 5, 5, 3, 3, dtype=dtype)
    weights[1, 4, 0, 2, 1] = bad
    result = led_fast.circulant_logdet(weights.requires_grad_(), (4, 4))
    assert result.isnan().tolist() == [False, True, False]
    assert led_fast.circulant_logdet(weights.detach(), (4, 4)).isnan().tolist() == [False, True, False]
    (grad,) = torch.autograd.grad(result.sum(), weights)
    assert grad[1].isnan().all() and grad[[0, 2]].isfinite().all()


@pytest.mark.parametrize("scale", [1e-30, 1e-4, 1e4, 1e30])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_scales_shift_the_result(scale, dtype):
    weight, grid = random_weight(9, 9, 3, 3, dtype=dtype), (4, 4)
    wanted = led_fast.circulant_logdet(weight, grid) + 9 * 16 * math.log(scale)
    torch.testing.assert_close(led_fast.circulant_logdet(weight * scale, grid), wanted, rtol=2e-6, atol=1e-5)


def test_extreme_float64_scales():
    weight = random_weight(3, 3, 3, 3) * 1e-200
    wanted = led_fast.circulant_logdet(weight * 1e200, (3, 3)) - 27 * math.log(1e200)
    torch.testing.assert_close(led_fast.circulant_logdet(weight, (3, 3)), wanted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_symbols_that_overflow_give_no_number(dtype):
    weight = random_weight(3, 3, 3, 3, dtype=dtype).sign() * torch.finfo(dtype).max
    assert not led_fast.circulant_logdet(weight, (4, 4)).isfinite()


def test_the_input_is_not_written_to():
    weight = random_weight(5, 5, 3, 3)
    before = weight.clone()
    gradient(led_fast.circulant_logdet, weight, (4, 4))
    assert torch.equal(weight, before)


@pytest.mark.parametrize(
    ("weight", "grid", "error", "message"),
    [
        (
            torch.zeros(2, 3, 3, 3),
            (4, 4),
            ValueError,
            r"weight must have shape \(\.\.\., C, C, kh, kw\), got \(2, 3, 3, 3\)",
        ),
        (torch.zeros(3, 3, 3), (4, 4), ValueError, r"weight must have shape .* got \(3, 3, 3\)"),
        (torch.zeros(3, 3, 0, 3), (4, 4), ValueError, r"weight must have shape"),
        (
            torch.zeros(3, 3, 3, 3, dtype=torch.int64),
            (4, 4),
            ValueError,
            "weight must be float64, .* got torch.int64",
        ),
        (torch.zeros(3, 3, 3, 3, dtype=torch.complex64), (4, 4), ValueError, "got torch.complex64"),
        ([1.0], (4, 4), TypeError, "weight must be a tensor, got list"),
        (
            torch.zeros(3, 3, 3, 3),
            (4, 0),
            ValueError,
            r"grid must be two positive integers \(H, W\), got \(4, 0\)",
        ),
        (torch.zeros(3, 3, 3, 3), (4, 4, 4), ValueError, "grid must be two positive integers"),
        (torch.zeros(3, 3, 3, 3), (4.0, 4), TypeError, r"grid must be two integers \(H, W\), got \(4.0, 4\)"),
        (torch.zeros(3, 3, 3, 3), None, TypeError, "grid must be two integers"),
    ],
)
def test_bad_arguments(weight, grid, error, message):
    with pytest.raises(error, match=f"circulant_logdet: .*{message}"):
        led_fast.circulant_logdet(weight, grid)


def test_meta_tensors_and_no_grad():
    weight = torch.empty(7, 3, 3, 5, 5, device="meta")
    assert led_fast.circulant_logdet(weight, (8, 8)).shape == (7,)
    weight = random_weight(3, 3, 3, 3).requires_grad_()
    with torch.no_grad():
        assert not led_fast.circulant_logdet(weight, (4, 4)).requires_grad


def test_saved_memory_is_of_the_weights_size():
    weight, saved = random_weight(4, 4, 3, 3).requires_grad_(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        led_fast.circulant_logdet(weight, (64, 64))
    assert sum(saved) <= 2 * weight.numel()
