"""Log α of a critic of images, against densities that are known exactly."""

import dataclasses
import math

import pytest
import torch
from exact_images import MEAN, SHAPE, evaluate_quickly, exact_generator, exact_model, exact_source
from image_sources import noise_source
from report_page import undocumented
from test_evaluation_images import render
from tilting_images import tilting_model
from torch import nn

from led_fast.data.images import ImageCollection, ImageSet, ImageSource
from led_fast.density import BoundedEstimate, DensityModel, NormalizerEstimate, summarize_log_weights
from led_fast.density.latent import latent_bijection
from led_fast.evaluation import bits_per_pixel
from led_fast.evaluation.image_normalizer import ImageNormalizer, estimate_image_normalizer
from led_fast.evaluation.image_weights import StoredImages
from led_fast.flows import (
    Affine,
    CircularConv2d,
    Coupling,
    DiagonalNormal,
    GaussianConditional,
    Inflate,
    Linear,
    OneWayFlow,
    PixelShuffle,
    Sigmoid,
    Slice,
    StandardNormal,
    Unflatten,
)
from led_fast.models import (
    IMAGE_PRESETS,
    image_critic,
    image_generator,
    standardize,
)
from led_fast.models.cap import least_upper_bound


def test_estimates_beyond_the_generators_reach():
    # The generator draws one eighth of the mass, and its weights, all equal, cannot tell.
    class Eighth(nn.Module):
        base, layers, invertible = exact_generator().base, (), False

        def rsample_and_log_prob(self, n):
            x, log_q = exact_generator().rsample_and_log_prob(64 * n)
            inside = (x.flatten(1)[:, :3] > torch.sigmoid(torch.tensor(MEAN))).all(1)
            return x[inside][:n], (log_q + 3 * math.log(2))[inside][:n]

    model = DensityModel(exact_model().critic, Eighth())
    torch.manual_seed(0)
    normalizer = estimate_image_normalizer(model, exact_source(), samples=2000, temperatures=20, chains=500)
    assert normalizer.generator.reliable and normalizer.annealed.reliable
    assert normalizer.generator.value == pytest.approx(3 - 3 * math.log(2), abs=1e-3)
    for estimate in (normalizer.pixels, normalizer.annealed):
        assert estimate.value == pytest.approx(3, abs=0.1)
    assert normalizer.best in (normalizer.pixels, normalizer.annealed)
    assert "generator differs by -2.079 nats" in normalizer.verdict(3.0).reason
    assert "pixels differs" in normalizer.verdict(normalizer.generator.value).reason


@pytest.mark.parametrize("last_map", ["sigmoid", "dark", "light"])
def test_pixels_see_what_the_critic_sees(last_map):
    # A critic of independent pixels is normalised. Where pixels were drawn by another map, it would seem not to be.
    torch.manual_seed(0)
    preset = IMAGE_PRESETS["tiny"]
    preset = dataclasses.replace(
        preset,
        generator=dataclasses.replace(preset.generator, last_map=last_map),
        critic=dataclasses.replace(preset.critic, base="pixels"),
    )
    generator, critic = image_generator(preset), image_critic(preset)
    ink = torch.randint(0, 256, (500, *preset.shape)) * (torch.rand(500, *preset.shape) < 0.2)
    source = ImageSource("ink", ImageCollection(ImageSet(ink.to(torch.uint8))))
    standardize(generator, critic, source.sample(5000))
    for parameter in critic.net.net[-1].parameters():
        torch.nn.init.zeros_(parameter)
    normalizer = estimate_image_normalizer(DensityModel(critic, generator), source, 2000, temperatures=0)
    assert normalizer.pixels.reliable and normalizer.pixels.value == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize(
    "leading",
    [
        [Unflatten(4, 2, 2)],
        [Unflatten(3, 2, 2), Inflate(1)],
        [Unflatten(1, 2, 2), Inflate(1), CircularConv2d(2, 1), Inflate(2)],
    ],
)
def test_a_generator_as_a_bijection_of_its_noise(leading):
    torch.manual_seed(0)
    generator = OneWayFlow(
        StandardNormal(math.prod(leading[0].shape)), [*leading, PixelShuffle(2), Sigmoid()]
    )
    flow = latent_bijection(generator)
    z, _ = flow.base.rsample_and_log_prob(5)
    assert torch.equal(flow(z)[0], flow(z)[0]) and z.shape == (5, 16)
    torch.testing.assert_close(flow.inverse(flow(z)[0])[0], z, atol=1e-5, rtol=1e-5)
    y, log_q = flow.rsample_and_log_prob(5)
    torch.testing.assert_close(log_q, generator.log_prob(y))


