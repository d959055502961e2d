"""The contract of every layer: both directions against the brute-force Jacobian in fp64, and conduct as a module."""

import copy
import io
import pickle

import pytest
import torch
from flow_oracles import brute_force_ladj
from layers import BIJECTIVE, LAYERS, public_layers, trained_like
from torch import nn

from led_fast.flows import (
    Affine,
    BatchNorm,
    Coupling,
    Inflate,
    Layer,
    Linear,
    MixtureBase,
    NotInvertibleError,
    OneWayFlow,
    SoftReLU,
    Staircase,
    StandardNormal,
)
from led_fast.flows.contract import invertible

DETERMINISTIC = [name for name in LAYERS if name != "Inflate"]
WITH_INVERSE = [name for name in LAYERS if name != "Slice"]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_every_public_layer_is_in_the_table():
    assert {type(case.build()) for case in LAYERS.values()} == public_layers()


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_without_a_way_back_says_so(name):
    layer, t = trained_like(name)
    out, _ = layer(t)
    if name == "Slice":
        assert not layer.bijective and not invertible(layer)
        with pytest.raises(NotInvertibleError, match="Slice cannot be inverted"):
            layer.inverse(out)
    else:
        layer.inverse(out)
        assert layer.bijective == (name != "Inflate")


def test_a_layer_of_ones_own_has_the_defaults():
    class Forward(Layer):
        def forward(self, t):
            return t, t.new_zeros(len(t))

    class Both(Forward):
        def inverse(self, t):
            return t, t.new_zeros(len(t))

    assert not Forward().invertible and Both().invertible and Both().bijective
    with pytest.raises(NotInvertibleError, match="Forward cannot be inverted"):
        Forward().inverse(torch.zeros(1, 2))
    flow = OneWayFlow(StandardNormal(2), [Both(), Forward()])
    assert not flow.invertible and OneWayFlow(StandardNormal(2), [Both()]).bijective
    with pytest.raises(NotInvertibleError, match="Forward cannot be inverted"):
        flow.log_prob(torch.zeros(1, 2))


def test_any_module_may_be_a_layer():
    class Plain(nn.Module):
        def forward(self, t):
            return 2 * t, t.new_full((len(t),), t.shape[1] * 2.0).log()

    flow = OneWayFlow(StandardNormal(1), [Plain()])
    assert flow.rsample_with_score(3).y.shape == (3, 1)
    assert not flow.bijective and not flow.invertible
    with pytest.raises(NotInvertibleError, match="Plain cannot be inverted"):
        flow.inverse(torch.zeros(2, 1))


