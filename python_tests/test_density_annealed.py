"""Annealed importance sampling: transitions that keep their density, weights of the right mean, honest brackets."""

import math

import pytest
import torch
from torch import nn

from led_fast.data import grid, ring
from led_fast.density import AnnealingError, annealed_log_normalizer, quadrature_log_normalizer
from led_fast.density.annealed import anneal_forward, anneal_reverse
from led_fast.density.annealing import AnnealingPath, AnnealingSchedule, tune_annealing
from led_fast.flows import Affine, DiagonalNormal, Inflate, OneWayFlow, Sigmoid, StandardNormal
from led_fast.models import DCGANCritic

LOG_ALPHA = 2.5


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def normal_flow(features=2, scale=1.5, layers=()):
    return OneWayFlow(DiagonalNormal(torch.zeros(features).double(), scale), layers)


def quartic(z):
    """A density without closed form, two wells in each coordinate: (B, D) -> (B,)."""
    return -(z.square() - 1).square().sum(1)


LINE = torch.linspace(-8, 8, 200_001, dtype=torch.float64)
QUARTIC_LOG_NORMALIZER = math.log(torch.trapezoid(quartic(LINE[:, None]).exp(), LINE))  # of one coordinate


def draw(log_density, *shape):
    """Independent draws from a density on the line, by its cumulative sum."""
    cumulative = log_density(LINE[:, None]).softmax(0).cumsum(0)
    return LINE[torch.searchsorted(cumulative, torch.rand(shape, dtype=torch.float64)).clamp(max=200_000)]


@pytest.mark.parametrize("leapfrogs", [1, 3])
def test_transitions_leave_the_intermediate_density_invariant(leapfrogs):
    beta, n = 0.4, 40_000
    path = AnnealingPath(quartic, normal_flow(1))
    exact = draw(lambda z: 0.6 * path.proposal.base.log_prob(z) + beta * quartic(z), n, 1)
    state = path.at(exact)
    for _ in range(10):
        state, acceptance = path.move(state, beta, 1.2, leapfrogs)
    assert 0.3 < acceptance < 0.97  # a step that makes errors, which the acceptance must repair
    assert (state.z != exact).double().mean() > 0.9
    for function in (
        lambda z: z,
        torch.square,
        lambda z: (z > 0.5).double(),
        lambda z: (z.abs() > 1.5).double(),
    ):
        before, after = function(exact), function(state.z)
        error = math.sqrt((before.var() + after.var()) / n)
        assert abs(before.mean() - after.mean()) < 4 * error


def test_the_mean_weight_is_alpha_with_few_temperatures():
    """Forward E[w] = α, reverse E[1/w] = 1/α, also where the chains are far from equilibrium."""
    schedule = AnnealingSchedule([0.0, 0.3, 0.7, 1.0], [1.2, 0.9], leapfrogs=2, length=math.nan)
    scale, flow = 0.6, normal_flow(1, scale=1.0)
    path = AnnealingPath(lambda z: LOG_ALPHA + DiagonalNormal(torch.ones(1), scale).log_prob(z), flow)
    forward = anneal_forward(path, schedule, 40_000)
    samples = 1 + scale * torch.randn(40_000, 1, dtype=torch.float64)
    reverse = anneal_reverse(path, schedule, samples)
    for estimate in (forward, reverse):
        assert 0.003 < estimate.standard_error < 0.03
        assert abs(estimate.value - LOG_ALPHA) < 4 * estimate.standard_error
        low, high = estimate.ci95
        assert low < estimate.value < high and high - low == pytest.approx(
            4 * estimate.standard_error, rel=0.5
        )


def test_chains_run_in_parts_as_they_do_together():
    schedule, most = AnnealingSchedule([0.0, 0.5, 1.0], [0.8], leapfrogs=1, length=math.nan), []

    def critic(z):
        most.append(len(z))
        return quartic(z)

    estimate = anneal_forward(AnnealingPath(critic, normal_flow(1)), schedule, 4000, at_a_time=1500)
    assert estimate.samples == 4000 and max(most) == 1500
    assert abs(estimate.value - QUARTIC_LOG_NORMALIZER) < 4 * estimate.standard_error < 0.2


def test_bracket_of_separate_wells_in_ten_dimensions():
    flow, samples = normal_flow(10, scale=1.0), draw(quartic, 1000, 10)
    bracket = annealed_log_normalizer(quartic, flow, samples, temperatures=250, chains=1000)
    expected = 10 * QUARTIC_LOG_NORMALIZER
    forward, reverse = bracket.forward, bracket.reverse
    assert forward.reliable and reverse.reliable, (forward.reason, reverse.reason)
    assert abs(forward.value - expected) < 4 * forward.standard_error < 0.12
    assert abs(reverse.value - expected) < 4 * reverse.standard_error < 0.12
    assert bracket.gap == reverse.value - forward.value
    assert (forward.samples, forward.temperatures, forward.leapfrogs) == (1000, 250, 1)


def test_too_few_temperatures_leave_a_wide_bracket():
    mixture = ring()
    flow = normal_flow(layers=[Affine(mixture.scale, mixture.mean)])
    few, more = (
        annealed_log_normalizer(
            lambda x: mixture.log_prob(x) + LOG_ALPHA, flow, mixture.sample(400), temperatures, chains=400
        )
        for temperatures in (5, 300)
    )
    assert few.gap > 1 and not few.forward.reliable and not few.reverse.reliable
    assert abs(more.gap) < 0.3 * few.gap
    for estimate in (more.forward, more.reverse):
        assert abs(estimate.value - LOG_ALPHA) < 4 * estimate.standard_error < 0.5


