"""Single cases beside the table of test_transforms.py: what public bug reports of other libraries showed, and more."""

import threading

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

import led_fast
from led_fast.models import DCGANCritic
from led_fast.nn import (
    CircularConv2d,
    PerpendicularConv2d,
    PerpendicularLinear,
    PerpendicularSequential,
    SoftReLU,
)
from led_fast.ops.determinant import log_abs_det


def test_half_of_a_sum_keeps_its_tangent():
    x, v = torch.randn(3, 4), torch.randn(3, 4)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, v)
        tangent = forward_ad.unpack_dual(dual + led_fast.soft_relu(dual)[0]).tangent
    torch.testing.assert_close(
        tangent, torch.func.jvp(lambda x: x + led_fast.reference.soft_relu(x)[0], (x,), (v,))[1]
    )


def test_operators_called_by_themselves_keep_tangents_or_refuse():
    x, weight = torch.randn(2, 5, 8, 8), torch.randn(6, 5, 4, 4)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        y, _ = torch.ops.led_fast.soft_relu(dual, 5.8, 1.0, 0.0, 0.1)
        assert forward_ad.unpack_dual(y).tangent is not None
        with pytest.raises(NotImplementedError, match="perpendicular_norm_backward cannot be differentiated"):
            torch.ops.led_fast.perpendicular_norm_backward(
                dual, weight, torch.randn(2, 6, 4, 4), x, x[:, 0, 0, 0], x[:, 0, 0, 0],
                [2, 2], [1, 1], [1, 1], 1, True, True,
            )  # fmt: skip


def test_no_tangent_where_forward_mode_is_off():
    x = torch.randn(3, 4)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        with forward_ad._set_fwd_grad_enabled(False):
            y, _ = led_fast.soft_relu(dual)
        assert forward_ad.unpack_dual(y).tangent is None