@pytest.mark.parametrize("name", BIJECTIVE)
def test_both_ladj_are_the_jacobians_and_cancel(name):
    layer, t = trained_like(name, samples=2)
    out, ladj = layer(t)
    back, ladj_back = layer.inverse(out)
    expected = brute_force_ladj(layer, t)
    assert ladj.shape == ladj_back.shape == (2,)
    assert expected.abs().min() > 1e-3 or not [*layer.parameters(), *layer.buffers()]
    torch.testing.assert_close(ladj, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(ladj_back, brute_force_ladj(layer.inverse, out.detach()), rtol=0, atol=1e-9)
    torch.testing.assert_close(ladj + ladj_back, torch.zeros_like(ladj), rtol=0, atol=1e-9)
    torch.testing.assert_close(back, t, rtol=0, atol=1e-9)
    torch.testing.assert_close(layer(back)[0], out, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", WITH_INVERSE)
def test_ladj_belongs_to_the_caller(name):
    layer, t = trained_like(name)
    out, ladj = layer(t)
    for found in (ladj, layer.inverse(out)[1]):
        before = found.clone()
        found += torch.arange(3.0)  # fails on a view of one number
        torch.testing.assert_close(found, before + torch.arange(3.0))


def test_inflation_is_taken_back():
    layer, t = Inflate(2), torch.randn(3, 4, 2)
    out, ladj = layer(t)
    back, ladj_back = layer.inverse(out)
    assert torch.equal(back, t) and torch.equal(ladj_back, -ladj)
    with pytest.raises(ValueError, match="more than 2"):
        layer.inverse(torch.zeros(3, 2))


@pytest.mark.parametrize("attached", [False, True])
@pytest.mark.parametrize("name", [*BIJECTIVE, "Inflate"])
def test_score_rule_agrees_with_the_full_jacobian(name, attached):
    layer, t = trained_like(name)
    score = torch.randn_like(t)
    if attached:  # as it is in a flow, behind other layers
        t = 1.0 * t.requires_grad_()
    torch.manual_seed(1)
    out, ladj, fast = layer.forward_with_score(t, score)
    if name == "Inflate":  # its noise has a score of its own
        assert torch.equal(fast, torch.cat([score, -out[:, 4:].detach()], dim=1))
        return
    slow_out, slow_ladj, slow = Layer.forward_with_score(layer, t, score)
    torch.testing.assert_close(out, slow_out)
    torch.testing.assert_close(ladj, slow_ladj)
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-9)
    assert not fast.requires_grad
    assert out.requires_grad == slow_out.requires_grad or not attached


@pytest.mark.parametrize("name", [*BIJECTIVE, "Inflate"])
def test_scores_without_gradients(name):
    layer, t = trained_like(name)
    with torch.no_grad():
        found = layer.forward_with_score(t, torch.ones_like(t))
        default = Layer.forward_with_score(layer, t, torch.ones_like(t)) if name != "Inflate" else found
    assert not any(part.requires_grad for part in (*found, *default))
    for own, by_jacobian in zip(found, default, strict=True):
        torch.testing.assert_close(own, by_jacobian, rtol=0, atol=1e-9)


def test_a_slice_has_no_score():
    layer, t = trained_like("Slice")
    with pytest.raises(NotInvertibleError, match="Slice"):
        layer.forward_with_score(t, t)


def test_full_jacobian_score_rule_against_finite_differences():
    linear, activation = trained_like("Linear")[0], SoftReLU()
    flow = OneWayFlow(StandardNormal(5).double(), [linear, activation])
    t = torch.randn(1, 5, dtype=torch.float64)
    out, _, score = Layer.forward_with_score(flow, t, -t)
    h = 1e-5
    numeric = [
        (flow.log_prob(out + h * e) - flow.log_prob(out - h * e)) / (2 * h)
        for e in torch.eye(5, dtype=torch.float64)
    ]
    torch.testing.assert_close(score[0], torch.cat(numeric), rtol=1e-6, atol=1e-6)


class _Inverse(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, t):
        return self.layer.inverse(t)


@pytest.mark.parametrize("name", WITH_INVERSE)
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_gradients(name, direction):
    """Of value and ladj, with respect to what comes in and to every parameter, by finite differences."""
    layer, t = trained_like(name, samples=2)
    if direction == "inverse":
        t = layer(t)[0].detach()
    elif name == "Inflate":
        pytest.skip("draws other noise at every call")
    module = _Inverse(layer) if direction == "inverse" else layer
    parameters = dict(module.named_parameters())

    def run(t, *values):
        state = dict(zip(parameters, values, strict=True))
        out, ladj = torch.func.functional_call(module, state, (t,))
        return (torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out) * out).sum() + ladj.sum()

    inputs = [t.requires_grad_(), *(p.detach().requires_grad_() for p in parameters.values())]
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", WITH_INVERSE)
def test_what_is_not_finite_stays_in_its_sample(name, value):
    layer, t = trained_like(name)
    for direction, x in [("forward", t), ("inverse", layer(t)[0].detach())]:
        run = getattr(layer, direction)
        torch.manual_seed(1)
        expected = run(x)
        x = x.clone()
        x[1].view(-1)[0] = value
        torch.manual_seed(1)
        for part, clean in zip(run(x), expected, strict=True):
            torch.testing.assert_close(part[[0, 2]], clean[[0, 2]])
        if value != value:
            assert run(x)[0][1].isnan().any()


@pytest.mark.parametrize("name", LAYERS)
def test_copies_behave_like_the_original(name):
    layer, t = trained_like(name)
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    loaded = LAYERS[name].build().double().eval()
    loaded.load_state_dict(torch.load(buffer))
    torch.manual_seed(1)
    expected = layer(t)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded):
        torch.manual_seed(1)
        torch.testing.assert_close(copied(t), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", LAYERS)
def test_empty_batch(name):
    layer, t = trained_like(name)
    out, ladj = layer(t[:0])
    assert len(out) == 0 and ladj.shape == (0,)
    if invertible(layer):
        back, ladj = layer.inverse(out)
        assert back.shape == t[:0].shape and ladj.shape == (0,)


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in LAYERS
        if not n.startswith(
            ("Affine", "DarkMap", "LightMap", "Sigmoid", "SoftReLU", "Inflate", "Inverse", "OneWay")
        )
    ],
)
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_wrong_input_names_layer_and_shapes(name, direction):
    layer = LAYERS[name].build()
    if not invertible(layer) and direction == "inverse":
        pytest.skip("there is none")
    with pytest.raises(ValueError, match=rf"{type(layer).__name__}: [tx] must .*got \(3, 7\)"):
        getattr(layer, direction)(torch.randn(3, 7))


@pytest.mark.parametrize("name", ["Linear", "Staircase", "BatchNorm", "ActNorm"])
def test_integers_are_refused(name):
    with pytest.raises(TypeError, match="floating-point"):
        LAYERS[name].build()(torch.ones(3, *LAYERS[name].shape, dtype=torch.long))


