"""Toy generators and critics: what the presets build, and that each of them can be trained and trusted."""

import pickle

import pytest
import torch
from flow_oracles import joint_log_prob, randomize, record_noise

from led_fast import perpendicular
from led_fast.density import (
    CoveringProposal,
    critic_loss,
    floored_target,
    mixed_kl_loss,
    quadrature_log_normalizer,
)
from led_fast.flows import DiagonalNormal, Slice
from led_fast.models import (
    PRESETS,
    GaussianTailCritic,
    ToyCriticConfig,
    ToyGeneratorConfig,
    toy_balance,
    toy_critic,
    toy_generator,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("preset", PRESETS)
def test_one_training_step(preset):
    generator, critic, balance = toy_generator(preset), toy_critic(preset), toy_balance()
    proposal = CoveringProposal(generator, DiagonalNormal(torch.zeros(2), 2.0), 0.5, balance)
    draw = proposal.propose(32)
    loss = critic_loss(critic(torch.randn(32, 2)), critic(draw.y), draw.log_q) + draw.balance_loss
    loss.backward()
    sample = generator.rsample_with_score(32)
    target = floored_target(critic(sample.y), 0.0, proposal.broad.log_prob(sample.y), 0.01)
    mixed_kl_loss(target, sample).backward()
    for module in (generator, critic, balance):
        assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    assert sample.y.shape == (32, 2)


def test_inflated_preset_starts_near_the_identity():
    torch.manual_seed(0)
    weights = [layer.weight for layer in toy_generator("inflated").layers if type(layer).__name__ == "Linear"]
    for weight in weights:
        assert 0 < (weight - torch.eye(4)).abs().max() < 0.5


def test_inflated_preset():
    kinds = [type(layer).__name__ for layer in toy_generator("inflated").layers]
    assert kinds == ["Inflate", "Linear", "Staircase", "Linear", "Staircase", "Linear", "Slice"]


def test_paper_preset_is_the_papers():
    generator = toy_generator("paper")
    kinds = [type(layer).__name__ for layer in generator.layers]
    assert kinds.count("SoftReLU") == kinds.count("BatchNorm") == 8
    widths = [layer.keep for layer in generator.layers if isinstance(layer, Slice)]
    assert widths == [128, 64, 32, 16, 8, 4, 2]
    inflated = [layer.features for layer in generator.layers if type(layer).__name__ == "Inflate"]
    assert inflated == [2, 4, 8, 16, 32, 64, 128]
    learned = toy_generator(ToyGeneratorConfig(features=16, blocks=1, activation="soft_relu", norm="running"))
    assert [layer.keep for layer in learned.layers if isinstance(layer, Slice)] == [2]


@pytest.mark.parametrize(
    "config",
    [
        ToyGeneratorConfig(components=3),
        ToyGeneratorConfig(features=4),
        ToyGeneratorConfig(
            features=5, blocks=2, activation="soft_relu", norm="batch", conditional="gaussian"
        ),
        ToyGeneratorConfig(features=3, blocks=1, norm="act", conditional="gaussian"),
    ],
)
def test_generators_track_their_joint_density(config, monkeypatch):
    flow = toy_generator(config).double()
    flow.rsample_and_log_prob(64)
    randomize(flow, 0.1).eval()
    log_r = [torch.zeros(3, dtype=torch.float64)]
    for layer in flow.layers:
        if isinstance(layer, Slice):
            layer.register_forward_hook(lambda *args: log_r.append(args[2][1]))
    noise = record_noise(flow, monkeypatch)
    _, log_q = flow.rsample_and_log_prob(3)
    expected = torch.stack([joint_log_prob(flow, u) for u in torch.cat(noise, dim=1)])
    torch.testing.assert_close(log_q + sum(log_r), expected, rtol=1e-9, atol=1e-9)


SLOW = {
    "perpendicular_exact"
}  # a factorisation and two more matrix products a layer, at every point of the grid


@pytest.mark.parametrize(
    "preset", [pytest.param(p, marks=pytest.mark.slow) if p in SLOW else p for p in PRESETS]
)
def test_critic_integrals_are_finite(preset):
    critic = toy_critic(preset)
    estimate = quadrature_log_normalizer(critic, (-14, -14), (14, 14))
    assert estimate.error < 1e-4 and estimate.edge_share < 1e-6


def test_tail_is_the_gaussian_it_says():
    critic = GaussianTailCritic(lambda x: torch.zeros(len(x)), torch.tensor([1.0, -2.0]), 3.0)
    x = torch.randn(6, 2)
    expected = -((x - torch.tensor([1.0, -2.0])) ** 2).sum(1) / 18
    torch.testing.assert_close(critic(x), expected)


def test_modules_pickle():
    for module in (toy_critic(), toy_balance()):
        x = torch.randn(3, 2)
        torch.testing.assert_close(pickle.loads(pickle.dumps(module))(x), module(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda: toy_generator("papers"),
            "unknown preset 'papers': choose one of default, inflated, paper, perp",
        ),
        (lambda: toy_critic("nope"), "unknown preset"),
        (lambda: toy_generator(ToyGeneratorConfig(features=1)), "features must be at least 2"),
        (lambda: toy_critic(ToyCriticConfig(tail_scale=0.0)), "scale must be positive"),
    ],
)
def test_bad_arguments(act, message):
    with pytest.raises(ValueError, match=message):
        act()


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("penalty", ["direction", "exact"])
def test_critic_less_the_norms_of_its_layers(penalty, squared):
    critic = toy_critic(ToyCriticConfig(width=16, depth=2, directions=8, penalty=penalty, squared=squared))
    off = toy_critic(ToyCriticConfig(width=16, depth=2, directions=8))
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
