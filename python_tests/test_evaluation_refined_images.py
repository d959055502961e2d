"""Images of a density itself, against one that is known exactly."""

import math

import pytest
import torch
from exact_images import DIMS, MEAN, SCALE, SHAPE, P, Z, evaluate_quickly, exact_model, exact_source
from report_page import undocumented
from test_evaluation_images import PIXELS, render
from tilting_images import tilting_model

from led_fast.density import DensityModel, refinement
from led_fast.evaluation import refine_images, refined_images
from led_fast.evaluation.image_weights import tilted_noise
from led_fast.flows import Linear, OneWayFlow, Sigmoid, StandardNormal, Unflatten

TILT = 6.0
N = 1500


@pytest.fixture
def model():
    """The exact density, tilted, and a generator of the untilted one, whose base is standard normal."""
    torch.manual_seed(0)
    affine = Linear(DIMS)
    with torch.no_grad():
        affine.weight.copy_(SCALE * torch.eye(DIMS))
        affine.bias.fill_(MEAN)
    generator = OneWayFlow(StandardNormal(DIMS), [affine, Unflatten(*SHAPE), Sigmoid()])
    return DensityModel(exact_model(tilt=TILT).critic, generator)


def brightness(tilt):
    """Mean and standard deviation of a pixel whose density is tilted by exp(-tilt x), by quadrature."""
    x = torch.sigmoid(Z)
    weight = P * torch.exp(-tilt * x)
    weight /= torch.trapezoid(weight, Z)
    mean = torch.trapezoid(weight * x, Z)
    return mean.item(), torch.trapezoid(weight * (x - mean) ** 2, Z).sqrt().item()


def test_refined_images_follow_the_density_and_none_comes_twice(model):
    refined = refine_images(model, N, transitions=30)
    mean, std = brightness(TILT)
    untilted, _ = brightness(0.0)
    assert untilted - mean > 0.1
    # Few draws are effective, so resampling alone falls short, and its copies part afterwards.
    assert refined.ess_fraction < 0.1 and len(refined.resampled.unique(dim=0)) < N / 2
    assert len(refined.images.unique(dim=0)) > 0.99 * N and refined.transitions == 30
    error = std / math.sqrt(N * DIMS)
    assert refined.images.mean().item() == pytest.approx(mean, abs=6 * error)
    assert abs(refined.images.mean().item() - mean) < abs(refined.resampled.mean().item() - mean)
    assert 0.4 < refined.acceptance < 0.8


def test_without_latents_of_all_noise_images_are_resampled_only():
    torch.manual_seed(0)
    refined = refine_images(exact_model(tilt=0.7), 300)
    assert refined.transitions == 0 and math.isnan(refined.acceptance)
    assert refined.images is refined.resampled
    mean, std = brightness(0.7)
    assert refined.images.mean().item() == pytest.approx(mean, abs=6 * std / math.sqrt(300 * DIMS))


@pytest.mark.parametrize("name", ["n", "transitions", "draws_per_sample"])
def test_a_number_that_is_not_positive_is_told(name, model):
    numbers = {"n": 3, "transitions": 1, "draws_per_sample": 1} | {name: 0}
    with pytest.raises(ValueError, match=f"refine_images: {name} must be positive, got 0"):
        refine_images(model, **numbers)


def test_a_model_in_float64_has_images_in_float64(model):
    refined = refine_images(model.double(), 3, transitions=2)
    assert refined.images.dtype == torch.float64 and refined.transitions == 2


def test_no_image_is_chosen_from_a_remainder_of_few(model, monkeypatch):
    asked = []

    def resample(critic, proposal, n, draws_per_sample):
        asked.append((n, draws_per_sample))
        return refinement.resample(critic, proposal, n, draws_per_sample)._replace(ess_fraction=n / 1000)

    monkeypatch.setattr(refined_images, "resample", resample)
    refined = refine_images(model, 251, transitions=1, draws_per_sample=2)
    assert len(refined.images) == 251 and asked == [(126, 2), (125, 2)]
    assert refined.ess_fraction == pytest.approx(0.1255)


def test_images_are_weighed_as_float32_has_stored_them(model):
    """Close to white, where the density of what was drawn is another than that of what a critic sees."""
    with torch.no_grad():
        model.generator.layers[0].bias.fill_(15.0)

    class Same(torch.nn.Module):
        def forward(self, x):
            return model.generator.log_prob(x)

    refined = refine_images(DensityModel(Same(), model.generator), 50, transitions=1)
    assert refined.ess_fraction == pytest.approx(1)


def test_a_network_is_asked_in_eval_mode_and_left_as_it_was(model):
    class Wild(torch.nn.Module):
        def forward(self, x):
            assert not self.training
            return critic(x)

    critic, model.critic = model.critic, Wild()
    refine_images(model.train(), 3, transitions=1)
    assert model.critic.training and model.generator.training


def test_a_tilt_pulled_back_to_the_noise_is_the_critics_density():
    model = tilting_model(scale=0.05).double()
    tilted = tilted_noise(model)
    z = 0.1 * torch.randn(20, 64, dtype=torch.float64)  # not far out
    images, ladj = tilted.flow(z)
    torch.testing.assert_close(tilted(z), model.critic(images) + ladj, rtol=1e-5, atol=1e-5)
    assert torch.equal(tilted.images(z), images)
    next(model.generator.parameters()).data.add_(1e-3)
    assert tilted_noise(model) is None


def test_what_lies_far_out_is_neither_chosen_nor_walked_to_for_its_rounding():
    model = tilting_model()
    model.critic.adopt(model.generator)  # the net is 0, and the density the generator's
    torch.manual_seed(0)
    refined = refine_images(model, 200, transitions=5)
    assert refined.ess_fraction == pytest.approx(1)
    assert refined.acceptance > 0.4
    raw = model.generator.sample(200).std()
    resampled = model.refined_sample(200)
    assert resampled.ess_fraction == pytest.approx(1)
    for images in (refined.resampled, refined.images, resampled.x):
        assert images.std().item() == pytest.approx(raw.item(), rel=0.1)


def test_a_report_has_the_distance_of_refined_images(model):
    torch.manual_seed(0)
    source = exact_source(tilted=TILT)
    report = evaluate_quickly(model, source, features=PIXELS, samples=300, refined=True).report
    raw, refined = report["quality"], report["quality_refined"]
    assert refined["distance"] < 0.3 * raw["distance"]
    assert refined["distance"] != refined["distance_resampled"] < raw["distance"]
    assert refined["transitions"] == 10 and 0 < refined["ess_fraction"] < 0.1
    assert not undocumented(report, "images")
    assert "10 Langevin transitions" in render(report)
    plain = evaluate_quickly(exact_model(), source, features=PIXELS, samples=100, refined=True).report
    assert plain["quality_refined"]["acceptance"] is None and "Langevin" not in render(plain)
    assert evaluate_quickly(exact_model(), source, samples=100).report["quality_refined"] is None
