"""Langevin transitions: they leave a density as it is, and lead to it from elsewhere."""

import math

import pytest
import torch

from led_fast.density.annealing import AnnealingPath
from led_fast.density.refinement import langevin, langevin_step_size, resample
from led_fast.flows import OneWayFlow, Sigmoid, StandardNormal

# The target, in the box: z = logit(x) ~ N(0.7, 0.5²), pushed through a sigmoid. The flow's own z are standard normal.
MEAN, SCALE = 0.7, 0.5


def critic(x):
    z = torch.logit(x)
    inside = -0.5 * ((z - MEAN) / SCALE) ** 2 - math.log(SCALE) - 0.5 * math.log(2 * math.pi)
    return (inside - torch.log(x * (1 - x))).sum(1) + 3.0


@pytest.fixture
def path():
    torch.manual_seed(0)
    return AnnealingPath(critic, OneWayFlow(StandardNormal(4), [Sigmoid()]))


def drawn(n):
    return torch.sigmoid(MEAN + SCALE * torch.randn(n, 4, dtype=torch.float64)).float()


def moments(x):
    z = torch.logit(x.double())
    return z.mean().item(), z.std().item()


@pytest.mark.parametrize("step_size", [0.2, 1.0])
def test_the_density_is_left_as_it_is_at_any_step(step_size, path):
    moved, acceptance = langevin(path, drawn(20_000), step_size, 20)
    mean, std = moments(moved)
    assert mean == pytest.approx(MEAN, abs=4 * SCALE / math.sqrt(80_000))
    assert std == pytest.approx(SCALE, abs=4 * SCALE / math.sqrt(2 * 80_000))
    assert (0.95 < acceptance < 1) if step_size == 0.2 else (0.2 < acceptance < 0.9)


def test_points_that_are_equal_part_and_find_the_density(path):
    x = torch.full((5000, 4), 0.5)
    step_size = langevin_step_size(path, x[:200])
    moved, acceptance = langevin(path, x, step_size, 60)
    assert len(moved.unique(dim=0)) > 4990 and 0.4 < acceptance < 0.8
    mean, std = moments(moved)
    assert mean == pytest.approx(MEAN, abs=0.02) and std == pytest.approx(SCALE, abs=0.02)


def test_a_single_sample_is_chosen_among_many():
    torch.manual_seed(0)
    proposal = OneWayFlow(StandardNormal(1), [Sigmoid()])
    z = torch.logit(torch.cat([resample(critic, proposal, 1, draws_per_sample=1).x for _ in range(1000)]))
    assert z.mean().item() == pytest.approx(MEAN, abs=5 * SCALE / math.sqrt(1000))
    assert z.std().item() == pytest.approx(SCALE, abs=5 * SCALE / math.sqrt(2000))