@pytest.mark.parametrize("name", ["Linear", "CircularConv2d", "CircularConv2d, even"])
def test_singular_weights_give_documented_values(name):
    layer, t = trained_like(name)
    torch.nn.init.zeros_(layer.weight)
    assert (layer(t)[1] == -torch.inf).all()
    out, ladj = layer.inverse(t)
    assert (ladj == torch.inf).all() and not out.isfinite().any()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Linear(0), "features must be positive"),
        (lambda: Staircase(2, steps=0), "steps must be positive"),
        (lambda: BatchNorm(2, statistics="none"), "'running' or 'batch'"),
        (lambda: BatchNorm(2, eps=0.0), "eps must be positive"),
        (lambda: Affine(torch.tensor([1.0, 0.0]), torch.zeros(2)), "zeros"),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()


class _Pools(nn.Module):
    def forward(self, t):
        return torch.zeros(len(t), 4, 1, 1)


@pytest.mark.parametrize("network", [nn.Conv2d(2, 2, 1), nn.Conv2d(2, 8, 1), _Pools()])
def test_a_network_of_another_shape_is_refused(network):
    layer = Coupling(network, 4, 2)
    for run in (layer, layer.inverse, lambda t: layer.forward_with_score(t, t)):
        with pytest.raises(ValueError, match=r"Coupling: network must give shape \(3, 4, 5, 5\), got"):
            run(torch.randn(3, 4, 5, 5))


def test_a_network_may_change_its_input_in_place():
    layer = Coupling(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(2, 4)), 4, 2)
    t = torch.randn(3, 4)
    kept = t.clone()
    with torch.no_grad():
        out, _ = layer(t)
    assert torch.equal(t, kept) and torch.equal(out[:, :2], kept[:, :2])


def test_a_coupling_by_a_constant_has_a_score():
    class Constant(nn.Module):
        def forward(self, t):
            return torch.ones(len(t), 4)

    t = torch.randn(3, 4)
    _, _, score = Coupling(Constant(), 4, 2).forward_with_score(t, torch.ones_like(t))
    torch.testing.assert_close(score[:, :2], torch.ones(3, 2))


@pytest.mark.parametrize(
    "run",
    [
        lambda: StandardNormal(2).log_prob(torch.zeros(5, 1)),
        lambda: StandardNormal(2).log_prob(torch.zeros(2)),
        lambda: MixtureBase(2, 3).log_prob(torch.zeros(5, 1)),
        lambda: OneWayFlow(StandardNormal(2), [SoftReLU()]).log_prob(torch.zeros(7, 5, 2)),
        lambda: Affine(torch.tensor(2.0), torch.zeros(3))(torch.zeros(5, 1)),
        lambda: Affine(torch.tensor(2.0), torch.zeros(3)).inverse(torch.zeros(5, 1)),
        lambda: Linear(4)(torch.zeros(3, 4, 5)),
        lambda: Inflate(2)(torch.zeros(3)),
    ],
)
def test_shapes_that_would_broadcast_are_refused(run):
    with pytest.raises(ValueError, match="must have shape"):
        run()


@pytest.mark.parametrize("name", ["Slice", "Inflate"])
def test_what_is_kept_is_a_copy(name):
    layer, t = trained_like(name)
    before = t.clone()
    out = layer(t)[0] if name == "Slice" else layer.inverse(t)[0]
    out.add_(1)
    assert torch.equal(t, before)


@pytest.mark.parametrize("name", WITH_INVERSE)
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_parametrisations_are_computed_once_a_direction(name, direction):
    layer, t = trained_like(name)
    x = t if direction == "forward" else layer(t)[0].detach()
    if isinstance(layer, OneWayFlow):
        pytest.skip("its layers are in the table")
    calls: dict[str, int] = {}

    class Counted(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, value):
            calls[self.name] = calls.get(self.name, 0) + 1
            return value

    own = [n for n, _ in layer.named_parameters(recurse=False)]
    for parameter in own:
        nn.utils.parametrize.register_parametrization(layer, parameter, Counted(parameter))
    calls.clear()
    getattr(layer, direction)(x)
    assert all(count == 1 for count in calls.values()), calls


def test_a_learned_bend_finds_back():
    layer = SoftReLU(features=2, learned=True)
    with torch.no_grad():
        layer.log_ratio.copy_(torch.tensor([5.0, -5.0]))
        layer.log_sharpness.copy_(torch.tensor([5.0, -5.0]))
    y, ladj = layer(torch.randn(8, 2))
    (y.square().sum() - ladj.sum()).backward()
    assert (layer.log_ratio.grad != 0).all() and (layer.log_sharpness.grad != 0).any()
    assert y.isfinite().all()
