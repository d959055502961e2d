"""Generators and critics of points: what the presets build, and that each of them can be trained and trusted."""

import pickle
import warnings
from dataclasses import replace

import pytest
import torch
from flow_oracles import joint_log_prob, randomize, record_noise

from led_fast import models, perpendicular
from led_fast.density import (
    CoveringProposal,
    critic_loss,
    floored_target,
    mixed_kl_loss,
    quadrature_log_normalizer,
)
from led_fast.flows import DiagonalNormal, Linear, Slice
from led_fast.models import (
    PRESETS,
    GaussianTailCritic,
    PointsCriticConfig,
    PointsGeneratorConfig,
    points_balance,
    points_critic,
    points_generator,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("preset", "dim"), [*((preset, 2) for preset in PRESETS), *(("inflated", dim) for dim in (1, 3, 5))]
)
def test_one_training_step(preset, dim):
    generator, critic, balance = (
        points_generator(preset, dim),
        points_critic(preset, dim),
        points_balance(dim),
    )
    proposal = CoveringProposal(generator, DiagonalNormal(torch.zeros(dim), 2.0), 0.5, balance)
    draw = proposal.propose(32)
    loss = critic_loss(critic(torch.randn(32, dim)), critic(draw.y), draw.log_q) + draw.balance_loss
    loss.backward()
    sample = generator.rsample_with_score(32)
    target = floored_target(critic(sample.y), 0.0, proposal.broad.log_prob(sample.y), 0.01)
    mixed_kl_loss(target, sample).backward()
    for module in (generator, critic, balance):
        assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    assert sample.y.shape == (32, dim)


def test_generator_of_one_coordinate_is_a_density():
    generator = randomize(points_generator("default", dim=1), 0.3).double().eval()
    assert generator.bijective
    y = torch.linspace(-30, 30, 200_001, dtype=torch.float64)[:, None]
    density = generator.log_prob(y).exp()
    assert torch.trapezoid(density, y[:, 0]).item() == pytest.approx(1, abs=1e-4)
    share = torch.trapezoid(density[y[:, 0] < 0.3], y[y < 0.3]).item()
    assert (generator.sample(20_000) < 0.3).double().mean().item() == pytest.approx(share, abs=0.02)


def test_a_config_is_taken_as_it_is_and_a_preset_keeps_its_noise():
    assert PRESETS["paper"].in_dimension(2) == PRESETS["paper"]
    for preset, expected in (("paper_printed", [130, 65, 33, 17, 9, 5]), ("paper", [6, 5])):
        layers = points_generator(preset, dim=5).layers
        assert [layer.keep for layer in layers if isinstance(layer, Slice)] == expected
    inflated = points_generator(PointsGeneratorConfig(features=7), dim=3)
    assert [layer.keep for layer in inflated.layers if isinstance(layer, Slice)] == [3]


@pytest.mark.parametrize("name", ["ToyGeneratorConfig", "ToyCriticConfig", "ToyPreset"])
def test_old_names_are_the_same_classes(name):
    with pytest.warns(DeprecationWarning, match=f"{name} is {name.replace('Toy', 'Points')} now"):
        assert getattr(models, name) is getattr(models, name.replace("Toy", "Points"))


@pytest.mark.parametrize("name", ["toy_generator", "toy_critic", "toy_balance"])
def test_old_names_are_the_same_functions(name):
    with pytest.warns(DeprecationWarning) as caught:
        assert getattr(models, name) is getattr(models, name.replace("toy", "points"))
    assert [w.filename for w in caught] == [__file__]


def test_new_names_do_not_warn_and_unknown_ones_are_attribute_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(getattr(models, name) is not None for name in models.__all__)
        with pytest.raises(AttributeError, match="no attribute 'toy'"):
            _ = models.toy


def test_inflated_preset_starts_near_the_identity():
    torch.manual_seed(0)
    weights = [
        layer.weight for layer in points_generator("inflated").layers if type(layer).__name__ == "Linear"
    ]
    for weight in weights:
        assert 0 < (weight - torch.eye(4)).abs().max() < 0.5


def test_inflated_preset():
    kinds = [type(layer).__name__ for layer in points_generator("inflated").layers]
    assert kinds == ["Inflate", "Linear", "Staircase", "Linear", "Staircase", "Linear", "Slice"]


def test_paper_preset_is_of_the_papers_family():
    layers = points_generator("paper").layers
    kinds = [type(layer).__name__ for layer in layers]
    assert kinds == ["Inflate", *(["Linear", "SoftReLU"] * 32), "Linear", "Slice", "Slice"]
    assert layers[0].features == 6
    assert [(layer.features, layer.keep) for layer in layers[-2:]] == [(8, 4), (4, 2)]
    assert all(layer.conditional.sigma == 1 for layer in layers[-2:])


def test_paper_printed_preset_is_the_papers():
    generator = points_generator("paper_printed")
    kinds = [type(layer).__name__ for layer in generator.layers]
    assert kinds.count("SoftReLU") == kinds.count("BatchNorm") == 8
    widths = [layer.keep for layer in generator.layers if isinstance(layer, Slice)]
    assert widths == [128, 64, 32, 16, 8, 4, 2]
    inflated = [layer.features for layer in generator.layers if type(layer).__name__ == "Inflate"]
    assert inflated == [2, 4, 8, 16, 32, 64, 128]
    learned = points_generator(
        PointsGeneratorConfig(features=16, blocks=1, activation="soft_relu", norm="running")
    )
    assert [layer.keep for layer in learned.layers if isinstance(layer, Slice)] == [2]