def test_a_generator_in_training_does_not_learn_of_being_measured():
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 1), torch.nn.BatchNorm2d(4))
    generator = OneWayFlow(StandardNormal(4, 2, 2), [Coupling(network, 4, 2), PixelShuffle(2), Sigmoid()])
    before = network[1].running_mean.clone()
    assert latent_bijection(generator) is not None and network.training
    assert torch.equal(network[1].running_mean, before)


def test_generators_that_are_no_bijection():
    assert latent_bijection(OneWayFlow(StandardNormal(2, 4, 4), [Slice(2, 1, GaussianConditional())])) is None
    assert latent_bijection(exact_generator()) is None  # no standard normal to add to


def test_annealing_starts_from_the_generator():
    torch.manual_seed(0)
    mixing = Linear(16)
    with torch.no_grad():
        mixing.weight.add_(1.0)  # correlations that independent pixels know nothing of
    generator = OneWayFlow(StandardNormal(16), [mixing, Unflatten(*SHAPE), Sigmoid()])

    class Tilted(nn.Module):
        def forward(self, x):
            return generator.log_prob(x) + 3 + 0.5 * x.flatten(1).sum(1)

    model = DensityModel(Tilted(), generator)
    expected = 3 + torch.logsumexp(0.5 * generator.sample(200_000).flatten(1).sum(1), 0) - math.log(200_000)
    normalizer = estimate_image_normalizer(model, exact_source(), samples=100, temperatures=40, chains=200)
    assert normalizer.annealed.value == pytest.approx(expected.item(), abs=0.15)
    assert normalizer.annealed.ess_fraction > 0.5 > normalizer.pixels.ess_fraction


class FlowDensity(nn.Module):
    """A flow's density as a critic."""

    def __init__(self, flow):
        super().__init__()
        self.flow, self.unused = flow, nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return self.flow.log_prob(x)


def test_images_that_float32_rounds_have_the_density_of_what_is_stored():
    torch.manual_seed(0)
    white = OneWayFlow(DiagonalNormal(torch.full(SHAPE, 13.0), 2.0), [Sigmoid()])
    y, log_q = white.rsample_and_log_prob(500)
    assert (white.log_prob(y) - log_q).abs().max() > 1
    y, log_q = StoredImages(white).rsample_and_log_prob(500)
    assert torch.equal(white.log_prob(y), log_q)
    model = DensityModel(FlowDensity(white), white)
    normalizer = estimate_image_normalizer(model, exact_source(), samples=400, temperatures=0)
    assert normalizer.generator.ess_fraction == pytest.approx(1, abs=1e-4)
    report = evaluate_quickly(model, exact_source(), samples=400)
    assert report.report["kl_generator_model"] == pytest.approx(0, abs=1e-3)
    sliced = OneWayFlow(StandardNormal(2, 4, 4), [Slice(2, 1, GaussianConditional())])
    assert StoredImages(sliced).rsample_and_log_prob(5)[1].isfinite().all()


def test_the_density_that_is_tilted_is_a_proposal():
    torch.manual_seed(0)
    generator, critic = image_generator("tiny"), image_critic("tiny")
    critic.adopt(generator)
    with torch.no_grad():
        critic.net.net[-1].bias.fill_(2.0)  # a tilt by e² everywhere
        for parameter in generator.parameters():
            parameter.add_(0.02)  # the generator has moved on
    images = ImageSource(
        "noise", ImageCollection(ImageSet(torch.randint(0, 256, (200, 1, 8, 8), dtype=torch.uint8)))
    )
    normalizer = estimate_image_normalizer(
        DensityModel(critic, generator), images, samples=1000, temperatures=0
    )
    assert normalizer.base.value == pytest.approx(2, abs=1e-3) and normalizer.base.reliable
    assert normalizer.base.ess_fraction > 0.99 > normalizer.generator.ess_fraction
    assert normalizer.best is normalizer.base
    assert normalizer.verdict(2.0).reason.startswith(
        "no other kind of estimate is reliable than"
    )  # without annealing
    plain = estimate_image_normalizer(exact_model(), exact_source(), samples=40, temperatures=0)
    assert plain.base is None and "base" not in plain.estimates


def estimate(value, half_width=0.1, reliable=True):
    ci95 = (value - half_width, value + half_width)
    return NormalizerEstimate(
        value, ci95, 2000, 20, 0.9, 0.001, 0.1, reliable, "" if reliable else "few weights"
    )


