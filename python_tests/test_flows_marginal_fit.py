"""The marginal layer's fit: against counts by hand, on columns that are hard, and what is refused."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from marginal_cases import KINDS, N, cells_of, column, density_of, fitted
from scipy import stats

from led_fast.flows import Marginal

# ---- the fit ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_fit_is_the_smoothed_empirical_distribution_at_each_edge(kind):
    layer, u = fitted(kind)
    edges, knots = (part.numpy() for part in cells_of(layer))
    below = (u.numpy() < edges).sum(0)
    k, cells, tail = np.arange(len(edges)), len(edges) - 1, 0.5 / (N + 1)
    wanted = tail + (1 - 2 * tail) * (below + k / 2) / (N + cells / 2)
    np.testing.assert_allclose(stats.norm.cdf(knots), wanted, rtol=1e-12)
    np.testing.assert_allclose(stats.norm.sf(knots), 1 - wanted, rtol=1e-9)
    assert (np.diff(edges) > 0).all() and (np.diff(knots) > 0).all()
    assert below[0] == 0 and below[-1] == N


@pytest.mark.parametrize("kind", ["integers", "two values", "gaps"])
def test_a_lattice_has_a_cell_for_each_value(kind):
    layer, u = fitted(kind)
    _, step = column(kind)
    counts = Counter(u[:, 0].tolist())
    values = sorted(counts)
    gaps = sum(b - a > 1.5 * step for a, b in pairwise(values))
    cells = len(values) + gaps
    assert layer.cells == cells
    mass = density_of(layer).log_prob(torch.tensor(values, dtype=torch.float64)[:, None]).exp() * step
    wanted = [(counts[v] + 0.5) / (N + cells / 2) * N / (N + 1) for v in values]
    torch.testing.assert_close(mass, torch.tensor(wanted, dtype=torch.float64), rtol=1e-12, atol=0)
    assert gaps > 0 or kind != "gaps"


def test_a_lattice_of_one_value_has_one_cell_and_tails():
    """As of a rare category that only held-out rows have."""
    layer = Marginal.fit(torch.zeros(100, 1, dtype=torch.float64), [1.0])
    assert layer.edges.tolist() == [[-0.5, 0.5]]
    density = density_of(layer)
    mass = density.log_prob(torch.zeros(1, 1, dtype=torch.float64)).exp().item()
    assert mass == pytest.approx(100 / 101, rel=1e-12)
    x = torch.linspace(-20, 20, 40_001, dtype=torch.float64)[:, None]
    assert torch.trapezoid(density.log_prob(x).exp(), x[:, 0]).item() == pytest.approx(1, abs=2e-3)
    assert density.log_prob(torch.ones(1, 1, dtype=torch.float64)).item() > -10


def test_samples_fall_into_the_cells_as_often_as_the_data():
    layer, u = fitted("integers")
    torch.manual_seed(0)
    draws = density_of(layer).sample(100_000).round().flatten()
    values = range(int(u.min()), int(u.max()) + 1)
    cells = len(values)
    wanted = torch.tensor([((u == v).sum() + 0.5) / (N + cells / 2) * N / (N + 1) for v in values]).double()
    found = torch.tensor([(draws == v).sum() for v in values], dtype=torch.float64)
    beyond = len(draws) - found.sum()
    assert beyond < 5 * len(draws) / N
    often = wanted * len(draws) > 10
    chi2 = ((found - wanted * len(draws)).square() / (wanted * len(draws)))[often].sum()
    assert stats.chi2.sf(chi2.item(), int(often.sum())) > 1e-3


def test_quantiles_hold_equally_many_rows_and_fewer_at_both_ends():
    layer, u = fitted("lognormal")
    rows = torch.bincount(torch.bucketize(u[:, 0], layer.edges[0]))[1:]
    outer = N / 64 / 4  # once more would be below four rows
    wanted = torch.tensor([outer, 3 * outer, *62 * [N / 64], 3 * outer, outer])
    assert len(rows) == 66 and (rows - wanted).abs().max() <= 2


@pytest.mark.parametrize("draw", [torch.distributions.StudentT(3.0), torch.distributions.Normal(0.0, 1.0)])
def test_finer_ends_pay_on_new_data(draw, monkeypatch):
    torch.manual_seed(1)
    train, new = draw.sample((6000, 20)).double(), draw.sample((6000, 20)).double()
    fine = density_of(Marginal.fit(train)).log_prob(new)
    monkeypatch.setattr("led_fast.flows.marginal._LEAST_ROWS", 1e9)
    plain = density_of(Marginal.fit(train)).log_prob(new)
    assert (fine - plain).mean() / 20 > 0.01


def test_a_value_that_repeats_in_a_continuous_column_has_its_own_cell():
    layer, u = fitted("atoms")
    edges, knots = cells_of(layer)
    share = torch.special.ndtr(knots).diff()
    for value in (-0.5, 1.0):
        k = int(torch.searchsorted(edges, torch.tensor(value, dtype=torch.float64), right=True)) - 1
        assert edges[k] < value < edges[k + 1] and edges[k + 1] - edges[k] < 0.05
        assert abs(share[k] - (u == value).double().mean()) < 0.002
        t, _ = layer.inverse(torch.tensor([[value]], dtype=torch.float64))
        assert knots[k] < t < knots[k + 1]


def test_cells_of_a_long_lattice_end_between_its_values():
    layer, u = fitted("many levels")
    border = (layer.edges[0] - u.min()) / 0.125 - 0.5
    assert len(u.unique()) > 256 and layer.cells == 66
    torch.testing.assert_close(border, border.round(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("step", [0.1, 1 / 3, 1e-3, 0.7])
@pytest.mark.parametrize("first", [0.0, -7.3])
def test_neighbours_on_a_lattice_share_their_border(first, step):
    u = first + step * torch.arange(200, dtype=torch.float64)[:, None]
    assert Marginal.fit(u, [step]).cells == 200


def test_values_of_a_lattice_may_differ_by_rounding():
    u = torch.tensor([0.1 + 0.2, 0.3, 0.1, 0.7, 0.7], dtype=torch.float64)[:, None]
    layer = Marginal.fit(u, [0.1])
    wanted = torch.tensor([0.05, 0.15, 0.25, 0.35, 0.65, 0.75], dtype=torch.float64)
    torch.testing.assert_close(layer.edges[0], wanted)


@pytest.mark.parametrize(
    ("draw", "least_gain"),
    [
        (torch.distributions.Exponential(1.0), {0.2: 0.001, 5.0: 0.0005}),
        (
            torch.distributions.StudentT(3.0),
            {0.2: 0.005, 5.0: -0.002},
        ),  # so heavy that wider tails do as well
    ],
)
def test_other_tails_do_no_better_on_new_data(draw, least_gain):
    torch.manual_seed(1)
    train, new = draw.sample((800, 30)).double(), draw.sample((8000, 30)).double()
    layer = Marginal.fit(train)
    flow, slopes = density_of(layer), layer.slopes.clone()
    own = flow.log_prob(new).mean() / 30
    for factor, gain in least_gain.items():
        layer.slopes.copy_(factor * slopes)
        assert own - flow.log_prob(new).mean() / 30 > gain


# ---- nasty columns ---------------------------------------------------------------------------------------


def nasty(elements: st.SearchStrategy[float]) -> st.SearchStrategy[np.ndarray]:
    few = st.lists(elements, min_size=2, max_size=4).flatmap(
        lambda values: npst.arrays(np.float64, st.integers(2, 80), elements=st.sampled_from(values))
    )
    return few | npst.arrays(np.float64, st.integers(2, 80), elements=elements)


FLOATS = st.floats(-1e300, 1e300, allow_subnormal=False) | st.sampled_from([1e-300, -1e-300, 0.0, 1e300, 1.0])


@settings(max_examples=150, deadline=None)
@given(nasty(FLOATS).filter(lambda u: u.min() < u.max()))
@example(np.array([1e300, np.nextafter(1e300, np.inf)]))
@example(np.array([1.0, np.nextafter(1.0, 2.0)]))
def test_any_column_has_a_strictly_monotone_map(values):
    u = torch.from_numpy(values)[:, None]
    layer = Marginal.fit(u)
    edges, knots = cells_of(layer)
    assert (edges.diff() > 0).all() and (knots.diff() > 0).all() and (layer.slopes > 0).all()
    assert edges[0] <= u.min() and u.max() <= edges[-1] and layer.cells <= 2 * 64
    t, ladj = layer.inverse(u)
    assert t.isfinite().all() and ladj.isfinite().all() and (t.abs() < 4).all()
    order = u[:, 0].argsort()
    assert (t[order, 0].diff() >= -1e-12).all()
    middles = (knots[1:] + knots[:-1])[:, None] / 2
    out, ladj = layer(middles)
    assert ladj.isfinite().all() and (out.diff(dim=0) >= 0).all()
    assert ((out[:, 0] >= edges[:-1]) & (out[:, 0] <= edges[1:])).all()
    wide = edges.diff() > 1e-6 * torch.maximum(edges[1:].abs(), edges[:-1].abs())  # else t has few digits
    torch.testing.assert_close(layer.inverse(out)[0][wide], middles[wide], rtol=0, atol=1e-8)


@settings(max_examples=100, deadline=None)
@given(
    nasty(st.integers(-(10**6), 10**6).map(float)).filter(lambda u: u.min() < u.max()),
    st.sampled_from([1.0, 1e-3, 1 / 3, 1e9]),
)
def test_any_lattice_keeps_its_counts(levels, step):
    u = torch.from_numpy(levels * step)[:, None]
    layer = Marginal.fit(u, [step])
    counts = Counter(levels.tolist())
    edges, _ = cells_of(layer)
    n, cells = len(u), len(edges) - 1
    values = sorted(counts)
    assert cells == len(values) + sum(b - a > 1 for a, b in pairwise(values))
    mass = density_of(layer).log_prob(u).exp() * step
    wanted = [(counts[v] + 0.5) / (n + cells / 2) * n / (n + 1) for v in levels.tolist()]
    torch.testing.assert_close(mass, torch.tensor(wanted, dtype=torch.float64), rtol=1e-6, atol=0)


# ---- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("u", "steps", "error", "message"),
    [
        (torch.zeros(5, 2, dtype=torch.long), None, TypeError, "u must be a floating-point tensor, got torch.int64"),
        (np.zeros((5, 2)), None, TypeError, "u must be a floating-point tensor, got ndarray"),
        (torch.zeros(5), None, ValueError, r"u must have shape \(n, D\) or \(n, D, H, W\), got \(5,\)"),
        (torch.zeros(5, 2, 3), None, ValueError, r"got \(5, 2, 3\)"),
        (torch.zeros(5, 0), None, ValueError, r"got \(5, 0\)"),
        (torch.ones(1, 2), None, ValueError, r"two rows or more, got shape \(1, 2\)"),
        (torch.zeros(0, 2), None, ValueError, r"two rows or more, got shape \(0, 2\)"),
        (torch.tensor([[1.0, 2.0], [2.0, math.nan]]), None, ValueError, "finite, got nan in feature 1, value 1"),
        (torch.tensor([[1.0], [-math.inf]]), None, ValueError, "finite, got -inf in feature 0, value 1"),
        (torch.tensor([[1.0, 2.5], [2.0, 2.5]]), None, ValueError, "two values or more in feature 1, got 2.5"),
        (torch.tensor([[0.0], [1.0], [1.5]]), [1.0], ValueError, "lattice of step 1 in feature 0, got 0 and 1.5"),
        (torch.tensor([[0.0], [1.0]]), [1.0, 1.0], ValueError, "steps must be one for each of 1 features"),
        (torch.tensor([[0.0], [1.0]]), 1.0, ValueError, "steps must be one for each of 1 features"),
        (torch.tensor([[0.0], [1.0]]), [-1.0], ValueError, "steps must be finite and not negative"),
        (torch.tensor([[0.0], [1.0]]), [math.nan], ValueError, "steps must be finite and not negative"),
        (1e308 * torch.tensor([[-1.7], [1.7]], dtype=torch.float64), None, ValueError, "more in feature 0"),
        (torch.tensor([[1e20], [2e20]], dtype=torch.float64), [1.0], ValueError, "got 1 for feature 0"),
    ],
)  # fmt: skip
def test_what_has_no_histogram_is_refused(u, steps, error, message):
    with pytest.raises(error, match=f"Marginal.fit: .*{message}"):
        Marginal.fit(u, steps)


def test_bad_sizes():
    for sizes, name in (((0, 4), "features"), ((3, 0), "cells")):
        with pytest.raises(ValueError, match=f"Marginal: {name} must be positive"):
            Marginal(*sizes)
    layer = Marginal(2, 4)
    with pytest.raises(TypeError, match="floating-point"):
        layer.inverse(torch.zeros(3, 2, dtype=torch.long))