def test_only_one_of_two_inputs_moves():
    x, weight = torch.randn(3, 4, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    for index in range(2):

        def norm(moving, index=index):
            return led_fast.perpendicular_norm(
                *(moving if i == index else v for i, v in enumerate((x, weight)))
            )

        point = (x, weight)[index]
        torch.testing.assert_close(torch.func.jacfwd(norm)(point), torch.func.jacrev(norm)(point))


def test_no_grad_around_a_gradient():
    x = torch.randn(3, 4, requires_grad=True)
    with torch.no_grad():
        first = torch.func.grad(lambda v: led_fast.soft_relu(v)[1].sum())(x)
    assert not first.requires_grad and first.ne(0).any()


@pytest.mark.parametrize("mode", ["direction", "exact"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_critic_under_autocast(mode, dtype):
    torch.manual_seed(0)
    critic, x = DCGANCritic(32, channels=1, width=8, penalty=mode), torch.rand(2, 1, 32, 32)
    with torch.autocast("cpu", dtype):
        value = critic(x)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, critic(x), rtol=2e-2, atol=2e-2)
    value.sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in critic.parameters())


def test_outside_autocast_dtypes_must_agree_as_in_conv2d():
    for layer in (PerpendicularConv2d(3, 4, 3), nn.Conv2d(3, 4, 3)):
        with pytest.raises((ValueError, RuntimeError)):
            layer(torch.randn(1, 3, 5, 5, dtype=torch.bfloat16))


def test_a_norm_may_be_changed_in_place():
    x, weight = torch.randn(3, 5), torch.randn(2, 5, requires_grad=True)
    wanted = torch.autograd.grad(2 * led_fast.perpendicular_norm(x, weight).sum(), weight)
    norm = led_fast.perpendicular_norm(x, weight)
    norm.mul_(2)
    torch.testing.assert_close(torch.autograd.grad(norm.sum(), weight), wanted)


@pytest.mark.parametrize("mode", ["direction", "exact"])
def test_in_place_activation_after_a_layer_without_bias(mode):
    def gradients(inplace: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        net = PerpendicularSequential(
            PerpendicularConv2d(3, 64, 4, 2, 1, bias=False, mode=mode),
            nn.LeakyReLU(0.2, inplace=inplace),
            PerpendicularConv2d(64, 1, 4, bias=False, mode=mode),
        )
        value, penalty = net(torch.randn(2, 3, 8, 8))
        (value.sum() + penalty.sum()).backward()
        return [p.grad for p in net.parameters()]

    torch.testing.assert_close(gradients(True), gradients(False))


def test_in_place_dropout_after_a_linear_layer():
    layer, x = PerpendicularLinear(5, 3, bias=False), torch.randn(4, 5)
    t, norm = layer(x)
    (nn.Hardtanh(-0.1, 0.1, inplace=True)(t).sum() + norm.sum()).backward()
    changed, layer.weight.grad = layer.weight.grad, None
    t, norm = layer(x)
    (nn.Hardtanh(-0.1, 0.1)(t).sum() + norm.sum()).backward()
    torch.testing.assert_close(changed, layer.weight.grad)


@pytest.mark.parametrize("name", ["alpha", "beta", "u0", "t0"])
def test_a_parameter_that_would_not_learn_is_refused(name):
    learnable = nn.Parameter(torch.tensor(2.0))
    with pytest.raises(TypeError, match=f"soft_relu: {name} must be a number.*requires a gradient"):
        led_fast.soft_relu(torch.zeros(2, 3), **{name: learnable})
    with pytest.raises(TypeError, match=f"SoftReLU: {name} must be a number.*requires a gradient"):
        SoftReLU(**{name: learnable})


def test_a_parameter_that_moves_is_refused():
    with pytest.raises(TypeError, match="alpha must be a number"):
        torch.func.grad(lambda a: led_fast.soft_relu(torch.zeros(2, 3), a)[1].sum())(torch.tensor(5.8))
    with pytest.raises(TypeError, match="alpha must be a number"):
        torch.func.jvp(
            lambda a: led_fast.soft_relu(torch.zeros(2, 3), a)[1], (torch.tensor(5.8),), (torch.ones(()),)
        )
    with pytest.raises(TypeError, match="alpha must be a number"):
        torch.vmap(lambda a: led_fast.soft_relu(torch.zeros(2, 3), a)[1])(torch.tensor([5.8, 3.0]))
    with pytest.raises(TypeError, match="u0 must be a number, got str"):
        led_fast.soft_relu(torch.zeros(2, 3), u0="0")


def test_numbers_of_any_kind_are_read():
    x = torch.randn(2, 3)
    for value in (3, torch.tensor(3), torch.tensor(3.0).numpy(), torch.tensor(3.0).numpy()[()]):
        torch.testing.assert_close(led_fast.soft_relu(x, value), led_fast.soft_relu(x, 3.0))


def test_ensembles_of_frozen_convolutions_leave_nothing():
    layers = [CircularConv2d(2, 3) for _ in range(4)]
    parameters, _ = torch.func.stack_module_state(layers)
    x = torch.randn(2, 2, 6, 6)
    with torch.no_grad():
        for _ in range(2):
            mapped = torch.vmap(lambda p: torch.func.functional_call(layers[0], p, (x,)))(parameters)
        for i, layer in enumerate(layers):
            torch.testing.assert_close((mapped[0][i], mapped[1][i]), layer(x))


def test_threads_ask_one_layer_for_three_grids():
    layer, wrong = CircularConv2d(1, 3).requires_grad_(False), []
    grids = [(8, 8), (16, 16), (4, 4)]
    right = {grid: layer.log_abs_det(grid) for grid in grids}

    def ask(grid) -> None:
        wrong.extend(1 for _ in range(2000) if layer.log_abs_det(grid) != right[grid])

    threads = [threading.Thread(target=ask, args=(grid,)) for grid in grids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_forward_derivative_of_many_channels_has_a_derivative():
    """PyTorch's tangent of slogdet has none: jacrev(jacfwd(slogdet)) is 0."""
    weight = torch.randn(64, 64, 1, 1, dtype=torch.float64)
    direction = torch.randn_like(weight)

    def along(s):
        return led_fast.circulant_logdet(weight + s * direction, (1, 2))

    zero = torch.zeros((), dtype=torch.float64)
    jacfwd, jacrev = torch.func.jacfwd, torch.func.jacrev
    wanted = jacrev(jacrev(along))(zero)
    for twice in (jacrev(jacfwd(along)), jacfwd(jacfwd(along)), jacfwd(jacrev(along))):
        torch.testing.assert_close(twice(zero), wanted)


@pytest.mark.parametrize(
    "function",
    [
        led_fast.soft_relu,
        led_fast.soft_relu_inverse,
        lambda x: led_fast.soft_relu(x, torch.tensor([3.0, 4.0])),
        lambda x: led_fast.staircase(x, *3 * [torch.ones(2, 1)], torch.ones(2)),
        lambda x: led_fast.staircase_inverse(x, *3 * [torch.ones(2, 1)], torch.ones(2)),
    ],
)
def test_vmap_over_no_calls(function):
    x = torch.zeros(0, 3, 2)
    y, log_abs_det = torch.vmap(function)(x)
    assert y.shape == (0, 3, 2) and log_abs_det.shape == (0, 3)
    assert torch.vmap(torch.func.grad(lambda x: function(x)[1].sum()))(x).shape == (0, 3, 2)


def test_the_log_determinant_of_a_matrix_has_second_tangents():
    """torch gives 0 for those of slogdet."""
    matrix = torch.randn(2, 3, 3, dtype=torch.float64)
    truth = torch.autograd.functional.hessian(lambda m: torch.linalg.slogdet(m).logabsdet.sum(), matrix)
    for outer, inner in ((torch.func.jacfwd, torch.func.jacfwd), (torch.func.jacrev, torch.func.jacfwd)):
        torch.testing.assert_close(outer(inner(lambda m: log_abs_det(m).sum()))(matrix), truth)
