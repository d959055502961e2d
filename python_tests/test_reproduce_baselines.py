"""The baselines of Table 1, on cases where the right answer is known."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import gaussian_kde

from led_fast.data import GaussianMixture, open_source, ring
from led_fast.reproduce import flow
from led_fast.reproduce.kde import KernelDensity, fit_kernel_density
from led_fast.reproduce.led import gan_cell
from led_fast.reproduce.quality import density_quality, mixture_source, sample_quality
from led_fast.training import TrainConfig


def test_kernel_density_is_scipys():
    torch.manual_seed(0)
    points, x = torch.randn(200, 2).double(), 2 * torch.randn(300, 2).double()
    theirs = gaussian_kde(points.T.numpy(), bw_method=1.0)
    theirs.set_bandwidth(0.3)
    whitening = torch.linalg.cholesky(torch.from_numpy(theirs.covariance / 0.3**2))
    white = [torch.linalg.solve_triangular(whitening, v.T, upper=False).T for v in (points, x)]
    ours = KernelDensity(white[0], 0.3).log_prob(white[1]) - whitening.diagonal().log().sum()
    torch.testing.assert_close(ours, torch.from_numpy(theirs.logpdf(x.T.numpy())))


def test_the_width_with_the_highest_likelihood_is_taken():
    torch.manual_seed(0)
    density = fit_kernel_density(torch.randn(2000, 2), torch.randn(500, 2), scale=1.0)
    best = 2000 ** (-1 / 6)  # Silverman's rule for a normal in the plane
    assert best / 1.6 < density.width < best * 1.6
    drawn = density.sample(4000)
    assert (drawn.std(0) - math.sqrt(1 + density.width**2)).abs().max() < 0.05


def test_qualities_of_the_truth_and_of_a_wider_density():
    torch.manual_seed(0)
    truth = ring()
    quality = sample_quality(truth.sample(20_000), truth)
    assert quality["modes"] == quality["modes_total"] == 8
    assert (
        abs(quality["high_quality_percent"] - 98.889) < 0.8 and abs(quality["bridge_percent"] - 1.111) < 0.3
    )
    exact = density_quality(truth.log_prob, truth)
    assert exact["kl_data_model"] == 0 and abs(exact["held_out_nll"] - truth.entropy) < 0.03
    wider = GaussianMixture(truth.centers, 2 * truth.std)
    kl = 2 * (math.log(2) - 0.5 * (1 - 1 / 4))  # of two normals in the plane, one twice as wide
    assert abs(density_quality(wider.log_prob, truth)["kl_data_model"] - kl) < 0.02


def test_a_source_of_unknown_density_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(200, 2)))
    with pytest.raises(ValueError, match="mixture_source: data must be ring or grid"):
        mixture_source(str(tmp_path / "a.npy"))


def test_the_gan_moves_towards_the_data(tmp_path):
    def distance(steps):
        folder = tmp_path / str(steps)
        folder.mkdir()
        cell = gan_cell("gan", TrainConfig.of(open_source("ring"), steps=steps))
        report = cell.work(folder, **cell.settings)
        samples = torch.from_numpy(np.load(folder / "samples.npy"))
        assert samples.shape == (2500, 2) and report["modes_total"] == 8
        return ring().nearest(samples)[0].median().item()

    assert distance(300) < 0.5 * distance(1)


def test_the_flow_is_normalised_and_fits(tmp_path):
    pytest.importorskip("zuko")
    assert flow.available()
    shape = {"transforms": 2, "width": 16, "bins": 6}
    reports = [
        flow.train_flow(tmp_path, "ring", seed=0, steps=steps, learning_rate=1e-2, **shape)
        for steps in (1, 60)
    ]
    assert reports[1]["kl_data_model"] < reports[0]["kl_data_model"] - 1
    # The same density by two routes: its samples' share near the modes, and its likelihood of true points.
    assert reports[1]["kl_data_model"] > 0 and reports[1]["kl_generator_model"] == 0
