"""The last maps of images that are mostly black, or white."""

import math

import pytest
import torch
from flow_oracles import brute_force_ladj
from scipy import integrate, optimize, stats
from torch import Tensor

from led_fast.flows import DarkMap, LightMap, OneWayFlow, StandardNormal
from led_fast.models import best_last_map

LEVEL, KNEE, TAIL, STEEPNESS = 1 / 256, 2.3, -2.0, 4.0
VALUES = [-20.0, -9.0, -2.01, -2.0, -1.99, 0.0, 1.0, 2.29, 2.3, 2.31, 3.0, 5.0, 7.0, 9.0, 14.0]


def changed(share: float = 0.3) -> DarkMap:
    """A map whose w / (a + w) is close to what is given."""
    layer = DarkMap().double()
    with torch.no_grad():
        layer.share.fill_(math.log(share / (1 - share)))
    return layer


def by_root_finding(t: float, share: float) -> float:
    if t < TAIL:
        rate = stats.norm.pdf(TAIL) / stats.norm.cdf(TAIL)
        return LEVEL * stats.norm.cdf(TAIL) / stats.norm.cdf(KNEE) * math.exp(rate * (t - TAIL))
    if t < KNEE:
        return LEVEL * stats.norm.cdf(t) / stats.norm.cdf(KNEE)
    tail = STEEPNESS * (0.01 + 0.98 * share)
    gain = STEEPNESS - tail
    log_rest = optimize.brentq(lambda v: gain * -math.expm1(v) - tail * v + KNEE - t, -2000, 1e-9, xtol=1e-14)
    return 1 - (1 - LEVEL) * math.exp(log_rest)


