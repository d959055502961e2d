"""Every evaluation is that of a model in eval mode, and leaves a model in training as it was."""

import copy
import inspect
from functools import partial

import numpy as np
import pytest
import torch
from coarse import coarsen
from image_sources import noise_source
from torch import nn

from led_fast import evaluation
from led_fast.data import MixtureSource, ring
from led_fast.data.tables import Column, TableSource, table_of
from led_fast.density import DensityModel, quadrature_log_normalizer
from led_fast.flows import BatchNorm, OneWayFlow, Sigmoid, StandardNormal

SHAPE = (1, 8, 8)


class Critic(nn.Module):
    """Its own flow's density, and noise in training."""

    def __init__(self, flow):
        super().__init__()
        self.flow, self.dropout = flow, nn.Dropout()

    def forward(self, x):
        return self.flow.log_prob(x) + self.dropout(x).flatten(1).mean(1)


def model_of(*parts):
    """Its generator's statistics move wherever it draws in training."""
    torch.manual_seed(0)
    flow = OneWayFlow(*parts).train()
    flow.rsample(64)
    model = DensityModel(Critic(copy.deepcopy(flow)), flow)
    model.set_log_normalizer(0.5)
    return model.train()


def of_images():
    return model_of(StandardNormal(*SHAPE), [BatchNorm(1), Sigmoid()])


def of_points():
    return model_of(StandardNormal(2), [BatchNorm(2)])


def table_source():
    return TableSource("t.csv", table_of(np.random.default_rng(0).normal(size=(500, 2)), "ab", "t.csv"))


COLUMNS = [Column(name, 0, "float", 0.0, 0.0, 0, 0.0, 0.0, None) for name in "ab"]
ROWS = torch.linspace(-1, 1, 20, dtype=torch.float64).view(10, 2)
SEEDED = {"seed": 0}
CASES = {
    "estimate_image_normalizer": (
        of_images,
        lambda f, m: f(m, noise_source(), samples=40, temperatures=3, chains=40).estimates,
    ),
    "evaluate": (of_points, lambda f, m: f(m, MixtureSource("ring", ring()), 0).report),
    "evaluate_image_flow": (
        lambda: of_images().generator,
        lambda f, m: f(m, noise_source(), 0, samples=100).report,
    ),
    "evaluate_image_samples": (
        lambda: of_images().generator,
        lambda f, m: f(m, noise_source(), 0, samples=100).samples.tolist(),
    ),
    "evaluate_images": (
        of_images,
        lambda f, m: f(m, noise_source(), 0, samples=100, temperatures=3, chains=40).report,
    ),
    "evaluate_table": (of_points, lambda f, m: f(m, table_source(), 0, cap=3.0, draws=2000).report),
    "quadrature_in_data_coordinates": (
        lambda: of_points().critic,
        lambda f, m: f(m, torch.zeros(2).double(), torch.ones(2).double()),
    ),
    "refine_images": (of_images, lambda f, m: f(m, 4, transitions=1).images.tolist()),
    "score_rows": (of_points, lambda f, m: f(m, ROWS, COLUMNS, explain=2).log_density.tolist()),
}


def test_every_public_function_that_takes_a_model_is_here():
    def takes_one(function):
        parameters = inspect.signature(function).parameters
        return bool({"model", "flow", "critic"} & set(parameters))

    public = {name: getattr(evaluation, name) for name in evaluation.__all__}
    assert {n for n, f in public.items() if inspect.isfunction(f) and takes_one(f)} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_the_mode_of_a_model_is_no_matter(name, monkeypatch):
    coarsen(monkeypatch.setattr)
    make, call = CASES[name]
    check(make(), partial(call, getattr(evaluation, name)))


def test_nor_of_a_critic_that_is_integrated():
    box = ((-3.0, -3.0), (3.0, 3.0))
    check(of_points().critic, lambda critic: quadrature_log_normalizer(critic, *box, cells=8, tolerance=0.1))


def check(model, call):
    before = copy.deepcopy(model.state_dict())
    found = []
    for training in (True, False):
        torch.manual_seed(1)
        found.append(call(model.train(training)))
        assert all(module.training is training for module in model.modules())
        for key, value in model.state_dict().items():
            assert torch.equal(value, before[key]), key
    assert str(found[0]) == str(found[1])