@pytest.mark.parametrize(
    "generator, pixels, annealed, objection",
    [
        (estimate(1.0), estimate(-50.0, reliable=False), estimate(1.0), ""),  # one that is low says nothing
        (estimate(1.29), estimate(1.0), None, ""),
        (estimate(1.31), estimate(1.0), None, "generator differs by +0.310 nats"),
        (estimate(1.0), estimate(3.9, reliable=False), estimate(1.0), ""),
        (
            estimate(1.0),
            estimate(4.1, reliable=False),
            estimate(1.0),
            "pixels, which is unbiased, exceeds it by 3.1 nats",
        ),
        (estimate(1.0, reliable=False), estimate(0.0, reliable=False), None, "no estimate is reliable"),
        (
            estimate(1.0),
            estimate(0.0, reliable=False),
            estimate(1.0, reliable=False),
            "no other kind of estimate is reliable than generator and base (not pixels, annealed)",
        ),
        (
            estimate(1.0, reliable=False),
            estimate(0.0, reliable=False),
            estimate(1.0),
            "no other kind of estimate is reliable than annealed (not generator, base, pixels)",
        ),
    ],
)
def test_what_speaks_against_a_normalizer(generator, pixels, annealed, objection):
    base = generator if generator.value == 1 else None
    assert ImageNormalizer(generator, base, pixels, annealed).verdict(1.0).reason == objection


def test_the_best_estimate_is_the_precise_one_unless_another_is_certainly_higher():
    nan = dataclasses.replace(estimate(math.nan), ci95=(math.nan, math.nan))
    precise, noisy, higher = estimate(1.0, 0.01), estimate(1.1, 0.5), estimate(2.0, 0.5)
    assert ImageNormalizer(precise, None, noisy, None).best is precise
    assert ImageNormalizer(precise, None, higher, None).best is higher
    assert (
        ImageNormalizer(nan, None, noisy, None).best is noisy
        and ImageNormalizer(noisy, None, nan, None).best is noisy
    )
    doubtful = estimate(2.0, 0.5, reliable=False)
    assert ImageNormalizer(precise, None, doubtful, None).best is precise
    assert ImageNormalizer(doubtful, None, estimate(1.0, reliable=False), None).best is doubtful


@pytest.mark.parametrize("of_annealing", [0.15, 0.3])
def test_the_interval_holds_log_alpha_in_95_of_100_reports(of_annealing):
    torch.manual_seed(0)
    truth, repeats, pixels = 0.36, 300, estimate(-300.0, reliable=False)

    def of_lognormal(batches, samples, deviation):
        return summarize_log_weights(truth - deviation**2 / 2 + deviation * torch.randn(batches, samples))

    held = 0
    for _ in range(repeats):
        used = of_lognormal(20, 50, 0.85).value  # training's, by fewer draws
        generator, annealed = of_lognormal(20, 100, 0.85), of_lognormal(20, 10, of_annealing)
        low, high = ImageNormalizer(generator, None, pixels, annealed).verdict(used).interval
        held += low <= truth <= high
        assert low <= used <= high
    assert held >= 0.93 * repeats


@pytest.mark.parametrize("moved_on", [False, True])
def test_samples_far_out_weigh_no_more_than_the_net_says(moved_on):
    model = tilting_model()
    y, log_q = StoredImages(model.generator).rsample_and_log_prob(400)
    assert ((model.critic(y) - log_q - model.critic.discriminate(y)).abs() > 10).any()
    if moved_on:
        next(model.generator.parameters()).data.add_(1e-3)
    normalizer = estimate_image_normalizer(model, noise_source(), 400, temperatures=0)
    by_net = normalizer.base if moved_on else normalizer.generator
    assert isinstance(by_net, BoundedEstimate) and (normalizer.base is None) != moved_on
    assert by_net.cap == least_upper_bound(2.0)
    torch.manual_seed(1)
    expected = model.critic.discriminate(model.generator.sample(4000)).double().exp().mean().log().item()
    assert by_net.value == pytest.approx(expected, abs=0.2)