@pytest.mark.parametrize(
    "config",
    [
        PointsGeneratorConfig(components=3),
        PointsGeneratorConfig(features=4),
        PointsGeneratorConfig(
            features=5, blocks=2, activation="soft_relu", norm="batch", conditional="gaussian"
        ),
        PointsGeneratorConfig(features=3, blocks=1, norm="act", conditional="gaussian"),
        replace(PRESETS["paper"].generator, blocks=3),
    ],
)
def test_generators_track_their_joint_density(config, monkeypatch):
    check_joint_density(points_generator(config), monkeypatch)


@pytest.mark.parametrize("dim", [1, 3, 5])
def test_generators_of_other_dimensions_track_their_joint_density(dim, monkeypatch):
    config = PointsGeneratorConfig(
        components=3, features=dim + 2, blocks=1, norm="act", conditional="gaussian"
    )
    check_joint_density(points_generator(config, dim), monkeypatch, dim)


def check_joint_density(flow, monkeypatch, dim=2):
    flow.double()
    flow.rsample_and_log_prob(64)
    randomize(flow, 0.1).eval()
    log_r = [torch.zeros(3, dtype=torch.float64)]
    for layer in flow.layers:
        if isinstance(layer, Slice):
            layer.register_forward_hook(lambda *args: log_r.append(args[2][1]))
    noise = record_noise(flow, monkeypatch)
    _, log_q = flow.rsample_and_log_prob(3)
    expected = torch.stack([joint_log_prob(flow, u, dim=dim) for u in torch.cat(noise, dim=1)])
    torch.testing.assert_close(log_q + sum(log_r), expected, rtol=1e-9, atol=1e-9)


# A factorisation and two more matrix products a layer, at every point of the grid.
SLOW = {"perpendicular_exact"}
CRITICS = {preset.critic: name for name, preset in reversed(PRESETS.items())}  # one name for each


@pytest.mark.parametrize(
    "preset", [pytest.param(p, marks=pytest.mark.slow) if p in SLOW else p for p in CRITICS.values()]
)
def test_critic_integrals_are_finite(preset):
    estimate = quadrature_log_normalizer(points_critic(preset), (-14, -14), (14, 14), tolerance=1e-3)
    assert estimate.error < 1e-3 and estimate.edge_share < 1e-6


def test_tail_is_the_gaussian_it_says():
    critic = GaussianTailCritic(lambda x: torch.zeros(len(x)), torch.tensor([1.0, -2.0]), 3.0)
    x = torch.randn(6, 2)
    expected = -((x - torch.tensor([1.0, -2.0])) ** 2).sum(1) / 18
    torch.testing.assert_close(critic(x), expected)


def test_modules_pickle():
    for module in (points_critic(), points_balance()):
        x = torch.randn(3, 2)
        torch.testing.assert_close(pickle.loads(pickle.dumps(module))(x), module(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda: points_generator("papers"),
            "preset must be one of default, inflated, paper, paper_printed, perp",
        ),
        (lambda: points_critic("nope"), "preset must be one of"),
        (lambda: points_generator(PointsGeneratorConfig(features=1)), "features must be at least 2, got 1"),
        (lambda: points_generator(PointsGeneratorConfig(), dim=3), "features must be at least 3, got 2"),
        (
            lambda: points_generator(PointsGeneratorConfig(start="identity")),
            "got .'staircase', 'dense', 'none'",
        ),
        (lambda: points_generator(replace(PRESETS["paper"].generator, linear="lu")), "'lu', 'none'"),
        (lambda: points_generator(replace(PRESETS["paper"].generator, norm="act")), "'dense', 'act'"),
        (lambda: points_critic(PointsCriticConfig(tail_scale=0.0)), "scale must be positive"),
    ],
)
def test_bad_arguments(act, message):
    with pytest.raises(ValueError, match=message):
        act()


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("penalty", ["direction", "exact"])
def test_critic_less_the_norms_of_its_layers(penalty, squared):
    critic = points_critic(
        PointsCriticConfig(width=16, depth=2, directions=8, penalty=penalty, squared=squared)
    )
    off = points_critic(PointsCriticConfig(width=16, depth=2, directions=8))
    off.load_state_dict(critic.state_dict())
    h, norms = torch.randn(5, 2), 0.0
    x = h
    for layer in critic.net.net:
        if isinstance(layer, torch.nn.Linear):
            norm = perpendicular(h, layer.weight, mode=penalty).norm(dim=1)
            norms = norms + (norm**2 if squared else norm)
            h = torch.nn.functional.linear(h, layer.weight, layer.bias)
        else:
            h = layer(h)
    torch.testing.assert_close(critic(x), off(x) - norms)


@pytest.mark.parametrize("linear", ["dense", "lu", "woodbury"])
@pytest.mark.parametrize("activation", ["staircase", "soft_relu"])
def test_linear_layers_of_every_parametrisation(linear, activation):
    torch.manual_seed(0)
    config = PointsGeneratorConfig(features=8, linear=linear, activation=activation)
    generator = points_generator(config)
    blocks = [layer for layer in generator.layers if isinstance(layer, Linear) and layer.features == 8]
    assert {layer.parametrization for layer in blocks} == {linear}
    t = torch.randn(50, 8)
    moved = torch.stack([(layer(t)[0] - t).norm() / t.norm() for layer in blocks])
    # Staircases want the noise apart from what it is to be added to.
    assert (moved < 0.6).all() if activation == "staircase" else (moved > 0.6).all()
