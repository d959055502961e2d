"""The perpendicular norm against the dense matrix of the layer, and what can go wrong with an operator."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from perpendicular_cases import CASES, REAL, case, cases, dense_matrix, dense_perpendicular
from torch.nn import functional as F

import led_fast
from led_fast import perpendicular, perpendicular_norm, reference
from led_fast.nn import PerpendicularConv2d


@pytest.mark.parametrize("kernel", range(1, 6))
@pytest.mark.parametrize("padding", range(3))
@pytest.mark.parametrize("stride", range(1, 4))
@pytest.mark.parametrize("channels", [3, 5])
def test_equals_the_dense_matrix(stride, padding, kernel, channels):
    x, weight, g = case(channels, (11, 8), 4, (kernel, kernel), stride=stride, padding=padding)
    rest = dense_perpendicular(x, dense_matrix(x.shape, weight, g))
    torch.testing.assert_close(perpendicular_norm(x, weight, **g), rest.norm(dim=1), atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(perpendicular(x, weight, **g).flatten(1), rest, atol=1e-10, rtol=1e-10)


@cases
@pytest.mark.parametrize("keep_u", [False, True])
def test_equals_the_dense_matrix_on_every_path(name, keep_u):
    x, weight, g = CASES[name]()
    rest = dense_perpendicular(x, dense_matrix(x.shape, weight, g))
    norm = perpendicular_norm(x.requires_grad_(keep_u), weight, **g)
    torch.testing.assert_close(norm, rest.norm(dim=1), atol=1e-10, rtol=1e-10)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(5, 20), st.integers(5, 20)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    padding=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    channels=st.integers(1, 6),
    outs=st.integers(1, 9),
    batch=st.integers(0, 4),
)
def test_any_geometry_in_float32(size, kernel, stride, padding, channels, outs, batch):
    x, weight, g = case(channels, size, outs, kernel, batch, stride=stride, padding=padding)
    wide = perpendicular_norm(x, weight, **g)
    norm = perpendicular_norm(x.float(), weight.float(), **g)
    scale = x.flatten(1).norm(dim=1)
    assert ((norm - wide).abs() <= 2e-6 * scale).all()


def test_linear_equals_the_matrix():
    x, weight = torch.randn(5, 7, dtype=torch.float64), torch.randn(3, 7, dtype=torch.float64)
    rest = dense_perpendicular(x, weight)
    torch.testing.assert_close(perpendicular_norm(x, weight), rest.norm(dim=1))
    torch.testing.assert_close(perpendicular_norm(x, weight, x @ weight.T), rest.norm(dim=1))
    torch.testing.assert_close(perpendicular(x, weight), rest)


@cases
def test_equals_the_reference(name):
    x, weight, g = CASES[name]()
    torch.testing.assert_close(
        perpendicular_norm(x, weight, **g), reference.perpendicular_norm(x, weight, **g), atol=1e-9, rtol=1e-6
    )


@cases
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_is_as_accurate_as_pytorch(name, dtype):
    x, weight, g = CASES[name]()
    x, weight = x.to(dtype), weight.to(dtype)
    exact = reference.perpendicular_norm(x.double(), weight.double(), **g)
    plain = reference.perpendicular_norm(x.float(), weight.float(), **g)
    norm = perpendicular_norm(x, weight, **g)
    assert norm.dtype == torch.float32
    rounding = 2 * torch.finfo(torch.float32).eps * x.double().flatten(1).norm(dim=1)
    assert ((norm - exact).abs() <= 2 * (plain - exact).abs() + rounding).all()


@pytest.mark.parametrize("name", ["image", "dcgan, many tiles", "library"])
@pytest.mark.parametrize("ratio", [1e-2, 1e-4, 1e-6])
def test_is_accurate_where_x_is_almost_parallel(name, ratio):
    """‖x‖² - ‖t‖⁴ / ‖u‖² in float32 is off by about 3e-4 ‖x‖ here."""
    x, weight, g = CASES[name]()
    weight[:-1] = 0  # one output channel, and a t that its own u reproduces: any x = u will do
    t = F.conv2d(x, weight, **g)
    u = torch.nn.grad.conv2d_input(x.shape, weight, t, **g)
    x = u + ratio * u.flatten(1).norm(dim=1).view(-1, 1, 1, 1) * F.normalize(x.flatten(1)).view_as(x)
    exact = perpendicular_norm(x.float().double(), weight.float().double(), t.float().double(), **g)
    norm = perpendicular_norm(x.float(), weight.float(), t.float(), **g)
    assert ((norm - exact).abs() <= 4 * torch.finfo(torch.float32).eps * x.flatten(1).norm(dim=1)).all()


# ---- gradients -------------------------------------------------------------------------------------------


@cases
@pytest.mark.parametrize("with_t", [False, True])
def test_gradients(name, with_t):
    x, weight, g = CASES[name]()
    inputs = [x[:2], weight, *([F.conv2d(x[:2], weight, **g) + 1] if with_t else [])]
    inputs = [v.detach().requires_grad_() for v in inputs]
    function = lambda *a: perpendicular_norm(*a[:2], a[2] if with_t else None, **g)  # noqa: E731
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


def test_gradients_of_a_linear_layer():
    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in [(3, 7), (4, 7), (3, 4)]]
    assert torch.autograd.gradcheck(perpendicular_norm, inputs)
    assert torch.autograd.gradgradcheck(perpendicular_norm, inputs)


@cases
@pytest.mark.parametrize("dtype", REAL)
def test_first_gradient_is_that_of_the_differentiable_form(name, dtype):
    """The kernels give the same gradient as the graph that gradients of gradients go through."""
    x, weight, g = CASES[name]()
    x, weight = x.to(dtype), weight.to(dtype)
    inputs = [v.detach().requires_grad_() for v in (x, weight, F.conv2d(x, weight, **g))]
    norm = perpendicular_norm(*inputs, **g)
    plain = torch.autograd.grad(norm.sum(), inputs, retain_graph=True)
    differentiable = torch.autograd.grad(norm.sum(), inputs, create_graph=True)
    tolerance = 64 * torch.finfo(dtype).eps
    for a, b in zip(plain, differentiable, strict=True):
        torch.testing.assert_close(a, b, atol=tolerance * b.abs().max().item(), rtol=0)
    for index, alone in enumerate(inputs):  # each gradient where the others are not wanted
        others = [v.detach() for v in inputs]
        others[index] = alone
        (gradient,) = torch.autograd.grad(perpendicular_norm(*others, **g).sum(), alone)
        torch.testing.assert_close(
            gradient, plain[index], atol=tolerance * plain[index].abs().max().item(), rtol=0
        )


ZERO_CASES = {
    "x": lambda x, w, g: (torch.zeros_like(x), w),
    "weight": lambda x, w, g: (x, torch.zeros_like(w)),
    "both": lambda x, w, g: (torch.zeros_like(x), torch.zeros_like(w)),
}


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("zero", ZERO_CASES)
@pytest.mark.parametrize("name", ["image", "dcgan, many tiles", "library", "one pixel"])
def test_zeros_give_finite_values_and_gradients(name, zero, dtype):
    x, weight, g = CASES[name]()
    x, weight = ZERO_CASES[zero](x.to(dtype), weight.to(dtype), g)
    x, weight = x.requires_grad_(), weight.requires_grad_()
    norm = perpendicular_norm(x, weight, **g)
    torch.testing.assert_close(norm, x.detach().flatten(1).norm(dim=1))  # 0 or ‖x‖: nothing to take away
    first = torch.autograd.grad(norm.sum(), (x, weight), create_graph=True)
    second = torch.autograd.grad(sum(f.square().sum() for f in first), (x, weight))
    assert all(v.isfinite().all() for v in (norm, *first, *second))


@pytest.mark.parametrize("dtype", REAL)
def test_x_inside_the_row_space(dtype):
    """A layer of one output sees all of an x that is a multiple of its row."""
    weight = torch.randn(1, 3, 4, 4, dtype=dtype, requires_grad=True)
    x = (2 * weight).detach().requires_grad_()
    norm = perpendicular_norm(x, weight)
    assert norm.item() <= 4 * torch.finfo(dtype).eps * x.norm().item()
    assert all(v.isfinite().all() for v in torch.autograd.grad(norm.sum(), (x, weight)))


# ---- hazards ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["image", "dcgan, many tiles", "library"])
def test_strides_do_not_matter(name):
    x, weight, g = CASES[name]()
    wanted = perpendicular_norm(x, weight, **g)
    wide = torch.empty(*x.shape[:3], 2 * x.shape[3], dtype=x.dtype)
    wide[..., ::2] = x
    strided = [
        x.to(memory_format=torch.channels_last),
        x.transpose(2, 3).contiguous().transpose(2, 3),
        wide[..., ::2],
    ]
    for other in strided:
        torch.testing.assert_close(
            perpendicular_norm(other, weight.to(memory_format=torch.channels_last), **g), wanted
        )
    t = F.conv2d(x, weight, **g).to(memory_format=torch.channels_last)
    torch.testing.assert_close(perpendicular_norm(x, weight, t, **g), wanted)
    one = x[:1].expand_as(x)
    torch.testing.assert_close(perpendicular_norm(one, weight, **g), wanted[:1].expand(len(x)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["image", "dcgan, many tiles", "library"])
def test_nan_and_inf_stay_in_their_sample(name, value):
    x, weight, g = CASES[name]()
    wanted = perpendicular_norm(x, weight, **g)
    x[1, 0, 2, 2] = value
    norm = perpendicular_norm(x, weight, **g)
    assert norm[1].isnan()
    torch.testing.assert_close(norm[[0, 2]], wanted[[0, 2]])


@pytest.mark.parametrize("name", ["image", "dcgan, many tiles", "library"])
def test_threads_and_batch_do_not_change_a_bit(name):
    x, weight, g = CASES[name]()
    x, weight = x.float(), weight.float()
    t = F.conv2d(x, weight, **g)
    if name == "library":  # the library's transposed convolution makes no such promise
        u = torch.randn_like(x)
        function = lambda x, t: torch.ops.led_fast.perpendicular_norm_to(x, u[: len(x)])[0]  # noqa: E731
    else:
        function = lambda x, t: perpendicular_norm(x, weight, t, **g)  # noqa: E731
    threads = torch.get_num_threads()
    results = []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            results += [function(x, t), function(x, t)]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(results[0], r) for r in results)
    assert torch.equal(function(x[:2], t[:2]), results[0][:2])


@pytest.mark.parametrize("name", ["image", "dcgan, many tiles", "dcgan, few tiles"])
@pytest.mark.parametrize("dtype", REAL)
def test_opcheck(name, dtype):
    x, weight, g = CASES[name]()
    x, weight = x.to(dtype), weight.to(dtype)
    inputs = [v.requires_grad_() for v in (x, weight, F.conv2d(x, weight, **g))]
    pairs = [[v, v] if isinstance(v, int) else list(v) for v in (g["stride"], g["padding"], g["dilation"])]
    torch.library.opcheck(torch.ops.led_fast.perpendicular_norm.default, (*inputs, *pairs, 1, True))


def test_opcheck_norm_to():
    inputs = [torch.randn(3, 5, 4, requires_grad=True) for _ in range(2)]
    torch.library.opcheck(torch.ops.led_fast.perpendicular_norm_to.default, inputs)


@pytest.mark.parametrize(
    "name, dynamic, backend",
    [
        ("image", True, "inductor"),
        ("dcgan, many tiles", False, "aot_eager"),
        ("dcgan, many tiles", True, "aot_eager"),
        ("library", True, "aot_eager"),
    ],
)
def test_compile(name, dynamic, backend):
    x, weight, g = CASES[name]()
    compiled = torch.compile(
        lambda x, w: perpendicular_norm(x, w, **g), fullgraph=True, dynamic=dynamic, backend=backend
    )
    for batch in (3, 2):
        inputs = [x[:batch].detach().requires_grad_(), weight.detach().requires_grad_()]
        results = []
        for function in (compiled, lambda x, w: perpendicular_norm(x, w, **g)):
            norm = function(*inputs)
            results.append((norm, *torch.autograd.grad(norm.square().sum(), inputs)))
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["image", "library"])
def test_vmap(name):
    x, weight, g = CASES[name]()
    x = torch.stack([x, 2 * x, x + 1])
    wanted = torch.stack([perpendicular_norm(v, weight, **g) for v in x])
    torch.testing.assert_close(torch.vmap(lambda v: perpendicular_norm(v, weight, **g))(x), wanted)
    gradient = torch.func.grad(lambda w, v: perpendicular_norm(v[None], w, **g).sum())
    per_sample = torch.vmap(gradient, (None, 0))(weight, x[0])
    torch.testing.assert_close(per_sample, torch.stack([gradient(weight, v) for v in x[0]]))


@cases
@pytest.mark.parametrize("in_dims", [(None, 0), (0, 0), (0, 1)])
def test_vmap_over_weights(name, in_dims):
    x, weight, g = CASES[name]()
    weights = torch.stack([weight, 2 + weight], in_dims[1])
    inputs = x if in_dims[0] is None else torch.stack([x, x + 1])
    inputs, weights = inputs.requires_grad_(), weights.requires_grad_()
    norm = torch.vmap(lambda x, w: perpendicular_norm(x, w, **g), in_dims)(inputs, weights)
    each = zip([x, x] if in_dims[0] is None else inputs, weights.unbind(in_dims[1]), strict=True)
    wanted = torch.stack([perpendicular_norm(v, w, **g) for v, w in each])
    torch.testing.assert_close(norm, wanted)
    for a, b in zip(
        *(torch.autograd.grad(v.square().sum(), (weights,)) for v in (norm, wanted)), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_autocast_computes_in_float32():
    x, weight, g = CASES["image"]()
    x, weight = x.float(), weight.float()
    with torch.autocast("cpu", torch.bfloat16):
        norm = perpendicular_norm(x, weight, **g)
    assert torch.equal(norm, perpendicular_norm(x, weight, **g))
    layer = PerpendicularConv2d(3, 5, 4, 2, 1)
    with torch.autocast("cpu", torch.bfloat16):
        t, layer_norm = layer(x)
    assert (t.dtype, layer_norm.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(layer_norm, layer(x)[1], atol=0, rtol=1e-2)


@cases
def test_meta(name):
    x, weight, g = CASES[name]()
    assert perpendicular_norm(x.to("meta"), weight.to("meta"), **g).shape == (len(x),)


def test_empty_batch():
    for name in ("image", "dcgan, many tiles", "library"):
        x, weight, g = CASES[name]()
        x, weight = x[:0].requires_grad_(), weight.requires_grad_()
        norm = perpendicular_norm(x, weight, **g)
        assert norm.shape == (0,)
        gx, gw = torch.autograd.grad(norm.sum(), (x, weight))
        assert gx.shape == x.shape and not gw.any()


def test_images_without_pixels():
    """Padding alone meets the kernel: u is nothing, and so is the norm."""
    x, weight = torch.zeros(2, 3, 0, 5, requires_grad=True), torch.ones(8, 3, 3, 3)
    norm, _, _ = torch.ops.led_fast.perpendicular_norm(
        x, weight, torch.zeros(2, 8, 2, 7), *([1, 1], [2, 2], [1, 1]), 1, False
    )
    assert norm.tolist() == [0, 0]


# ---- bad arguments ---------------------------------------------------------------------------------------

X, W = torch.zeros(2, 4, 8, 8), torch.zeros(6, 4, 3, 3)
BAD = {
    "x must be a tensor": (TypeError, dict(x=[1.0])),
    "x must be float64": (ValueError, dict(x=X.int())),
    "weight must be float64": (ValueError, dict(weight=W.long())),
    "t must be float64": (ValueError, dict(t=torch.zeros(2, 6, 6, 6, dtype=torch.int32))),
    "x must have shape": (ValueError, dict(x=X[0])),
    "weight must have 4 dimensions": (ValueError, dict(weight=W[..., 0])),
    "weight must have x's dtype": (ValueError, dict(weight=W.double())),
    "weight must be on x's device": (ValueError, dict(weight=W.to("meta"))),
    r"weight must have shape\[1\] = 4": (ValueError, dict(weight=W[:, :3])),
    "t must have shape": (ValueError, dict(t=torch.zeros(2, 6, 5, 6))),
    "stride must be at least 1": (ValueError, dict(stride=0)),
    "stride must be an integer": (TypeError, dict(stride=1.5)),
    "padding must be at least 0": (ValueError, dict(padding=(0, -1))),
    "padding must be an integer": (TypeError, dict(padding="same")),
    "dilation must be at least 1": (ValueError, dict(dilation=0)),
    "groups must divide": (ValueError, dict(groups=3)),
    "groups must be an integer": (TypeError, dict(groups=2.0)),
    "must fit x": (ValueError, dict(dilation=4)),
    "must have 4 dimensions for stride": (ValueError, dict(x=X[:, :, 0, 0], weight=W[..., 0, 0], stride=2)),
}


@pytest.mark.parametrize("message", BAD)
@pytest.mark.parametrize("function", [perpendicular_norm, perpendicular])
def test_bad_arguments(function, message):
    error, arguments = BAD[message]
    with pytest.raises(error, match=rf"{function.__name__}: .*{message}"):
        function(**{"x": X, "weight": W, **arguments})


def test_is_exported():
    assert {"perpendicular", "perpendicular_norm"} <= set(led_fast.__all__)