def test_bounded_weights_need_no_other_witness():
    torch.manual_seed(2)
    model = tilting_model(0.1, scale=0.03)
    normalizer = estimate_image_normalizer(model, noise_source(), 2000, temperatures=0)
    verdict = normalizer.verdict()
    assert verdict.reliable and verdict.evidence["generator"]["role"] == "bounded"
    assert verdict.interval == tuple(verdict.evidence["generator"]["bound95"])
    high = verdict.interval[1] + 0.02
    assert normalizer.verdict(high).interval == (verdict.interval[0], high)
    report = evaluate_quickly(tilting_model(0.1), noise_source(), samples=400).report
    assert "for any weights below the cap: reliable" in " ".join(render(report).split())
    unbounded = estimate_image_normalizer(tilting_model(None), noise_source(), 2000, temperatures=0).verdict()
    assert not unbounded.reliable and unbounded.evidence["generator"]["role"] == "unbiased"


def test_a_bound_that_is_too_wide_to_decide_leaves_the_weights_as_they_are():
    model = tilting_model(40.0, scale=0.05)
    model.critic.adopt(model.generator)  # all weights are 1, and e⁴⁰ may be anywhere
    normalizer = estimate_image_normalizer(model, noise_source(), 400, temperatures=5, chains=100)
    verdict = normalizer.verdict()
    assert verdict.reliable and verdict.evidence["generator"]["role"] == "unbiased"
    assert normalizer.generator.samples >= 20_000


class TooDense(Affine):
    """A layer whose way back is not that of its way out."""

    def inverse(self, t):
        x, ladj = super().inverse(t)
        return x, ladj + 2.5


@pytest.mark.parametrize("wrong", ["neither", "both", "generator", "tilted"])
def test_a_bound_is_not_believed_where_log_q_is_not_that_of_the_draws(wrong):
    model = tilting_model(0.1, scale=0.03)
    flows = {"generator": model.generator, "tilted": model.critic.tilted}
    for name, flow in flows.items():
        if wrong in ("both", name):
            next(layer for layer in flow.layers if type(layer) is Affine).__class__ = TooDense
    report = evaluate_quickly(model, noise_source(), samples=400).report
    expected = 0 if wrong == "neither" else 2.5
    assert report["log_q_error"] == pytest.approx(expected, abs=0.01)
    verdict = report["log_normalizer"]
    assert verdict["evidence"]["generator"]["reliable"] and verdict["reliable"] == (wrong == "neither")
    said = "" if wrong == "neither" else "as float32 stores them, differs by +2.50 nats"
    assert said in verdict["reason"] and bool(verdict["reason"]) == bool(said)
    assert verdict["reason"] in " ".join(render(report).split())
    assert f"{report['log_q_error']:+.3f} nats" in render(report)
    assert f"{report['samples_rounded']:.1%}" in render(report)
    assert not undocumented(report, "images")


@pytest.mark.parametrize(("values", "allowed"), [(64, 0.1), (1024, 0.1024), (12_288, 1.2288)])
def test_log_q_may_differ_by_what_float32_rounds_of_so_many_values(values, allowed):
    estimate = summarize_log_weights(0.1 * torch.randn(20, 100))
    for error, reliable in [(0.99 * allowed, True), (1.01 * allowed, False), (-1.01 * allowed, False)]:
        normalizer = ImageNormalizer(estimate, None, estimate, None, error, values)
        assert normalizer.verdict().reliable == reliable


@pytest.mark.parametrize("training", [False, True])
def test_annealing_in_the_noise_finds_the_integral_of_the_tilt(training):
    model = tilting_model(None).train(training)
    model.critic.adopt(model.generator)
    with torch.no_grad():
        model.critic.net.net[-1].bias.fill_(2.0)
    modes = []
    model.critic.net.register_forward_hook(lambda net, *_: modes.append(net.training))
    normalizer = estimate_image_normalizer(model, noise_source(), 400, temperatures=5, chains=100)
    assert normalizer.annealed.value == pytest.approx(2.0, abs=1e-3)
    assert not any(modes) and model.critic.net.training is training


def test_a_report_takes_the_weights_of_its_samples_from_the_net():
    model = tilting_model()
    report = evaluate_quickly(model, noise_source(), samples=400).report
    torch.manual_seed(1)
    log_weights = model.critic.discriminate(model.generator.sample(4000)).double()
    expected = log_weights.exp().mean().log() - log_weights.mean()
    assert report["samples_rounded"] > 0.5
    drawn = bits_per_pixel(model.generator.rsample_and_log_prob(4000)[1].double().mean().item(), 64, 64)
    assert report["bits_per_pixel"]["samples_generator"] == pytest.approx(drawn, rel=0.3)
    assert evaluate_quickly(exact_model(), exact_source(), samples=40).report["samples_rounded"] == 0
    assert report["kl_generator_model"] == pytest.approx(expected.item(), abs=0.2)
