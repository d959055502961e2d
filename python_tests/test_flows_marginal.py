"""The marginal layer's map, where digits, ties and scales are hard, and the same in other guises."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from marginal_cases import KINDS, N, cells_of, column, density_of, fitted
from scipy import integrate, stats

from led_fast.flows import Affine, Marginal, OneWayFlow, StandardNormal

# ---- the map ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_of_everything_normal_and_far_beyond(kind):
    layer, _ = fitted(kind)
    t = torch.cat([torch.linspace(-6, 6, 5001), torch.tensor([-1e3, -40.0, 40.0, 1e3])]).double()[:, None]
    u, ladj = layer(t)
    back, ladj_back = layer.inverse(u)
    assert (u.diff(dim=0)[:-4] > 0).all()
    torch.testing.assert_close(back, t, rtol=1e-12, atol=1e-9)
    same_cell = torch.searchsorted(layer.edges, u.T.contiguous()) == torch.searchsorted(
        layer.knots, t.T.contiguous()
    )
    assert same_cell.float().mean() > 0.999
    torch.testing.assert_close((ladj + ladj_back)[same_cell[0]], torch.zeros(int(same_cell.sum())).double())


@pytest.mark.parametrize("kind", KINDS)
def test_edges_are_met_exactly(kind):
    layer, _ = fitted(kind)
    edges, knots = (part[:, None] for part in cells_of(layer))
    torch.testing.assert_close(layer(knots)[0], edges, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(layer.inverse(edges)[0], knots, rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_log_determinants_are_the_slopes(kind):
    layer, _ = fitted(kind)
    t = torch.linspace(-5, 5, 999, dtype=torch.float64)[:, None].requires_grad_()
    u, ladj = layer(t)
    (slope,) = torch.autograd.grad(u.sum(), t)
    torch.testing.assert_close(ladj, slope[:, 0].log(), rtol=1e-9, atol=1e-9)
    u = u.detach().requires_grad_()
    back, ladj = layer.inverse(u)
    (slope,) = torch.autograd.grad(back.sum(), u)
    torch.testing.assert_close(ladj, slope[:, 0].log(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_density_integrates_to_one(kind):
    layer, _ = fitted(kind)
    flow = density_of(layer)
    edges, knots = cells_of(layer)

    def density(u: float) -> float:
        return flow.log_prob(torch.tensor([[u]], dtype=torch.float64)).exp().item()

    inside = sum(
        integrate.fixed_quad(
            lambda u: flow.log_prob(torch.tensor(u, dtype=torch.float64)[:, None]).exp().numpy(), a, b, n=4
        )[0]
        for a, b in pairwise(edges.tolist())
    )
    (below, above), (first, last) = layer.slopes[0].tolist(), (edges[0].item(), edges[-1].item())
    tails = [
        integrate.quad(density, first - 40 * below, first)[0],
        integrate.quad(density, last, last + 40 * above)[0],
    ]
    assert abs(inside + sum(tails) - 1) < 1e-9
    np.testing.assert_allclose(tails, 0.5 / (N + 1), rtol=1e-6)
    for end, slope, sign in ((knots[0], below, -1), (knots[-1], above, 1)):  # the tail is a normal one
        u, _ = layer(end.view(1, 1) + 2.0 * sign)
        wanted = stats.norm.logpdf(end.item() + 2.0 * sign) - math.log(slope)
        assert abs(flow.log_prob(u).item() - wanted) < 1e-9


def test_both_tails_have_all_digits():
    """The mirror image of the data has the mirror image of the map: were a tail 1 - Φ, it would lose digits."""
    u, _ = column("uniform", 64 * 1024)  # so that quantiles fall between rows
    layer, mirror = Marginal.fit(u[:, None]), Marginal.fit(-u[:, None])
    torch.testing.assert_close(mirror.knots, -layer.knots.flip(1), rtol=0, atol=1e-13)
    t = torch.linspace(2, 4.2, 500, dtype=torch.float64)[:, None]
    far = 1 - layer.edges.max()
    # What is left of the last cell is some 1e-5 of it, so its digits show only beside its edge.
    left, mirrored = layer.edges[0, -1] - layer(t)[0], mirror(-t)[0] - mirror.edges[0, 0]
    assert far < 1e-4
    torch.testing.assert_close(left, mirrored, rtol=0, atol=1e-15)
    torch.testing.assert_close(layer(t)[1], mirror(-t)[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("side", [1, -1])
def test_digits_of_an_end_at_zero(side):
    """Beside an edge at 0 the value shows its relative error, and with it that of the share of the tail."""
    layer = Marginal(1, 2)
    layer.knots.copy_(torch.tensor([[-6.5, 0.0, 6.5]]))
    layer.edges.copy_(torch.tensor([[0.0, 1.0, 2.0]]) - (side < 0) * 2)
    t = -side * torch.linspace(0.01, 6.4, 300, dtype=torch.float64)[:, None]
    cdf = stats.norm.cdf
    share = (cdf(-t.abs().numpy()) - cdf(-6.5)) / (0.5 - cdf(-6.5))
    u, _ = layer(t)
    torch.testing.assert_close(u, side * torch.from_numpy(share), rtol=1e-11, atol=0)
    torch.testing.assert_close(layer.inverse(u)[0], t, rtol=0, atol=1e-11)


def test_gradients_of_gradients():
    layer, _ = fitted("normal", "integers", "atoms")
    torch.manual_seed(0)
    t = torch.randn(4, 3, dtype=torch.float64)
    t[0, 0], t[1, 1] = -7.0, 7.0  # beyond
    for run, x in ((layer, t), (layer.inverse, layer(t)[0])):
        x = x.detach().requires_grad_()
        assert torch.autograd.gradcheck(run, x)
        assert torch.autograd.gradgradcheck(lambda x, run=run: [part.square() for part in run(x)], x)


def test_what_is_not_a_number_has_no_density():
    layer, _ = fitted("integers")
    for run in (layer, layer.inverse):
        out, ladj = run(torch.tensor([[math.nan], [math.inf], [0.0]], dtype=torch.float64))
        assert out[:, 0].isnan().tolist() == ladj.isnan().tolist() == [True, False, False]
        assert out[1, 0] == math.inf


# ---- the same in another guise ---------------------------------------------------------------------------


def test_order_of_columns_does_not_matter():
    layer, u = fitted("normal", "integers", "atoms", "two values")
    order = [2, 0, 3, 1]
    permuted = fitted(*(("normal", "integers", "atoms", "two values")[j] for j in order))[0]
    out, ladj = layer.inverse(u[:50])
    found, found_ladj = permuted.inverse(u[:50, order])
    assert torch.equal(found, out[:, order])
    torch.testing.assert_close(found_ladj, ladj, rtol=0, atol=1e-12)


@pytest.mark.parametrize("power", [-900, 990])
def test_units_do_not_matter(power):
    u, factor = column("normal")[0][:, None], 2.0**power
    layer, scaled = Marginal.fit(u), Marginal.fit(factor * u)
    t = torch.linspace(-6, 6, 301, dtype=torch.float64)[:, None]
    (out, ladj), (found, found_ladj) = layer(t), scaled(t)
    assert torch.equal(scaled.knots, layer.knots) and torch.equal(found, factor * out)
    torch.testing.assert_close(found_ladj, ladj + power * math.log(2), rtol=1e-12, atol=0)
    torch.testing.assert_close(scaled.inverse(found)[0], t, rtol=0, atol=1e-9)


@pytest.mark.parametrize("steps", [None, [0.125, 0.0, 0.25]])
def test_images_are_their_pixels(steps):
    torch.manual_seed(0)
    levels = torch.randint(0, 8, (6, 3, 4, 5)).double() / 8
    levels[:, 1] += torch.rand(6, 4, 5)
    levels[:, 2] = (2 * levels[:, 2]).floor() / 4
    flat = levels.movedim(1, -1).reshape(-1, 3)
    layer, pixels = Marginal.fit(levels, steps), Marginal.fit(flat, steps)
    for name, value in layer.state_dict().items():
        assert torch.equal(value, pixels.state_dict()[name])
    t = torch.randn(6, 3, 4, 5, dtype=torch.float64)
    for run, same, x in ((layer, pixels, t), (layer.inverse, pixels.inverse, levels)):
        out, ladj = run(x)
        flat_out, flat_ladj = same(x.movedim(1, -1).reshape(-1, 3))
        assert out.is_contiguous() and torch.equal(out.movedim(1, -1).reshape(-1, 3), flat_out)
        torch.testing.assert_close(ladj, flat_ladj.view(6, 20).sum(1), rtol=0, atol=1e-9)


def test_a_state_dict_goes_into_an_untrained_layer_of_its_shape():
    layer, u = fitted("two values", "normal")
    other = Marginal(layer.features, layer.cells)
    t = torch.linspace(-2.9, 2.9, 59, dtype=torch.float64)[:, None].repeat(1, 2)
    assert (other(t)[0] - t).abs().max() < 0.02  # close to the identity
    other.load_state_dict(layer.state_dict())
    torch.testing.assert_close(other.inverse(u[:9]), layer.inverse(u[:9]), rtol=0, atol=0)
    assert not list(layer.parameters()) and (other.features, other.cells) == (2, 66)
    with pytest.raises(RuntimeError, match="size mismatch"):
        Marginal(2, 3).load_state_dict(layer.state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes_are_computed_in_float64(dtype):
    layer, _ = fitted("normal", "integers")
    converted = fitted("normal", "integers")[0].to(dtype)
    assert converted.edges.dtype == torch.float64
    torch.manual_seed(0)
    t = torch.randn(200, 2).to(dtype)
    for run, narrow in ((layer, converted), (layer.inverse, converted.inverse)):
        (wide, wide_ladj), (out, ladj) = run(t.double()), narrow(t)
        assert out.dtype == dtype and ladj.dtype == torch.float32
        assert torch.equal(out, wide.to(dtype)) and torch.equal(ladj, wide_ladj.float())


def test_a_generator_ends_in_the_units_of_data():
    layer, u = fitted("normal", "integers")
    scale, shift = (
        torch.tensor([3.0, 0.5], dtype=torch.float64),
        torch.tensor([-1.0, 7.0], dtype=torch.float64),
    )
    flow = OneWayFlow(StandardNormal(2).double(), [layer, Affine(scale, shift)])
    x = scale * u[:20] + shift
    torch.testing.assert_close(flow.log_prob(x), density_of(layer).log_prob(u[:20]) - scale.log().sum())
    y, log_q = flow.rsample_and_log_prob(100)
    torch.testing.assert_close(flow.log_prob(y), log_q)


def test_fitted_layers_in_vmap_and_in_a_graph():
    layer, _ = fitted("normal", "integers", "atoms")
    t = torch.randn(2, 5, 3, dtype=torch.float64)

    def both(t):
        u, ladj = layer(t)
        return u, ladj, *layer.inverse(0.9 * u)

    wanted = tuple(torch.stack(parts) for parts in zip(*map(both, t), strict=True))
    torch.testing.assert_close(torch.vmap(both)(t), wanted)
    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(t[0]), both(t[0]))
