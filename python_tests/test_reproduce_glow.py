"""The density of the Glow baseline of Table 2, by another route than its own."""

import pytest
import torch
from torch.distributions import Normal

from led_fast.reproduce.glow import Glow, GlowConfig

pytest.importorskip("normflows")


def small(shape, levels, spread, last_map="sigmoid"):
    """A Glow in float64 whose weights are all away from their first values, where couplings do nothing."""
    torch.manual_seed(0)
    model = Glow(GlowConfig("", "", 0, 1, None, shape, levels, depth=2, width=4, last_map=last_map)).double()
    with torch.no_grad():
        model.log_prob(torch.rand(64, *shape, dtype=torch.float64))
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("last_map", ["sigmoid", "dark"])
@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 4)])
def test_log_density_is_that_of_the_latents_over_the_jacobian_of_the_draw(shape, last_map):
    model = small(shape, 2, 0.1, last_map)
    bases = list(model.flow.q0)
    sizes = [base.loc.numel() for base in bases]

    def draw(latents):
        parts = [part.view_as(base.loc) for part, base in zip(latents.split(sizes), bases, strict=True)]
        return model.to_box(model.flow.forward_and_log_det(parts)[0])[0]

    normal = Normal(
        torch.cat([base.loc.flatten() for base in bases]),
        torch.cat([base.log_scale.exp().flatten() for base in bases]),
    )
    for _ in range(3):
        latents = normal.sample()
        jacobian = torch.autograd.functional.jacobian(draw, latents).view(len(latents), -1)
        expected = normal.log_prob(latents).sum() - torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(model.log_prob(draw(latents))[0], expected, rtol=1e-8, atol=1e-7)


@torch.no_grad()
def test_the_box_holds_all_of_its_mass():
    model = small((1, 2, 2), levels=1, spread=0.1)
    density = model.log_prob(torch.rand(200_000, 1, 2, 2, dtype=torch.float64)).exp()
    assert abs(density.mean() - 1) < 5 * density.std() / len(density) ** 0.5 < 0.05


def test_samples_lie_in_the_box_and_have_a_density_also_where_float32_rounds_them_to_its_ends():
    model = small((1, 8, 8), levels=3, spread=0.3).float()
    samples = model.sample(500)
    assert samples.shape == (500, 1, 8, 8) and samples.min() >= 0 and samples.max() <= 1
    assert model.log_prob(samples).isfinite().all()
    assert model.log_prob(torch.ones(1, 1, 8, 8)).isfinite().all()