def row(values: list[float], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor([values], dtype=dtype)


class TestMap:
    @pytest.mark.parametrize("share", [0.25, 0.5, 1e-6, 1 - 1e-6])
    def test_is_that_of_its_definition(self, share):
        wanted = [by_root_finding(t, share) for t in VALUES]
        torch.testing.assert_close(changed(share)(row(VALUES))[0], row(wanted), rtol=1e-10, atol=1e-30)

    def test_log_determinant_is_that_of_its_jacobian(self):
        t = row([-3.0, 0.5, 2.2, 2.4, 4.0, 8.0]).T
        layer = changed()
        torch.testing.assert_close(layer(t)[1], brute_force_ladj(layer, t))

    @pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 9.0), (torch.float32, 7.0)])
    def test_inverse_undoes_it(self, dtype, most):
        layer = changed().to(dtype)
        t = row([v for v in VALUES if v <= most], dtype)
        x, ladj = layer(t)
        back, ladj_back = layer.inverse(x)
        exact = dtype == torch.float64
        torch.testing.assert_close(back, t, rtol=0, atol=1e-9 if exact else 2e-4)
        zero = torch.zeros(1, dtype=dtype)
        torch.testing.assert_close(ladj + ladj_back, zero, rtol=0, atol=1e-8 if exact else 2e-3)

    def test_no_rounding_leads_over_the_knee(self):
        t = torch.tensor(KNEE)
        below = [t := torch.nextafter(t, torch.tensor(0.0)) for _ in range(40)]
        x, ladj = DarkMap()(torch.stack(below)[:, None])
        assert (x < LEVEL).all()
        torch.testing.assert_close(DarkMap().inverse(x)[1], -ladj, atol=1e-3, rtol=0)

    def test_its_steepness_at_the_knee_is_not_learned(self):
        slopes = [changed(share).slope(row([LEVEL])) for share in (0.1, 0.5, 0.9)]
        torch.testing.assert_close(slopes, [row([(1 - LEVEL) / STEEPNESS])] * 3)

    @pytest.mark.parametrize("way", ["forward", "inverse"])
    def test_derivatives_of_any_order_in_values_and_parameters(self, way):
        layer = changed()
        given = row([-2.5, -1.0, 2.0, 2.5, 4.0])
        given = (given if way == "forward" else layer(given)[0].detach()).requires_grad_()

        def call(v: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
            module, name = (layer, "share") if way == "forward" else (_Inverse(layer), "layer.share")
            return torch.func.functional_call(module, {name: share}, (v,))

        small = 1e-7 if way == "forward" else 1e-9  # beside the smallest x
        torch.autograd.gradcheck(call, (given, layer.share), eps=small, atol=1e-3, rtol=1e-3)
        torch.autograd.gradgradcheck(call, (given, layer.share), eps=small, atol=1e-2, rtol=1e-2)

    def test_score_is_that_of_the_density(self):
        layer = changed()
        flow = OneWayFlow(StandardNormal(1), [layer]).double()
        t = row([-6.0, -1.0, 0.3, 2.4, 6.0]).T
        x, _, score = layer.forward_with_score(t, -t)
        x = x.detach().requires_grad_()
        (wanted,) = torch.autograd.grad(flow.log_prob(x).sum(), x)
        torch.testing.assert_close(score, wanted)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("map_type", [DarkMap, LightMap])
    def test_what_has_overflowed_lies_on_the_edge_and_has_gradients(self, map_type, dtype):
        layer, t = (
            map_type().to(dtype),
            torch.tensor([[torch.inf, torch.finfo(dtype).max, 1e31]], dtype=dtype),
        )
        t.requires_grad_()
        for x, ladj, *score in (layer(t), layer.forward_with_score(t, torch.zeros_like(t))):
            assert torch.equal(x, torch.full_like(x, map_type is DarkMap)) and ladj.item() == -torch.inf
            assert all(s.isfinite().all() for s in score)
            for value in (x.sum(), ladj.sum()):
                assert all(
                    g.isfinite().all()
                    for g in torch.autograd.grad(value, (t, *layer.parameters()), retain_graph=True)
                )
        far = torch.tensor([[1e29], [1e31]], dtype=dtype)
        slopes = torch.autograd.functional.jacobian(lambda v: layer(v)[1], far).diagonal(dim1=0, dim2=1)
        torch.testing.assert_close(slopes[0, 0], slopes[0, 1])

    def test_it_learns_only_where_asked(self):
        assert [name for name, _ in DarkMap().named_parameters()] == ["share"]
        fixed = DarkMap(learned=False)
        assert not list(fixed.parameters()) and list(fixed.state_dict()) == ["share"]

    def test_float32_holds_what_a_wide_generator_draws(self):
        torch.manual_seed(0)
        t = 4 + 4 * torch.randn(200_000, 1)
        layer = DarkMap()
        x, ladj, score = layer.forward_with_score(t, -t)
        assert x.isfinite().all() and score.isfinite().all()
        # White ends where float32 does, beyond which no map has other numbers.
        inside = (t < 12)[:, 0]
        back, ladj_back = layer.inverse(x)
        torch.testing.assert_close(back[inside], t[inside], atol=0.02, rtol=0)
        torch.testing.assert_close(ladj_back[inside], -ladj[inside], atol=0.03, rtol=0)
        # Farther out nothing is lost but the value.
        far, _, score = layer.forward_with_score(torch.tensor([[-60.0], [60.0]]), torch.ones(2, 1))
        assert far.isfinite().all() and score.isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
    def test_is_finite_at_the_edges_and_nothing_outside(self, dtype):
        layer = DarkMap()
        x = torch.tensor([[0.0], [1.0], [-1e-3], [1.01], [math.nan]], dtype=dtype)
        t, ladj = layer.inverse(x)
        assert t.dtype == dtype and t[:4].isfinite().all() and ladj[:2].isfinite().all()
        assert ladj[2:4].tolist() == [-torch.inf] * 2 and t[4].isnan() and ladj[4].isnan()
        far, ladj = layer(torch.tensor([[-50.0], [60.0]], dtype=dtype))
        assert far[0] < 1e-7 and far[1] == 1 and ladj.isfinite().all()


class _Inverse(torch.nn.Module):
    def __init__(self, layer: DarkMap) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer.inverse(x)


class TestDensity:
    def test_integrates_to_one(self):
        flow = OneWayFlow(StandardNormal(1), [changed()]).double()

        def density(x: float) -> float:
            with torch.no_grad():
                return float(flow.log_prob(row([x])).exp())

        parts = [(0, LEVEL), (LEVEL, 0.5), (0.5, 1)]
        total = sum(integrate.quad(density, low, high, limit=200)[0] for low, high in parts)
        assert total == pytest.approx(1, abs=1e-5)

    def test_black_costs_a_hundredth_of_a_nat(self):
        # As many numbers as there are between black and the next level, of a uniform distribution.
        x = (torch.arange(100_000).double()[:, None] + 0.5) / 100_000 * LEVEL
        flow = OneWayFlow(StandardNormal(1), [DarkMap()]).double()
        lost = -math.log(LEVEL) - flow.log_prob(x).mean().item()
        assert 0.009 < lost < 0.012


class TestLightMap:
    def light(self) -> LightMap:
        layer = LightMap().double()
        layer.dark.load_state_dict(changed().state_dict())
        return layer

    def test_is_the_dark_map_of_a_negative(self):
        t, layer = row(VALUES).T, self.light()
        x, ladj = layer(t)
        torch.testing.assert_close(x, 1 - changed()(t)[0], rtol=0, atol=1e-15)
        torch.testing.assert_close(ladj[2:], brute_force_ladj(layer, t[2:]), rtol=1e-5, atol=1e-5)

    def test_inverse_undoes_it(self):
        t = row([v for v in VALUES if -4 < v < 10]).T
        x, ladj = self.light()(t)
        back, ladj_back = self.light().inverse(x)
        torch.testing.assert_close((back, ladj_back), (t, -ladj), rtol=0, atol=1e-8)

    def test_score_is_that_of_the_density(self):
        layer = self.light()
        t = row([-3.0, -1.0, 0.3, 2.4, 6.0]).T
        x, _, score = layer.forward_with_score(t, -t)
        x = x.detach().requires_grad_()
        log_prob = OneWayFlow(StandardNormal(1), [layer]).double().log_prob(x)
        (wanted,) = torch.autograd.grad(log_prob.sum(), x)
        torch.testing.assert_close(score, wanted)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_no_rounding_leads_over_the_knee(self, dtype):
        layer = LightMap().to(dtype)
        for away in (torch.tensor(-1e9, dtype=dtype), torch.tensor(1e9, dtype=dtype)):
            t = torch.tensor(KNEE, dtype=dtype)
            beside = [t := torch.nextafter(t, away) for _ in range(40)]
            x, ladj = layer(torch.stack(beside)[:, None])
            assert ((x >= 1 - LEVEL) == (away < 0)).all()
            torch.testing.assert_close(layer.inverse(x)[1], -ladj, atol=1e-3, rtol=0)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
    def test_is_finite_at_the_edges_and_nothing_outside(self, dtype):
        x = torch.tensor([[0.0], [1.0], [-1e-3], [1.01], [math.nan]], dtype=dtype)
        t, ladj = LightMap().inverse(x)
        assert t.dtype == dtype and t[:4].isfinite().all() and ladj[:2].isfinite().all()
        assert ladj[2:4].tolist() == [-torch.inf] * 2 and t[4].isnan() and ladj[4].isnan()

    def test_white_that_float32_has_rounded_is_hardly_less_dense(self):
        flow = OneWayFlow(StandardNormal(1), [LightMap()])
        white, usual = flow.log_prob(torch.tensor([[1.0], [1 - 1 / 512]]))
        assert usual - 4 < white < usual  # where black has 300 nats less


class TestBestLastMap:
    def test_is_dark_where_most_pixels_are_black(self):
        torch.manual_seed(0)
        ink = torch.randint(0, 256, (200, 1, 8, 8)) * (torch.rand(200, 1, 8, 8) < 0.2)
        assert best_last_map((ink + torch.rand(200, 1, 8, 8)) / 256) == "dark"

    def test_is_light_where_most_pixels_are_white(self):
        torch.manual_seed(0)
        ink = torch.randint(0, 256, (200, 1, 8, 8)) * (torch.rand(200, 1, 8, 8) < 0.2)
        assert best_last_map((255 - ink + torch.rand(200, 1, 8, 8)) / 256) == "light"

    @pytest.mark.parametrize("brightest", [0.25, 1.0])
    def test_is_the_logistic_function_of_dim_or_even_images(self, brightest):
        torch.manual_seed(0)
        assert best_last_map(brightest * torch.rand(500, 3, 8, 8)) == "sigmoid"

    def test_is_the_logistic_function_of_other_images(self):
        torch.manual_seed(0)
        assert best_last_map(torch.randn(200, 3, 8, 8).mul(1.5).sigmoid()) == "sigmoid"
