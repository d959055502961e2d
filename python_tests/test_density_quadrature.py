"""Adaptive quadrature on the plane against analytic mixtures."""

import math

import pytest
import torch
from flow_oracles import gaussian_mixture
from hypothesis import given, settings
from hypothesis import strategies as st

from led_fast.density import quadrature_log_normalizer
from led_fast.models import points_critic

ANGLES = torch.arange(8, dtype=torch.float64) * math.tau / 8
RING = torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1)
GRID = torch.cartesian_prod(*2 * [torch.linspace(-4, 4, 5, dtype=torch.float64)])


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    case=st.sampled_from([(RING, 0.01, 4.0), (RING, 0.014, 6.0), (GRID, 0.05, 7.0), (RING[:1], 0.02, 8.0)]),
    shift=st.tuples(st.floats(-1.5, 1.5), st.floats(-1.5, 1.5)),
)
def test_narrow_modes_are_found_and_integrated(case, shift):
    means, std, size = case
    log_prob = gaussian_mixture(means + torch.tensor(shift), std)
    estimate = quadrature_log_normalizer(lambda x: log_prob(x) + 2.5, (-size, -size), (size, size))
    assert abs(estimate.value - 2.5) < 1e-4
    assert estimate.error < 1e-4 and estimate.edge_share < 1e-12


@pytest.mark.parametrize("place", torch.rand(12, 2, generator=torch.Generator().manual_seed(0)).tolist())
def test_a_rare_narrow_mode_beside_a_broad_one(place):
    narrow = gaussian_mixture(torch.tensor([place]) * 4 - 2, 18 / 128 / 8)  # an eighth of a first cell
    broad = gaussian_mixture(torch.tensor([[-1.0, 2.0]]), 1.0)

    def log_prob(x):
        return torch.logaddexp(narrow(x) + math.log(0.01), broad(x) + math.log(0.99))

    assert abs(quadrature_log_normalizer(log_prob, (-9, -9), (9, 9)).value) < 1e-4


def test_a_smooth_density_needs_no_refinement_but_at_its_peak():
    estimate = quadrature_log_normalizer(gaussian_mixture(torch.zeros(1, 2), 1.0), (-9, -8), (10, 11))
    assert abs(estimate.value) < 1e-6 and estimate.evaluations <= 9 * (128**2 + 4 * 25)


def test_mass_outside_the_box_shows_at_its_edge():
    estimate = quadrature_log_normalizer(gaussian_mixture(torch.zeros(1, 2), 1.0), (-2, -2), (2, 2))
    assert estimate.value == pytest.approx(2 * math.log(math.erf(math.sqrt(2))), abs=1e-4)
    assert estimate.edge_share > 1e-3


def test_bounded_support_and_discontinuities():
    def log_density(x):
        return torch.where((x.abs() < 1.05).all(dim=1), 0.0, -math.inf)

    estimate = quadrature_log_normalizer(log_density, (-2, -2), (2, 2), tolerance=1e-3)
    assert estimate.value == pytest.approx(math.log(2.1**2), abs=2e-3)


def test_stops_at_its_budget_and_says_so():
    log_prob = gaussian_mixture(RING, 0.01)
    estimate = quadrature_log_normalizer(log_prob, (-4, -4), (4, 4), tolerance=1e-9, max_evaluations=160_000)
    assert estimate.evaluations < 200_000 and estimate.error > 1e-9


def test_a_critic_module_is_called_in_its_own_dtype():
    torch.manual_seed(0)
    critic = points_critic().float()
    single = quadrature_log_normalizer(critic, (-12, -12), (12, 12))
    double = quadrature_log_normalizer(critic.double(), (-12, -12), (12, 12))
    assert single.value == pytest.approx(double.value, abs=1e-4)


@pytest.mark.parametrize("corners", [((0, 0), (1, 0)), ((0, 0, 0), (1, 1, 1))])
def test_bad_box(corners):
    with pytest.raises(ValueError, match="low < high"):
        quadrature_log_normalizer(gaussian_mixture(RING, 0.1), *corners)
