"""The circular convolution layer: value, log-determinant, what it does not keep, a flow with it."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from led_fast.flows import OneWayFlow, SoftReLU, StandardNormal
from led_fast.nn import CircularConv2d


def dense(layer: CircularConv2d, grid: tuple[int, int]) -> torch.Tensor:
    """The layer's Jacobian on one image, by autograd."""
    x = torch.randn(1, layer.channels, *grid, dtype=layer.weight.dtype)
    jacobian = torch.autograd.functional.jacobian(lambda v: layer(v)[0], x)
    return jacobian.reshape(x.numel(), x.numel())


def random_layer(channels: int, kernel_size: int | tuple[int, int], bias: bool = True) -> CircularConv2d:
    layer = CircularConv2d(channels, kernel_size, bias).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return layer


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 5, (1, 4), (3, 2)], ids=str)
def test_value_is_conv2ds(kernel_size):
    layer = random_layer(3, kernel_size)
    conv = nn.Conv2d(3, 3, kernel_size, padding="same", padding_mode="circular", dtype=torch.float64)
    conv.load_state_dict(layer.state_dict())
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(layer(x)[0], conv(x))


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (1, 1), (1, 4), (2, 3)], ids=str)
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 5, (4, 3), (7, 2)], ids=str)
def test_log_abs_det_is_the_jacobians(kernel_size, grid):
    """Also where the kernel is larger than the image and wraps."""
    layer = random_layer(2, kernel_size)
    expected = torch.linalg.slogdet(dense(layer, grid)).logabsdet
    y, log_abs_det = layer(torch.randn(3, 2, *grid, dtype=torch.float64))
    assert log_abs_det.shape == (3,) and y.shape == (3, 2, *grid)
    torch.testing.assert_close(log_abs_det, expected.expand(3))


@pytest.mark.parametrize("channels", [1, 4, 48])
def test_starts_near_an_isometry(channels):
    layer = CircularConv2d(channels, 3)
    _, log_abs_det = layer(torch.zeros(1, channels, 8, 8))
    assert log_abs_det.isfinite().all() and abs(log_abs_det.item()) < 0.1 * channels * 64
    if channels < 48:
        singular = torch.linalg.svdvals(dense(layer, (4, 4)))
        assert singular.min() > 0.75 and singular.max() < 1.25


def test_one_way_flow_on_images_equals_the_brute_force_jacobian():
    flow = OneWayFlow(StandardNormal(4, 8, 8), [random_layer(4, 3), SoftReLU(), random_layer(4, 2)]).double()
    torch.manual_seed(1)
    y, log_q = flow.rsample_and_log_prob(2)
    torch.manual_seed(1)
    z, log_base = flow.base.rsample_and_log_prob(2)

    def flat(v: torch.Tensor) -> torch.Tensor:
        t = v.view(1, 4, 8, 8)
        for layer in flow.layers:
            t = layer(t)[0]
        return t.flatten()

    for i in range(2):
        torch.testing.assert_close(flat(z[i]), y[i].flatten())
        jacobian = torch.autograd.functional.jacobian(flat, z[i].flatten())
        ladj = torch.linalg.slogdet(jacobian).logabsdet
        assert abs(ladj) > 1
        torch.testing.assert_close(log_q[i], log_base[i] - ladj)


def test_score_is_carried_through():
    layer, t = random_layer(2, 3), torch.randn(3, 2, 4, 5, dtype=torch.float64)
    score = torch.randn_like(t)
    out, ladj, carried = layer.forward_with_score(t, score)
    torch.testing.assert_close((out, ladj), layer(t))
    expected = torch.linalg.solve(dense(layer, (4, 5)).T, score.flatten(1).T).T
    torch.testing.assert_close(carried.flatten(1), expected)


def test_nothing_is_left_in_the_layer():
    """A value that a layer keeps is one that another thread, grid, vmap or fake tensor could spoil."""
    layer = random_layer(2, 3).requires_grad_(False)
    before = set(vars(layer))
    layer(torch.randn(1, 2, 4, 4, dtype=torch.float64))
    assert set(vars(layer)) == before


def test_a_parametrised_weight_is_computed_once_a_forward():
    class Counted(nn.Module):
        calls = 0

        def forward(self, weight):
            Counted.calls += 1
            return weight

    layer = random_layer(2, 3)
    nn.utils.parametrize.register_parametrization(layer, "weight", Counted())
    Counted.calls = 0
    layer(torch.randn(1, 2, 4, 4, dtype=torch.float64))
    assert Counted.calls == 1


def test_the_callers_in_place_changes_stay_his():
    layer, x = random_layer(2, 3), torch.randn(3, 2, 4, 4, dtype=torch.float64)
    y, log_abs_det = layer(x)
    wanted = torch.autograd.grad(y.sum() + 2 * log_abs_det.sum(), layer.weight)
    y, log_abs_det = layer(x)
    y.add_(1)
    log_abs_det *= 2
    torch.testing.assert_close(torch.autograd.grad(y.sum() + log_abs_det.sum(), layer.weight), wanted)


def test_copies_pickles_and_state_dicts():
    layer, x = random_layer(2, 3), torch.randn(1, 2, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        expected = layer(x)
        for same in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            torch.testing.assert_close(same(x), expected)
        fresh = CircularConv2d(2, 3).double()
        fresh.load_state_dict(layer.state_dict())
        torch.testing.assert_close(fresh(x), expected)
    assert set(layer.state_dict()) == {"weight", "bias"}
    assert set(CircularConv2d(2, 3, bias=False).state_dict()) == {"weight"}


def test_compiles_in_one_graph():
    layer, x = random_layer(2, 3), torch.randn(2, 2, 4, 5, dtype=torch.float64)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), layer(x))
        layer.weight.mul_(2)
        assert math.isclose(compiled(x)[1][0], layer(x)[1][0])


def test_gradients_of_value_and_log_abs_det():
    layer = random_layer(2, 3)
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)

    def function(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.func.functional_call(layer, {"weight": weight}, (x,))

    assert torch.autograd.gradcheck(function, (x, layer.weight), fast_mode=True)
    assert torch.autograd.gradgradcheck(function, (x, layer.weight), fast_mode=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 3), "got 0 and 3"), ((3, 0), "got 3 and 0"), ((3, (3, 3, 3)), "one integer or two")],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"CircularConv2d: .*{message}"):
        CircularConv2d(*arguments)


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 4, 4, 4)])
def test_bad_inputs(shape):
    with pytest.raises(ValueError, match=r"CircularConv2d: x must have shape \(B, 3, H, W\), got"):
        CircularConv2d(3, 3)(torch.zeros(shape))
