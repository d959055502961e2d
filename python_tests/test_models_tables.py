"""Models of tables: the flow of normal columns, the capped tilt, and both joined in the data's units."""

import math

import pytest
import torch

from led_fast.density import DensityModel
from led_fast.flows import Marginal, OneWayFlow
from led_fast.models.tables import (
    CappedTilt,
    TableCoordinates,
    TableCriticConfig,
    TableGeneratorConfig,
    table_density,
    table_generator,
)

_STEPS, _OFFSETS = [0.0, 2.0], [0.0, 101.0]
_SHIFT, _SCALE = torch.tensor([5.0, 103.0]).double(), torch.tensor([0.5, 3.0]).double()
_SIZES = TableGeneratorConfig(blocks=2, width=16, components=4)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def stirred(module: torch.nn.Module, size: float = 0.3) -> torch.nn.Module:
    """The module with noise on every parameter, because those that start at 0 hide what they do."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn_like(parameter) / math.sqrt(parameter.shape[-1]))
    return module.eval()


def generator(dim: int) -> OneWayFlow:
    return stirred(table_generator(_SIZES, dim))


def rows(n: int) -> torch.Tensor:
    """A continuous column and one of the odd numbers 101 to 107, which goes with it; no noise."""
    z = torch.randn(n, dtype=torch.float64)
    whole = 101 + 2 * torch.round(1 + z + 0.5 * torch.randn(n)).clamp(0, 3)
    return torch.stack([5 + 0.5 * z, whole], dim=1)


def dequantised(x: torch.Tensor) -> torch.Tensor:
    return x + torch.tensor([0.0, 2.0]) * (torch.rand_like(x) - 0.5)


def coordinates(marginal: Marginal | None = None) -> TableCoordinates:
    if marginal is None:
        marginal = Marginal.fit((rows(500) - _SHIFT) / _SCALE, steps=[0.0, 2 / 3])
    return TableCoordinates(marginal, _SHIFT, _SCALE, _STEPS, _OFFSETS)


def finished(of: TableCoordinates | None = None) -> DensityModel:
    of = coordinates() if of is None else of
    tilt = stirred(CappedTilt(of.features, TableCriticConfig(width=16)), 1.5)
    return table_density(tilt, generator(2), of, 0.1 * torch.randn(3), 1 + 0.1 * torch.rand(3)).eval()


@pytest.mark.parametrize("dim", [1, 2, 3, 100])
def test_density_of_samples_is_that_of_points(dim):
    flow = generator(dim)
    y, log_q = flow.rsample_and_log_prob(50)
    assert y.shape == (50, dim)
    torch.testing.assert_close(flow.log_prob(y), log_q, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dim", [1, 2])
def test_flow_integrates_to_one(dim):
    flow = generator(dim).double()
    axis = torch.linspace(-12, 12, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * dim).view(-1, dim)
    with torch.no_grad():
        mass = flow.log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** dim
    assert mass.item() == pytest.approx(1, abs=1e-4)


def test_gradients_reach_every_parameter():
    flow = generator(3)
    flow.log_prob(torch.randn(20, 3)).sum().backward()
    for name, parameter in flow.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_dropout_is_in_training_alone():
    flow = stirred(table_generator(TableGeneratorConfig(blocks=1, width=16, dropout=0.5), 4))
    t = torch.randn(10, 4)
    assert torch.equal(flow.log_prob(t), flow.log_prob(t))
    flow.train()
    assert not torch.equal(flow.log_prob(t), flow.log_prob(t))


@pytest.mark.parametrize("cap", [0.5, 5.0])
def test_tilt_starts_at_zero_and_stays_below_its_bound(cap):
    tilt = CappedTilt(3, TableCriticConfig(width=16, cap=cap))
    z = 3 * torch.randn(2000, 3)
    torch.testing.assert_close(tilt(z), torch.zeros(2000), rtol=0, atol=1e-6)
    stirred(tilt, 1.0)
    values = []
    with torch.no_grad():
        for sign in (300, -1):  # large ones of either sign
            tilt.net[-1].weight.mul_(sign)
            values.append(tilt(z))
    value = torch.cat(values)
    assert value.max() <= tilt.bound + 1e-6
    assert value.max() > cap - 0.05 and value.min() < -20, "the net is too small to try the bound"


def test_coordinates_undo_themselves():
    of = coordinates()
    x = dequantised(rows(200))
    t, back = of.inverse(x)
    y, there = of(t)
    torch.testing.assert_close(y, x, rtol=0, atol=1e-4)
    torch.testing.assert_close(there, -back, rtol=0, atol=1e-4)
    assert t.dtype == torch.float32 and y.dtype == torch.float64


def test_a_cell_looks_the_same_wherever_in_it_a_value_lies():
    of = coordinates()
    x = rows(300)
    noisy = x + 0.999 * (dequantised(x) - x)
    assert torch.equal(of.look(noisy)[:, 2], of.look(x)[:, 2])
    assert len(of.look(x)[:, 2].unique()) == 4
    torch.testing.assert_close(of.look(x)[:, 2], of.look(x)[:, 1])


def test_known_columns_need_not_be_found_again():
    of = coordinates()
    t = torch.randn(200, 2)
    x, _ = of(t)
    torch.testing.assert_close(of.look(x, t), of.look(x), rtol=0, atol=1e-5)


def test_cells_are_told_apart_next_to_their_edges():
    """Both values have one coordinate in float32."""
    of = coordinates()
    x = torch.tensor([[5.0, 102 - 1e-9], [5.0, 102 + 1e-9]], dtype=torch.float64)
    below, above = of.look(x)
    assert abs(below[1] - above[1]) < 1e-6
    assert abs(below[2] - above[2]) > 0.1


def test_model_is_the_change_of_variables():
    """By finite differences of the coordinates, where both lie in one cell."""
    model = finished()
    critic, of, step = model.critic, model.critic.coordinates, 1e-6
    x = dequantised(rows(200))
    u = (x - _SHIFT) / _SCALE
    t = of.marginal.inverse(u)[0]
    up, down = (of.marginal.inverse(u + sign * step)[0] for sign in (1, -1))
    inside = (((up - t) / (t - down)) - 1).abs().lt(1e-3).all(1)
    assert inside.sum() > 150
    by_hand = (((up - down) / (2 * step)).log() - _SCALE.log()).sum(1)
    with torch.no_grad():
        flow = OneWayFlow(model.generator.base, model.generator.layers[:-1])
        wanted = flow.log_prob(t.float()) + by_hand
        torch.testing.assert_close(model.generator.log_prob(x)[inside], wanted[inside], rtol=0, atol=1e-3)
        tilt = critic(x) - model.generator.log_prob(x)
        torch.testing.assert_close(tilt, critic.log_tilt(x).double(), rtol=0, atol=1e-5)
    assert tilt.std() > 0.02


def test_model_integrates_to_what_its_samples_say():
    """Over a box of the data's units: the share of samples in it, and their mean importance weight.

    By points at random, because the density jumps at the edges of cells.
    """
    model, n = finished(), 300_000
    low, high = torch.tensor([3.0, 90.0]).double(), torch.tensor([7.0, 118.0]).double()
    points = low + (high - low) * torch.rand(n, 2, dtype=torch.float64)
    volume = (high - low).prod()
    with torch.no_grad():
        parts = points.split(20_000)
        flow = torch.cat([model.generator.log_prob(part) for part in parts]).exp() * volume
        tilted = torch.cat([model.critic(part) for part in parts]).exp() * volume
        y, log_q = model.generator.rsample_and_log_prob(40_000)
        inside = ((y >= low) & (y <= high)).all(1).double()
        weights = (model.critic(y) - log_q).exp() * inside
    assert inside.mean() > 0.9
    for integral, mean in ((flow, inside), (tilted, weights)):
        error = 4 * (integral.var() / len(integral) + mean.var() / len(mean)).sqrt().item()
        assert error < 0.05 * integral.mean()
        assert integral.mean().item() == pytest.approx(mean.mean().item(), abs=error)


def test_samples_are_in_the_datas_units():
    y = finished().sample(200)
    assert y.dtype == torch.float64 and y.shape == (200, 2)
    assert (y[:, 1] - 104).abs().median() < 10


def test_gradients_of_a_row_are_finite():
    model = finished()
    x = dequantised(rows(20)).requires_grad_()
    model.critic(x).sum().backward()
    assert x.grad.isfinite().all() and x.grad.abs().sum() > 0


def test_state_dict_takes_a_model_to_an_untrained_twin():
    model = finished()
    twin = finished(coordinates(Marginal(2, model.critic.coordinates.marginal.cells)))
    x = dequantised(rows(40))
    assert not torch.allclose(twin.critic(x), model.critic(x))
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin.critic(x), model.critic(x))
    assert torch.equal(twin.generator.log_prob(x), model.generator.log_prob(x))
