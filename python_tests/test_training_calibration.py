"""The loss by which a critic learns to tilt a resting generator."""

import math
from types import SimpleNamespace

import pytest
import torch

from led_fast.density import effective_sample_size
from led_fast.training.objective import CalibrationObjective
from led_fast.training.settings import Calibration, Recipe
from led_fast.training.world import World

Q = torch.arange(12)  # a generator that gives each of 12 points once
P = torch.tensor([0] * 60 + [1] * 25 + [2] * 10 + list(range(3, 12)))  # data, of which 5 points hold most


def objective(held_ess):
    task = SimpleNamespace(tilted_samples=lambda n: Q, anchored=False)
    recipe = Recipe(calibration=Calibration(0.5, samples=len(Q), held_ess=held_ess))
    return CalibrationObjective(task, recipe, World())


def learned(held_ess):
    """Log-weights of the points after the descent has come to its end, and their metrics."""
    loss_of, net = objective(held_ess), torch.zeros(12, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([net], lr=0.02)
    for step in range(3000):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 3000)
        optimizer.zero_grad()
        loss = loss_of.critic_loss(lambda x: net[x], P, 0.9)
        loss.value.backward()
        optimizer.step()
    return net.detach(), loss.metrics


def gain(net):
    """What a tilt adds to the log-likelihood of the generator, in nats."""
    return (net[P].mean() - net.logsumexp(0) + math.log(12)).item()


def test_nothing_held_the_critic_finds_the_density_of_the_data():
    net, metrics = learned(0.0)
    share = torch.bincount(P).double() / len(P)
    torch.testing.assert_close(net.softmax(0), share, rtol=1e-2, atol=1e-4)
    assert metrics["ess_fraction"].item() == pytest.approx(1 / (12 * share.square().sum().item()), rel=1e-2)
    assert metrics["critic_loss"].item() == pytest.approx(-gain(net))


@pytest.mark.parametrize("held", [0.25, 0.5])
def test_what_is_held_is_kept_and_nothing_more_is_given_up(held):
    net, metrics = learned(held)
    assert effective_sample_size(net) / 12 == pytest.approx(held, rel=0.02)
    assert metrics["critic_loss"].item() == pytest.approx(-gain(net)), "the metric is the likelihood alone"

    # Less of the tilt has as many effective weights too, and is worse.
    whole, _ = learned(0.0)
    parts = [part * whole for part in torch.linspace(0, 1, 400)]
    tempered = max((part for part in parts if effective_sample_size(part) >= held * 12), key=gain)
    assert gain(tempered) < gain(net) < gain(whole)


def test_weights_that_are_even_enough_cost_nothing():
    net = torch.linspace(0, 1, 12, requires_grad=True)
    values = [objective(held).critic_loss(lambda x: net[x], P, 0.9).value for held in (0.0, 0.5)]
    assert torch.equal(values[0].double(), values[1].double())
