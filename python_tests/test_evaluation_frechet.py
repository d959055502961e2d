"""The Fréchet distance, against Gaussians whose distance is known."""

import numpy as np
import pytest
import torch

from led_fast.evaluation import frechet_distance


def samples_with(mean, covariance, n=200):
    """Points whose sample mean and covariance are exactly the given ones."""
    x = torch.randn(n, len(mean), dtype=torch.float64)
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T
    return x @ torch.linalg.cholesky(covariance).T + mean


def test_frechet_distance_of_isotropic_gaussians():
    torch.manual_seed(0)
    shift = torch.randn(5, dtype=torch.float64)
    a = samples_with(torch.zeros(5, dtype=torch.float64), 4 * torch.eye(5, dtype=torch.float64))
    b = samples_with(shift, 9 * torch.eye(5, dtype=torch.float64), n=90)
    # ‖μ‖² + d (σ_a - σ_b)²
    assert frechet_distance(a, b) == pytest.approx(shift.square().sum().item() + 5, rel=1e-10)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-10)


def test_frechet_distance_of_any_gaussians():
    linalg = pytest.importorskip("scipy.linalg")
    torch.manual_seed(0)
    roots = torch.randn(2, 6, 6, dtype=torch.float64)
    cov_a, cov_b = roots @ roots.mT + 0.1 * torch.eye(6)
    mean_a, mean_b = torch.randn(2, 6, dtype=torch.float64)
    root = linalg.sqrtm((cov_a @ cov_b).numpy())  # of the product that is not symmetric
    expected = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * np.trace(root).real
    distance = frechet_distance(samples_with(mean_a, cov_a), samples_with(mean_b, cov_b, n=70))
    assert distance == pytest.approx(expected.item(), rel=1e-8)


def test_frechet_distance_with_fewer_images_than_features():
    torch.manual_seed(0)
    a, b = torch.randn(10, 50), torch.randn(12, 50)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-8)
    assert frechet_distance(torch.zeros(10, 1), torch.ones(10, 1)) == pytest.approx(1)


def test_rounding_makes_no_frechet_distance_negative():
    torch.manual_seed(0)
    sets = 10 * torch.randn(50, 40, 8, dtype=torch.float64)
    assert all(0 <= frechet_distance(x, x) < 1e-9 for x in sets)


@pytest.mark.parametrize("shapes", [((10, 3), (10, 4)), ((1, 3), (10, 3)), ((10,), (10,))])
def test_frechet_distance_of_other_shapes(shapes):
    with pytest.raises(ValueError, match="frechet_distance: a and b must have shapes"):
        frechet_distance(torch.zeros(shapes[0]), torch.zeros(shapes[1]))
