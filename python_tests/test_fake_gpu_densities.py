"""Networks, densities and their evaluation on the fake GPU, by a user who moves them there."""

import fake_gpu
import pytest
import torch
from coarse import coarsen
from fake_gpu.small import source_of
from torch import nn

from led_fast import random_state
from led_fast.data import open_source
from led_fast.data.images import ImageCollection, ImageSet
from led_fast.density import (
    DensityModel,
    annealed_log_normalizer,
    ascend,
    by_quadrature,
    estimate_log_normalizer,
    far_latents,
    interpolate,
    latent,
    quadrature_log_normalizer,
)
from led_fast.evaluation import (
    evaluate,
    evaluate_image_flow,
    evaluate_image_samples,
    evaluate_images,
    quadrature_in_data_coordinates,
    report,
    score_images,
)
from led_fast.evaluation.features.classifier import train_classifier
from led_fast.flows import Affine, DiagonalNormal, OneWayFlow
from led_fast.models import (
    IMAGE_PRESETS,
    image_critic,
    image_generator,
    in_data_coordinates,
    points_critic,
    points_generator,
)
from led_fast.models.points import PRESETS

GPU = fake_gpu.NAME
WIDE = [preset for preset in IMAGE_PRESETS if preset != "tiny"]


@pytest.fixture(autouse=True)
def few(monkeypatch):
    coarsen(monkeypatch.setattr)
    monkeypatch.setattr(report, "_HELD_OUT", 500)
    monkeypatch.setattr(report, "_BATCH", 100)


@pytest.fixture(params=["cpu", GPU])
def device(request):
    return torch.device(request.param)


@pytest.mark.parametrize("preset", PRESETS)
def test_points(preset):
    torch.manual_seed(0)
    generator, critic = points_generator(preset).to(GPU), points_critic(preset).to(GPU)
    y, log_q = generator.rsample_and_log_prob(8)
    (critic(y) - log_q).sum().backward()
    assert generator.rsample_with_score(8).y.device.type == GPU
    model = DensityModel(critic.eval(), generator.eval())
    found = quadrature_log_normalizer(critic, (-8, -8), (8, 8), cells=24, max_evaluations=10_000)
    model.set_verdict(by_quadrature(found))
    assert model.verdict.value == found.value and model.log_prob(y).device.type == GPU
    assert model.refined_sample(5).x.device.type == GPU
    estimate_log_normalizer(critic, generator, 200, 20)
    wide = OneWayFlow(DiagonalNormal(torch.zeros(2), 1.5), [Affine(torch.ones(2), torch.zeros(2))]).to(GPU)
    annealed_log_normalizer(critic, wide, model.refined_sample(60).x, 3, 40)


@pytest.mark.parametrize("preset", ["tiny", *(pytest.param(p, marks=pytest.mark.slow) for p in WIDE)])
def test_images(preset):
    torch.manual_seed(0)
    generator, critic = image_generator(preset).to(GPU), image_critic(preset).to(GPU)
    y, log_q = generator.rsample_and_log_prob(3)
    (critic(y) - log_q).sum().backward()
    if generator.invertible:
        assert generator.eval().log_prob(y.detach()).device.type == GPU
    assert interpolate(generator, 2, 3).device.type == GPU
    moved = ascend(generator, critic, far_latents(generator, 1.5, 4.0, 2), steps=1)
    assert moved.after.device.type == GPU and moved.score_after.isfinite().all()


def test_layers_draw_the_same_noise_all_along_a_walk():
    generator = points_generator("inflated").to(GPU).eval()
    draw, z = latent._with_fixed_noise(generator, torch.device(GPU)), generator.base.rsample(3).detach()
    assert torch.equal(draw(z), draw(z)) and not torch.equal(generator(z)[0], generator(z)[0])


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_evaluating_a_density_of_points_is_the_same_there(preset):
    source = open_source("ring")
    torch.manual_seed(0)
    critic, generator = points_critic(preset), points_generator(preset)
    with torch.no_grad():
        generator.sample(64)
    model = in_data_coordinates(critic, generator, source.shift, source.scale).eval()
    model.set_verdict(by_quadrature(quadrature_in_data_coordinates(model.critic, source.shift, source.scale)))
    wanted, found = (evaluate(model.to(device), source, 0) for device in ("cpu", GPU))
    assert found.data.device.type == found.samples.device.type == found.refined.device.type == "cpu"
    for name in ("held_out_nll", "kl_data_model", "log_normalizer"):
        ours, theirs = found.report[name], wanted.report[name]
        if isinstance(ours, dict):
            ours, theirs = (v["evidence"]["quadrature"]["value"] for v in (ours, theirs))
        assert ours == pytest.approx(theirs, abs=0.3), (
            name
        )  # the points are the same, the models' draws are not


def _tiny(device):
    torch.manual_seed(0)
    model = DensityModel(image_critic("tiny"), image_generator("tiny")).eval().to(device)
    model.set_log_normalizer(0.0)
    return model


class _Flow(nn.Module):
    def __init__(self, flow):
        super().__init__()
        self.flow, self.sample, self.log_prob = flow, flow.sample, flow.log_prob


def _score(model, source, tmp_path):
    images = ImageCollection(ImageSet(source.split("train")))
    score_images(model.log_prob, images, source.shape, device=model.log_normalizer.device)


def _train_classifier(model, source, tmp_path):
    train_classifier(source, tmp_path, model.log_normalizer.device, steps=2)


DRAWING = {
    "evaluate_images": lambda m, s, _: evaluate_images(m, s, 0, samples=100, temperatures=2, chains=40),
    "evaluate_image_samples": lambda m, s, _: evaluate_image_samples(m, s, 0, samples=100),
    "evaluate_image_flow": lambda m, s, _: evaluate_image_flow(_Flow(m.generator), s, 0, samples=100),
    "score_images": _score,
    "train_classifier": _train_classifier,
}


@pytest.mark.parametrize("name", DRAWING)
def test_generators_are_left_as_they_were_found(name, device, tmp_path, monkeypatch):
    model, source, module = _tiny(device), source_of("tiny"), torch.get_device_module(GPU)
    module.manual_seed(7)
    states = torch.get_rng_state(), module.get_rng_state()
    if device.type == "cpu":
        for called in ("manual_seed", "manual_seed_all", "get_rng_state", "set_rng_state"):
            monkeypatch.setattr(module, called, lambda *_: pytest.fail("the GPU's generator was touched"))
    DRAWING[name](model, source, tmp_path)
    monkeypatch.undo()
    assert torch.equal(states[0], torch.get_rng_state()) and torch.equal(states[1], module.get_rng_state())


def test_seeds_are_of_the_cpu_and_of_the_device_in_use():
    module = torch.get_device_module(GPU)
    state = module.get_rng_state()
    with random_state.seeded(3):
        assert torch.initial_seed() == 3 and torch.equal(state, module.get_rng_state())
    with random_state.seeded(3, GPU):
        drawn = torch.rand(2, device=GPU)
        module.manual_seed(3)
        assert torch.equal(drawn, torch.rand(2, device=GPU))
    assert torch.equal(state, module.get_rng_state())