def test_a_box_critic_of_images_annealed_in_and_out_of_the_box():
    """`-inf` outside: in latent coordinates behind a sigmoid, or in the box itself with every exit rejected."""

    class Box(nn.Module):
        def forward(self, x):
            inside = ((x >= 0) & (x <= 1)).flatten(1).all(1)
            value = LOG_ALPHA + (x + 0.5).log().flatten(1).sum(1)
            return torch.where(inside, value, -math.inf)

    shape = (1, 2, 2)
    expected = LOG_ALPHA  # ∫ (x + 1/2) dx = 1 on [0, 1]
    behind = OneWayFlow(DiagonalNormal(torch.zeros(shape), 1.5), [Sigmoid()])
    u = torch.rand(600, *shape)
    samples = (2 * u + 0.25).sqrt() - 0.5  # the inverse of the cumulative x²/2 + x/2
    bracket = annealed_log_normalizer(Box(), behind, samples, temperatures=30, chains=600)
    for estimate in (bracket.forward, bracket.reverse):
        assert estimate.reliable and abs(estimate.value - expected) < 4 * estimate.standard_error < 0.1
    direct = OneWayFlow(DiagonalNormal(torch.full(shape, 0.5), 0.4), [])
    forward = annealed_log_normalizer(Box(), direct, temperatures=60, chains=2000).forward
    assert abs(forward.value - expected) < 4 * forward.standard_error < 0.3


def test_images_in_eval_mode_without_touching_the_critic():
    critic = nn.Sequential(nn.Dropout(0.5), DCGANCritic(32, channels=1, width=4, penalty="off"))
    before = {name: value.clone() for name, value in critic.state_dict().items()}
    flow = OneWayFlow(DiagonalNormal(torch.zeros(1, 32, 32)), [Sigmoid()])
    forward = annealed_log_normalizer(critic, flow, temperatures=3, chains=40).forward
    assert math.isfinite(forward.value) and critic[0].training
    assert all(torch.equal(value, before[name]) for name, value in critic.state_dict().items())
    assert all(parameter.grad is None for parameter in critic.parameters())


def test_coordinates_of_any_scale_anneal_alike():
    scale = torch.logspace(-3, 3, 6, dtype=torch.float64)
    values = []
    for unit in (torch.ones(6, dtype=torch.float64), scale):
        torch.manual_seed(0)
        flow = OneWayFlow(DiagonalNormal(torch.zeros(6).double(), unit), [])
        critic = lambda x, unit=unit: quartic(x / unit) - unit.log().sum()  # noqa: E731
        values.append(annealed_log_normalizer(critic, flow, temperatures=30, chains=100).forward)
    assert values[0].value == pytest.approx(values[1].value) and values[0].ess_fraction > 0.3


def test_same_seed_same_bracket():
    values = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        values.append(annealed_log_normalizer(quartic, normal_flow(), temperatures=4, chains=40))
    assert values[0] == values[1] != values[2]


def test_the_schedule_spends_its_temperatures_where_the_density_changes():
    schedule = tune_annealing(AnnealingPath(grid().log_prob, normal_flow(scale=4.0)), 100)
    steps = [b - a for a, b in zip(schedule.betas, schedule.betas[1:], strict=False)]
    assert len(steps) == 100 and schedule.betas[0] == 0 and schedule.betas[-1] == 1 and min(steps) > 0
    assert steps[0] < 0.01 * steps[-1]
    assert schedule.step_sizes[0] > 3 * schedule.step_sizes[-1]


class WithoutInverse(nn.Module):
    bijective = True

    def forward(self, t):
        return t, t.new_zeros(len(t))


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (
            lambda: annealed_log_normalizer(quartic, normal_flow(), temperatures=1),
            ValueError,
            "temperatures and leapfrogs must be at least 2 and 1",
        ),
        (
            lambda: annealed_log_normalizer(quartic, normal_flow(), chains=39),
            ValueError,
            "chains must be at least 40, got 39",
        ),
        (
            lambda: annealed_log_normalizer(quartic, normal_flow(), samples=torch.zeros(5, 2)),
            ValueError,
            "samples must be at least 40, got 5",
        ),
        (
            lambda: annealed_log_normalizer(quartic, OneWayFlow(StandardNormal(2), [Inflate(1)])),
            ValueError,
            "proposal must be bijective",
        ),
        (
            lambda: annealed_log_normalizer(
                quartic, OneWayFlow(StandardNormal(2), [WithoutInverse()]), torch.zeros(40, 2)
            ),
            TypeError,
            "WithoutInverse cannot be inverted",
        ),
        (
            lambda: annealed_log_normalizer(lambda z: 0 * z.sum(1) - math.inf, normal_flow()),
            AnnealingError,
            "nearer to the target",
        ),
        (
            lambda: annealed_log_normalizer(lambda z: 0 * z.sum(1) + math.nan, normal_flow()),
            AnnealingError,
            "nearer to the target",
        ),
    ],
)
def test_bad_arguments(act, error, message):
    with pytest.raises(error, match=message):
        act()


def test_weights_that_are_nan_have_no_error_bar():
    path = AnnealingPath(lambda z: 0 * z.sum(1) + math.nan, normal_flow())
    estimate = anneal_forward(path, AnnealingSchedule([0.0, 0.5, 1.0], [1.0], 1, math.nan), 40)
    assert math.isnan(estimate.value) and math.isnan(estimate.standard_error) and not estimate.reliable


def test_quadrature_agrees_on_the_plane():
    critic = lambda z: quartic(z) + 0.5 * (3 * z[:, 0] * z[:, 1]).sin()  # noqa: E731
    exact = quadrature_log_normalizer(lambda z: critic(z.double()), (-5, -5), (5, 5)).value
    forward = annealed_log_normalizer(critic, normal_flow(), temperatures=40).forward
    assert abs(forward.value - exact) < 4 * forward.standard_error < 0.15
