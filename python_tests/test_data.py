import math

import numpy as np
import pytest
import torch

from led_fast.data import grid, open_source, ring
from led_fast.errors import InputError

MIXTURES = pytest.mark.parametrize("make, modes, mean_log_prob", [(ring, 8, 4.2930), (grid, 25, -0.0653)])


@MIXTURES
def test_centers_are_distinct_and_as_stated(make, modes, mean_log_prob):
    mixture = make()
    assert mixture.centers.shape == (modes, 2)
    distance = torch.cdist(mixture.centers, mixture.centers) + 10 * torch.eye(modes)
    assert distance.min() > 40 * mixture.std * 0.99


@MIXTURES
def test_log_prob_is_that_of_torch_distributions(make, modes, mean_log_prob):
    mixture = make()
    component = torch.distributions.Independent(torch.distributions.Normal(mixture.centers, mixture.std), 1)
    oracle = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=torch.zeros(modes)), component
    )
    x = torch.cat([mixture.sample(500), torch.randn(500, 2, dtype=torch.float64)])
    torch.testing.assert_close(mixture.log_prob(x), oracle.log_prob(x))


@MIXTURES
def test_entropy_moments_and_share_within_three_sigma(make, modes, mean_log_prob):
    torch.manual_seed(0)
    mixture = make()
    x = mixture.sample(100_000)
    assert -mixture.entropy == pytest.approx(mean_log_prob, abs=1e-4)
    assert mixture.log_prob(x).mean().item() == pytest.approx(mean_log_prob, abs=5 / math.sqrt(len(x)))
    torch.testing.assert_close(x.mean(0), mixture.mean, atol=0.05, rtol=0)
    torch.testing.assert_close(x.std(0), mixture.scale, atol=0, rtol=0.01)
    distance, index = mixture.nearest(x)
    assert (distance <= 3).double().mean().item() == pytest.approx(1 - math.exp(-4.5), abs=0.002)
    assert torch.bincount(index, minlength=modes).min() > 0.8 * len(x) / modes


def test_sampling_follows_the_global_seed():
    draws = []
    for _ in range(2):
        torch.manual_seed(3)
        draws.append(ring().sample(10))
    assert torch.equal(*draws)


@pytest.mark.parametrize("name, message", [("rings", "rings: want ring"), ("no.csv", "no such file")])
def test_unknown_source(name, message):
    with pytest.raises(InputError, match=message):
        open_source(name)


def test_table_holds_out_a_fixed_tenth(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(3, 5, (1000, 2)))
    source = open_source(str(tmp_path / "a.npy"))
    held_out = {tuple(row) for row in source.held_out(10_000).tolist()}
    drawn = {tuple(row) for row in source.sample(20_000).tolist()}
    assert len(held_out) == 100 and len(drawn) == 900 and not held_out & drawn
    torch.testing.assert_close((source.shift, source.scale), (source._rows.mean(0), source._rows.std(0)))
    again = open_source(str(tmp_path / "a.npy"))
    assert torch.equal(again.held_out(100), source.held_out(100)) and again.fingerprint == source.fingerprint


@pytest.mark.parametrize(
    "rows, message",
    [
        (np.zeros((10, 2)), "at least 100 rows"),
        (np.eye(200, 2) * [1, 0], "column 2 is constant"),
        (np.eye(200, 2) * [1e300, 1], "column 1 has a spread beyond float64"),
    ],
)
def test_table_without_a_density(tmp_path, rows, message):
    np.save(tmp_path / "a.npy", rows)
    with pytest.raises(InputError, match=message):
        open_source(str(tmp_path / "a.npy"))
