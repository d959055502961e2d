"""Inflate and Slice: what is added and dropped, and integrals that come out right for any conditional."""

import math

import pytest
import torch
from flow_oracles import randomize

from led_fast.density import quadrature_log_normalizer
from led_fast.flows import (
    GaussianConditional,
    Inflate,
    LearnedConditional,
    Linear,
    OneWayFlow,
    Slice,
    Staircase,
    StandardNormal,
)

CONDITIONALS = {
    "learned": lambda: randomize(LearnedConditional(1, 1), 0.05),
    "gaussian": lambda: GaussianConditional(1.0),
    "bad": lambda: GaussianConditional(0.3),
}


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(1)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_inflate_appends_noise_and_its_density():
    t = torch.randn(2000, 3, 2)
    out, ladj = Inflate(4)(t)
    noise = out[:, 3:]
    assert out.shape == (2000, 7, 2) and torch.equal(out[:, :3], t)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(noise).sum(dim=(1, 2))
    torch.testing.assert_close(-ladj, expected)
    assert abs(noise.mean()) < 0.04 and abs(noise.std() - 1) < 0.04


@pytest.mark.parametrize("conditional", CONDITIONALS)
def test_alpha_is_right_for_any_conditional(conditional, monkeypatch):
    # alpha = E[N(y) / q(y)] over all noise (z, η), itself by quadrature: no sampling error to hide behind.
    flow = OneWayFlow(
        StandardNormal(1),
        [
            Inflate(1),
            randomize(Linear(2)),
            randomize(Staircase(2, steps=3)),
            randomize(Linear(2)),
            Slice(2, 1),
        ],
    )
    flow.layers[-1].conditional = CONDITIONALS[conditional]()
    log_alpha = math.log(5.0)

    def critic(y):
        return log_alpha + torch.distributions.Normal(0.4, 0.8).log_prob(y[:, 0])

    def integrand(u):
        monkeypatch.setattr(torch.Tensor, "normal_", lambda noise: noise.copy_(u[:, 1:]))
        y, ladj = flow(u[:, :1])
        log_q = flow.base.log_prob(u[:, :1]) - ladj
        return torch.distributions.Normal(0.0, 1.0).log_prob(u).sum(1) + critic(y) - log_q

    estimate = quadrature_log_normalizer(integrand, (-30, -30), (30, 30), cells=256)
    assert estimate.value == pytest.approx(log_alpha, abs=2e-3)


def test_entropy_bound_is_tight_at_the_true_conditional_only():
    # (t1, t2) with t1 ~ N(0, 1), t2 | t1 ~ N(t1, .5²): then log q - log r is the density of t1 itself.
    flow = OneWayFlow(StandardNormal(2), [Linear(2), Slice(2, 1, GaussianConditional(0.5))])
    with torch.no_grad():
        flow.layers[0].weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 0.5]]))
    y, log_q = flow.rsample_and_log_prob(1000)
    torch.testing.assert_close(log_q, torch.distributions.Normal(0.0, 1.0).log_prob(y[:, 0]))
    entropy = 0.5 * math.log(2 * math.pi * math.e)
    for sigma in (0.25, 1.0):
        flow.layers[1].conditional = GaussianConditional(sigma)
        assert -flow.rsample_and_log_prob(20_000)[1].mean() < entropy - 0.1


@pytest.mark.parametrize(("dropped", "kept"), [(1, 2), (2, 2), (2, 1)])
def test_learned_conditional_is_normalised(dropped, kept):
    conditional = randomize(LearnedConditional(dropped, kept, width=16), 0.15)
    context = torch.randn(1, kept)

    def log_density(t2):
        value = conditional(t2[:, :dropped], context.expand(len(t2), kept))
        # A spare coordinate for the plane's quadrature where only one is dropped.
        spare = torch.distributions.Normal(0.0, 1.0).log_prob(t2[:, 1]) if dropped == 1 else 0.0
        return value + spare

    estimate = quadrature_log_normalizer(log_density, (-25, -25), (25, 25), cells=256)
    assert estimate.value == pytest.approx(0.0, abs=2e-3)


def test_learned_conditional_learns_a_curved_one():
    # t2 = (a, b) with a ~ N(sin 2 t1, .2²) and b ~ N(a², .1²): no diagonal normal around t1 comes near it.
    torch.set_default_dtype(torch.float32)
    conditional = LearnedConditional(2, 2, directions=8)
    optimizer = torch.optim.Adam(conditional.parameters(), 5e-3)

    def draw(n):
        t1 = torch.randn(n, 2)
        a = torch.sin(2 * t1[:, :1]) + 0.2 * torch.randn(n, 1)
        return t1, torch.cat([a, a.square() + 0.1 * torch.randn(n, 1)], dim=1)

    for _ in range(600):
        t1, t2 = draw(256)
        loss = -conditional(t2, t1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    entropy = math.log(2 * math.pi * math.e) + math.log(0.2 * 0.1)
    t1, t2 = draw(5000)
    assert -conditional(t2, t1).mean().item() - entropy < 0.15


def test_gaussian_conditional_on_images():
    dropped, kept = torch.randn(2, 3, 2, 4, 4)
    expected = torch.distributions.Normal(kept, 0.7).log_prob(dropped).sum(dim=(1, 2, 3))
    torch.testing.assert_close(GaussianConditional(0.7)(dropped, kept), expected)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: Inflate(0), "features must be positive"),
        (lambda: Slice(4, 4), "keep must lie between 0 and features = 4, got 4"),
        (lambda: GaussianConditional(0.0), "sigma must be positive"),
        (lambda: Slice(4, 1, GaussianConditional())(torch.randn(2, 4)), "got 3 and 1"),
        (lambda: Slice(4, 2)(torch.randn(2, 5)), r"shape \(B, 4, ...\), got \(2, 5\)"),
    ],
)
def test_bad_arguments(act, message):
    with pytest.raises(ValueError, match=message):
        act()
