"""The inverse of circular convolutions against dense matrices, plain PyTorch in fp64, and the layer itself."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_circulant_logdet import hostile_weight
from thread_oracle import assert_same_bits_by_threads

import led_fast
from led_fast import nn, ops, reference

_op = torch.ops.led_fast.circular_conv_inverse.default
_backward_op = torch.ops.led_fast.circular_conv_inverse_backward.default


def random_weight(channels, kernel, dtype=torch.float64, seed=0):
    """An orthogonal matrix at one tap and Gaussian taps that leave every symbol well-conditioned."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(channels, channels, *kernel, generator=generator, dtype=torch.float64)
    weight *= 0.1 / math.sqrt(channels * kernel[0] * kernel[1])
    square = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
    weight[:, :, -1, 0] += torch.linalg.qr(square)[0]
    return weight.to(dtype)


def random_images(*shape, dtype=torch.float64, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def dense_matrix(weight, grid):
    """The (C H W) x (C H W) matrix of the convolution, tap by tap."""
    (channels, _, kh, kw), (rows, columns) = weight.shape, grid
    matrix = torch.zeros(channels, rows, columns, channels, rows, columns, dtype=weight.dtype)
    for y in range(rows):
        for x in range(columns):
            for a in range(kh):
                for b in range(kw):
                    at = (y + a - (kh - 1) // 2) % rows, (x + b - (kw - 1) // 2) % columns
                    matrix[:, y, x, :, at[0], at[1]] += weight[:, :, a, b]
    return matrix.reshape(channels * rows * columns, -1)


def gradients(function, y, weight, grad_x, grad_log):
    y, weight = y.detach().requires_grad_(), weight.detach().requires_grad_()
    return torch.autograd.grad(function(y, weight), [y, weight], [grad_x, grad_log])


def reference_per_sample(y, weight, transpose=False):
    x, log_abs_det = reference.circular_conv_inverse(y, weight, transpose)
    return x, log_abs_det.expand(len(y))


def relative_error(ours, exact):
    return ((ours.double() - exact).norm() / exact.norm()).item()


GRIDS = [(1, 1), (1, 6), (7, 1), (2, 2), (3, 5), (4, 4), (4, 7), (6, 3)]
KERNELS = [(1, 1), (2, 2), (3, 3), (1, 4), (5, 2), (8, 7)]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("transpose", [False, True])
def test_solves_with_the_dense_matrix(kernel, grid, transpose):
    weight, y = random_weight(2, kernel), random_images(3, 2, *grid)
    matrix = dense_matrix(weight, grid)
    wanted = torch.linalg.solve(matrix.mT if transpose else matrix, y.flatten(1).mT).mT
    for function in (led_fast.circular_conv_inverse, reference_per_sample):
        x, log_abs_det = function(y, weight, transpose)
        torch.testing.assert_close(x, wanted.view_as(y), rtol=1e-10, atol=1e-10)
        exact = -torch.linalg.slogdet(matrix).logabsdet.expand(3)
        torch.testing.assert_close(log_abs_det, exact, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kernel", [(3, 3), (2, 4), (1, 5), (9, 6)], ids=str)
def test_undoes_the_layer(kernel):
    layer = nn.CircularConv2d(5, kernel, bias=False).double()
    x = random_images(3, 5, 6, 5)
    y, log_abs_det = layer(x)
    back, inverse_log_abs_det = led_fast.circular_conv_inverse(y, layer.weight)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(inverse_log_abs_det, -log_abs_det)


def test_the_transposed_map_is_the_adjoint():
    weight, y, z = random_weight(3, (2, 3)), random_images(2, 3, 4, 6), random_images(2, 3, 4, 6, seed=2)
    left = (led_fast.circular_conv_inverse(y, weight)[0] * z).sum()
    right = (y * led_fast.circular_conv_inverse(z, weight, transpose=True)[0]).sum()
    torch.testing.assert_close(left, right)


# Whole and broken vectors of frequencies, samples and channels; prime factors 2, 3, 4, 5, 7 and 11 of the grid.
@pytest.mark.parametrize("channels", [1, 3, 6, 13, 16, 17, 33])
@pytest.mark.parametrize(
    ("samples", "grid"), [(1, (4, 4)), (5, (5, 6)), (16, (7, 9)), (33, (2, 11)), (17, (16, 16))], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_value_and_gradients_equal_the_reference(channels, samples, grid, dtype):
    weight, y = random_weight(channels, (3, 2), dtype), random_images(samples, channels, *grid, dtype=dtype)
    grad_x, grad_log = random_images(*y.shape, dtype=dtype, seed=2), random_images(samples, dtype=dtype)
    wide = [t.double() for t in (y, weight, grad_x, grad_log)]
    exact, exact_gradients = (
        reference_per_sample(*wide[:2]),
        gradients(reference_per_sample, *wide),
    )
    tolerance = 1e-13 if dtype == torch.float64 else 4e-6
    with torch.no_grad():
        plain = led_fast.circular_conv_inverse(y, weight)
    differentiated = led_fast.circular_conv_inverse(y.clone().requires_grad_(), weight)
    assert torch.equal(plain[0], differentiated[0]) and torch.equal(plain[1], differentiated[1])
    assert relative_error(plain[0], exact[0]) < tolerance
    size = exact[1].abs().max() + channels * grid[0] * grid[1]
    assert (plain[1].double() - exact[1]).abs().max() < tolerance * size
    found = gradients(led_fast.circular_conv_inverse, y, weight, grad_x, grad_log)
    for gradient, wanted in zip(found, exact_gradients, strict=True):
        assert gradient.dtype == dtype and relative_error(gradient, wanted) < 2 * tolerance


@given(
    channels=st.integers(1, 9),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    grid=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    samples=st.integers(1, 20),
    transpose=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_random_shapes_agree_with_the_reference(channels, kernel, grid, samples, transpose, dtype, seed):
    weight = random_weight(channels, kernel, dtype, seed)
    y = random_images(samples, channels, *grid, dtype=dtype, seed=seed)
    x, log_abs_det = led_fast.circular_conv_inverse(y, weight, transpose)
    exact, exact_log = reference.circular_conv_inverse(y.double(), weight.double(), transpose)
    assert x.dtype == dtype and x.shape == y.shape and x.is_contiguous()
    assert log_abs_det.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = {torch.float64: 1e-13, torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    assert relative_error(x, exact) < tolerance
    size = max(1, exact_log.abs().item())
    assert (log_abs_det.double() - exact_log).abs().max() < (1e-12 if dtype == torch.float64 else 2e-5) * size


@pytest.mark.parametrize("kind", ["normal", "zero centre", "scaled rows", "ill-conditioned"])
@pytest.mark.parametrize("channels", [8, 24, 64])
def test_float32_is_as_accurate_as_plain_pytorch(kind, channels):
    """Median errors of a round trip, at most twice plain PyTorch's and what one rounding of y makes of x."""
    ours, plain, rounding = [], [], []
    for seed in range(20):
        weight, x = hostile_weight(kind, channels, seed), random_images(8, channels, 4, 4, seed=seed)
        matrix_y = torch.nn.functional.conv2d(
            torch.nn.functional.pad(x, [1] * 4, mode="circular"), weight.double()
        )
        y, grad_x, no_log = matrix_y.float(), random_images(*x.shape, seed=seed + 1), torch.zeros(8)
        exact = reference_per_sample(y.double(), weight.double())[0]
        turned = y.double() * (1 + 2**-24 * random_images(*x.shape, seed=seed + 2).sign())
        wanted = [
            exact,
            *gradients(reference_per_sample, y.double(), weight.double(), grad_x, no_log.double()),
        ]
        for errors, function in ((ours, led_fast.circular_conv_inverse), (plain, reference_per_sample)):
            found = [function(y, weight)[0], *gradients(function, y, weight, grad_x.float(), no_log)]
            errors.append([relative_error(f, w) for f, w in zip(found, wanted, strict=True)])
        rounding.append(relative_error(reference_per_sample(turned, weight.double())[0], exact) + 2**-22)
    medians = [torch.tensor(values).median(0).values for values in (ours, plain)]
    assert (medians[0] <= 2 * medians[1] + torch.tensor(rounding).median()).all()


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("kernel", [(3, 2), (4, 1)], ids=str)
def test_derivatives_of_any_order_in_both_modes(kernel, transpose):
    y, weight = random_images(2, 2, 2, 3).requires_grad_(), random_weight(2, kernel).requires_grad_()
    function = lambda y, w: led_fast.circular_conv_inverse(y, w, transpose)  # noqa: E731
    assert torch.autograd.gradcheck(function, (y, weight), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(function, (y, weight), check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("which", ["y", "weight", "x alone", "log_abs_det alone"])
def test_each_gradient_alone(which):
    y, weight = random_images(3, 4, 5, 4), random_weight(4, (3, 3))
    grad_x, grad_log = random_images(*y.shape, seed=5), random_images(3, seed=6)
    if which == "x alone":
        grad_log = torch.zeros(3, dtype=torch.float64)
    inputs = {"y": [y], "weight": [weight]}.get(which, [weight])
    found = []
    for function in (led_fast.circular_conv_inverse, reference_per_sample):
        for leaf in inputs:
            leaf.requires_grad_()
        x, log_abs_det = function(y, weight)
        outputs = [(x * grad_x).sum(), (log_abs_det * grad_log).sum()]
        chosen = {"x alone": outputs[:1], "log_abs_det alone": outputs[1:]}.get(which, outputs)
        found.append(torch.autograd.grad(chosen if which != "y" else outputs[:1], inputs))
    torch.testing.assert_close(*found)


def test_no_gradient_of_log_abs_det_to_y():
    y = random_images(3, 4, 5, 4).requires_grad_()
    log_abs_det = led_fast.circular_conv_inverse(y, random_weight(4, (3, 3)))[1]
    (grad,) = torch.autograd.grad(log_abs_det.sum(), y, allow_unused=True)
    assert grad is None


@pytest.mark.parametrize("keep", [False, True])
def test_opcheck(keep):
    y = random_images(3, 3, 4, 5, dtype=torch.float32).requires_grad_(keep)
    torch.library.opcheck(_op, (y, random_weight(3, (3, 3), torch.float32).requires_grad_(keep), keep))


def test_opcheck_of_the_backward_pass():
    y, weight = random_images(3, 3, 4, 5), random_weight(3, (3, 3))
    _, _, solved, inverses = _op(y, weight, True)
    grad_log = torch.tensor(2.0, dtype=torch.float64)
    for needs in [(True, True), (False, True), (True, False)]:
        torch.library.opcheck(_backward_op, (y, grad_log, y, weight, solved, inverses, *needs))


def test_torch_func():
    y, weight = random_images(3, 2, 4, 5), random_weight(2, (3, 3))
    ys, weights = (
        random_images(4, 3, 2, 4, 5),
        torch.stack([random_weight(2, (3, 3), seed=s) for s in range(4)]),
    )
    function = led_fast.circular_conv_inverse
    for args, dims in (((ys, weights), (0, 0)), ((ys, weight), (0, None)), ((y, weights), (None, 0))):
        x, log_abs_det = torch.vmap(function, in_dims=dims)(*args)
        for i in range(4):
            wanted = function(*(a if d is None else a[i] for a, d in zip(args, dims, strict=True)))
            torch.testing.assert_close((x[i], log_abs_det[i]), wanted)
    loss = lambda y, w: function(y, w)[0].pow(3).sum() + function(y, w)[1].square().sum()  # noqa: E731
    per_image = torch.vmap(torch.func.grad(loss, argnums=(0, 1)), in_dims=(0, None))(ys, weight)
    for i in range(4):
        for found, wanted in zip(
            per_image, torch.func.grad(loss, argnums=(0, 1))(ys[i], weight), strict=True
        ):
            torch.testing.assert_close(found[i], wanted)
    hessian = torch.func.hessian(loss, argnums=1)(y, weight)
    torch.testing.assert_close(hessian, torch.autograd.functional.hessian(lambda w: loss(y, w), weight))


def test_compiles_in_one_graph():
    def loss(y, weight):
        x, log_abs_det = led_fast.circular_conv_inverse(y, weight)
        return x.pow(3).sum() + log_abs_det.sum()

    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in [(3, 2, 4, 5), (5, 2, 6, 3)]:
        leaves = random_images(*shape).requires_grad_(), random_weight(2, (3, 3)).requires_grad_()
        torch.testing.assert_close(compiled(*leaves), loss(*leaves))
        torch.testing.assert_close(*(torch.autograd.grad(f(*leaves), leaves) for f in (compiled, loss)))


def test_equal_for_any_number_of_threads():
    weight, y = random_weight(20, (3, 3), torch.float32), random_images(33, 20, 17, 12, dtype=torch.float32)
    grad_log = random_images(33, dtype=torch.float32)

    def results():
        value = led_fast.circular_conv_inverse(y, weight)
        return [*value, *gradients(led_fast.circular_conv_inverse, y, weight, y, grad_log)]

    assert_same_bits_by_threads(results, (1, 2, 3, 7))


def test_many_symbols_are_inverted_in_parts():
    """33 MiB of inverse symbols, which do not wait all together."""
    weight, y = random_weight(96, (3, 3), torch.float32), random_images(2, 96, 31, 31, dtype=torch.float32)
    with torch.no_grad():
        x, log_abs_det = led_fast.circular_conv_inverse(y, weight)
    exact, exact_log = reference.circular_conv_inverse(y.double(), weight.double())
    assert relative_error(x, exact) < 4e-6
    torch.testing.assert_close(log_abs_det[0].double(), exact_log, rtol=0, atol=1e-7 * 96 * 31 * 31)


@pytest.mark.parametrize("layout", ["channels_last", "sliced", "expanded"])
def test_strides_do_not_matter(layout):
    base = random_images(4, 4, 6, 6)
    y = {
        "channels_last": lambda: base.to(memory_format=torch.channels_last),
        "sliced": lambda: random_images(8, 4, 6, 12)[::2, :, :, ::2],
        "expanded": lambda: base[:, :, :, :1].expand(-1, -1, -1, 6),
    }[layout]()
    weight = random_weight(4, (3, 3)).transpose(0, 1).transpose(2, 3)
    dense = [t.clone(memory_format=torch.contiguous_format) for t in (y, weight)]
    for found, wanted in (
        (led_fast.circular_conv_inverse(y, weight), led_fast.circular_conv_inverse(*dense)),
        (
            gradients(led_fast.circular_conv_inverse, y, weight, y, base[:, 0, 0, 0]),
            gradients(led_fast.circular_conv_inverse, *dense, y, base[:, 0, 0, 0]),
        ),
    ):
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_empty_batches_and_no_channels():
    weight = random_weight(3, (3, 3)).requires_grad_()
    x, log_abs_det = led_fast.circular_conv_inverse(torch.empty(0, 3, 4, 4, dtype=torch.float64), weight)
    assert x.shape == (0, 3, 4, 4) and log_abs_det.shape == (0,)
    (grad,) = torch.autograd.grad(x.sum() + log_abs_det.sum(), weight)
    assert grad.eq(0).all()
    x, log_abs_det = led_fast.circular_conv_inverse(torch.empty(2, 0, 4, 4), torch.empty(0, 0, 3, 3))
    assert x.shape == (2, 0, 4, 4) and log_abs_det.eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precisions_are_computed_in_float32(dtype):
    weight, y = random_weight(5, (3, 3), torch.float32), random_images(3, 5, 4, 4, dtype=torch.float32)
    x, log_abs_det = led_fast.circular_conv_inverse(y.to(dtype), weight)
    wide = led_fast.circular_conv_inverse(y.to(dtype).float(), weight)
    assert x.dtype == dtype and torch.equal(x, wide[0].to(dtype)) and torch.equal(log_abs_det, wide[1])
    leaves = [y.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_()]
    grads = torch.autograd.grad(led_fast.circular_conv_inverse(*leaves)[0].sum(), leaves)
    assert all(g.dtype == dtype for g in grads)
    outside = led_fast.circular_conv_inverse(y, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = led_fast.circular_conv_inverse(y, weight)
    for found, wanted in zip(inside, outside, strict=True):
        assert found.dtype == torch.float32 and torch.equal(found, wanted)


def test_second_derivatives_and_tangents_of_no_images():
    y = torch.empty(0, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = random_weight(3, (3, 3)).requires_grad_()

    def loss(y, weight):
        x, log_abs_det = led_fast.circular_conv_inverse(y, weight)
        return x.sum() + log_abs_det.sum()

    for reference_used in (False, True):
        with led_fast.ops.use_reference(reference_used):
            first = torch.autograd.grad(loss(y, weight), [y, weight], create_graph=True)
            assert first[0].shape == y.shape and first[1].eq(0).all()
            assert torch.func.jvp(loss, (y, weight), (y, weight))[1] == 0
    second = torch.autograd.grad(first[1].sum(), weight, allow_unused=True)[0]
    assert second is None or second.eq(0).all()


@pytest.mark.parametrize(
    "change",
    [
        {0: None},  # a gradient to y is wanted
        {0: torch.ones(2, 3, 5, 4)},
        {0: torch.ones(2, 3, 4, 4, dtype=torch.float16)},
        {1: torch.ones(2, dtype=torch.float64)},
        {1: torch.ones((), dtype=torch.float32)},
        {4: torch.ones(7, dtype=torch.float64)},
        {4: "float32"},
        {5: "strided"},
    ],
)
def test_what_would_be_unsafe_is_refused_below_python(change):
    y, weight = random_images(2, 3, 4, 4), random_weight(3, (3, 3))
    _, log_abs_det, solved, inverses = _op(y, weight, True)
    arguments = [torch.ones_like(y), torch.ones_like(log_abs_det), y, weight, solved, inverses, True, True]
    torch.ops.led_fast.circular_conv_inverse_backward(*arguments)
    for index, value in change.items():
        if value == "float32":
            value = arguments[index].float()
        elif value == "strided":
            value = arguments[index].repeat_interleave(2)[::2]
        arguments[index] = value
    with pytest.raises(RuntimeError, match="circular_conv_inverse: "):
        torch.ops.led_fast.circular_conv_inverse_backward(*arguments)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("sample", [0, 2, 17])
def test_a_bad_sample_spoils_itself_alone(bad, sample):
    weight, y = random_weight(3, (3, 3)), random_images(18, 3, 5, 4)
    wanted, wanted_log = led_fast.circular_conv_inverse(y, weight)
    y[sample, 1, 2, 3] = bad
    x, log_abs_det = led_fast.circular_conv_inverse(y, weight)
    assert torch.equal(log_abs_det, wanted_log) and not x[sample].isfinite().any()
    others = torch.arange(18) != sample
    assert torch.equal(x[others], wanted[others])
    y.requires_grad_()
    (grad,) = torch.autograd.grad(led_fast.circular_conv_inverse(y, weight)[0].sum(), y)
    assert grad.isfinite().all()


@pytest.mark.parametrize("grid", [(4, 4), (1, 1)], ids=str)
@pytest.mark.parametrize("kind", ["zero row", "high-pass"])
def test_singular_symbols_have_no_inverse(kind, grid):
    weight, y = random_weight(4, (2, 3)), random_images(3, 4, *grid)
    if kind == "zero row":
        weight[2] = 0
    else:  # singular at frequency 0 alone
        weight[1], weight[1, 1, 0, 0], weight[1, 1, 1, 2] = 0, 1, -1
    x, log_abs_det = led_fast.circular_conv_inverse(y, weight)
    assert x.isnan().all() and log_abs_det.eq(math.inf).all()
    leaves = [y.requires_grad_(), weight.requires_grad_()]
    value, log_abs_det = led_fast.circular_conv_inverse(*leaves)
    grads = torch.autograd.grad(value.sum() + log_abs_det.sum(), leaves)
    assert all(g.isnan().all() for g in grads)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_give_nan(bad):
    weight, y = random_weight(4, (3, 3)), random_images(3, 4, 5, 5)
    weight[1, 2, 0, 1] = bad
    x, log_abs_det = led_fast.circular_conv_inverse(y, weight)
    assert x.isnan().all() and log_abs_det.isnan().all()


@pytest.mark.parametrize("scale", [1e-30, 1e-4, 1e4, 1e30])
def test_scales(scale):
    weight, y = random_weight(9, (3, 3), torch.float32), random_images(3, 9, 4, 4, dtype=torch.float32)
    wanted, wanted_log = led_fast.circular_conv_inverse(y, weight)
    x, log_abs_det = led_fast.circular_conv_inverse(y * scale, weight * scale)
    torch.testing.assert_close(x, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(log_abs_det, wanted_log - 144 * math.log(scale), rtol=2e-6, atol=1e-4)


def test_the_inputs_are_not_written_to():
    y, weight = random_images(3, 4, 5, 5), random_weight(4, (3, 3))
    before = y.clone(), weight.clone()
    gradients(led_fast.circular_conv_inverse, y, weight, y, y[:, 0, 0, 0])
    assert torch.equal(y, before[0]) and torch.equal(weight, before[1])


def test_the_reference_switch():
    y, weight = random_images(3, 4, 5, 5), random_weight(4, (3, 3))
    with ops.use_reference():
        x, log_abs_det = led_fast.circular_conv_inverse(y, weight)
    assert torch.equal(x, reference.circular_conv_inverse(y, weight)[0])
    torch.testing.assert_close((x, log_abs_det), led_fast.circular_conv_inverse(y, weight))


_W, _Y = torch.zeros(3, 3, 3, 3), torch.zeros(2, 3, 4, 4)


@pytest.mark.parametrize(
    ("y", "weight", "error", "message"),
    [
        (
            _Y,
            torch.zeros(2, 3, 3, 3),
            ValueError,
            r"weight must have shape \(C, C, kh, kw\), got \(2, 3, 3, 3\)",
        ),
        (_Y, torch.zeros(3, 3, 0, 3), ValueError, "weight must have shape"),
        (_Y, torch.zeros(1, 3, 3, 3, 3), ValueError, "weight must have shape"),
        (_Y[:, :2], _W, ValueError, r"y must have shape \(B, 3, H, W\), got \(2, 2, 4, 4\)"),
        (_Y[0], _W, ValueError, "y must have shape"),
        (_Y[..., :0], _W, ValueError, "y must have shape"),
        (
            _Y.double(),
            _W,
            ValueError,
            "weight and y must both be float64 or neither, got weight of torch.float32",
        ),
        (_Y, _W.double(), ValueError, "weight and y must both be float64 or neither"),
        (_Y.long(), _W, ValueError, "y must be float64, .* got torch.int64"),
        (_Y, _W.to(torch.complex64), ValueError, "weight must be float64"),
        ([1.0], _W, TypeError, "y must be a tensor, got list"),
        (_Y, None, TypeError, "weight must be a tensor, got NoneType"),
        (_Y.to("meta"), _W, ValueError, "weight must be on y's device meta, got cpu"),
    ],
)
def test_bad_arguments(y, weight, error, message):
    with pytest.raises(error, match=f"circular_conv_inverse: {message}"):
        led_fast.circular_conv_inverse(y, weight)


def test_transpose_must_be_a_bool():
    with pytest.raises(TypeError, match="transpose must be a bool, got 'yes'"):
        led_fast.circular_conv_inverse(_Y, _W, "yes")


def test_meta_tensors():
    x, log_abs_det = led_fast.circular_conv_inverse(_Y.to("meta"), _W.to("meta"))
    assert x.shape == _Y.shape and log_abs_det.shape == (2,)


def test_kept_tensors_have_the_sizes_that_compilers_are_told():
    for shape, kernel in [((3, 2, 4, 5), (3, 3)), ((17, 17, 5, 6), (1, 1)), ((1, 1, 1, 1), (2, 2))]:
        y, weight = random_images(*shape), random_weight(shape[1], kernel)
        real, fake = _op(y, weight, True), _op(y.to("meta"), weight.to("meta"), True)
        assert [t.shape for t in real] == [t.shape for t in fake]


@pytest.mark.parametrize("kernel", [(3, 3), (1, 2), (4, 5)])
def test_symbols_too_large_for_the_gpus_kernel(kernel):
    from led_fast.ops._circular_conv_inverse_cuda import _composed_invert

    torch.manual_seed(0)
    weight = 0.2 * torch.randn(3, 3, *kernel, dtype=torch.float64)
    weight[:, :, (kernel[0] - 1) // 2, (kernel[1] - 1) // 2] += torch.eye(3)
    y = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    inverses, log_abs_det = _composed_invert(weight, 6, 5)
    spectrum = torch.fft.rfft2(y).flatten(2)
    solved = torch.einsum("ijf,bjf->bif", torch.view_as_complex(inverses), spectrum).view(2, 3, 6, 3)
    x, exact = reference.circular_conv_inverse(y, weight)
    torch.testing.assert_close(torch.fft.irfft2(solved, (6, 5)), x)
    torch.testing.assert_close(log_abs_det, exact.reshape(()))
    singular, log_abs_det = _composed_invert(torch.zeros(3, 3, 1, 1), 4, 4)
    assert singular[..., 0].isnan().all() and log_abs_det == torch.inf
