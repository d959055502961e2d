"""The report on images, against a density that is known exactly; distances and scores against oracles."""

import dataclasses
import io
import json
import math
import weakref

import pytest
import torch
from exact_images import (
    DIMS,
    ENTROPY,
    MEAN,
    SCALE,
    SHAPE,
    P,
    Z,
    evaluate_quickly,
    exact_generator,
    exact_model,
    exact_source,
)
from report_page import undocumented
from rich.console import Console

from led_fast.data.images import ImageCollection, ImageSet, ImageSource, dequantize, quantize
from led_fast.density import DensityModel
from led_fast.errors import InputError
from led_fast.evaluation import (
    FeatureNetwork,
    SampleJudge,
    bits_per_pixel,
    evaluate_image_flow,
    evaluate_image_samples,
    evaluate_images,
    image_report_table,
    sample_quality,
    score_image_batches,
    score_images,
)
from led_fast.flows import (
    DiagonalNormal,
    GaussianConditional,
    OneWayFlow,
    Sigmoid,
    Slice,
)

PIXELS = FeatureNetwork("pixels", lambda images: images.flatten(1).float())


# --- samples ----------------------------------------------------------------------------------------------


def test_sample_quality_compares_like_with_like():
    source = exact_source()
    torch.manual_seed(1)
    good = quantize(exact_generator().sample(1000))
    quality = sample_quality(good, source, PIXELS)
    assert (quality["features"], quality["dimension"], quality["images"]) == ("pixels", DIMS, 400)
    assert quality["distance"] == pytest.approx(quality["distance_real"], rel=0.5)
    bad = sample_quality(good // 2, source, PIXELS)
    assert bad["distance"] > 20 * bad["distance_real"] and bad["distance_real"] == quality["distance_real"]


def test_a_judge_compares_with_the_split_it_is_told_and_looks_at_real_images_once():
    source, seen = exact_source(), []
    features = FeatureNetwork("pixels", lambda x: seen.append(len(x)) or x.flatten(1).float())
    judge = SampleJudge(source, features, split="validation")
    validation, test = (judge(source.split(split))["distance"] for split in ("validation", "test"))
    assert validation == pytest.approx(0, abs=1e-6 * test) and sum(seen) == 4 * 400


def test_a_distance_wants_two_images_on_each_side():
    images, one = exact_source().split("train"), exact_source().split("test")[:1]
    single = ImageSource("single", ImageCollection(ImageSet(images), ImageSet(one)))
    unread = DensityModel(
        exact_model().critic, torch.nn.Identity()
    )  # which would fail if it were asked for samples
    for judge in (SampleJudge, lambda source, features: evaluate_images(unread, source, 0, features)):
        with pytest.raises(
            InputError, match=r"single: want at least 2 test images for a Fréchet distance, got 1"
        ):
            judge(single, PIXELS)
    with pytest.raises(ValueError, match=r"SampleJudge: generated must be at least 2 images, got 1"):
        SampleJudge(exact_source(), PIXELS)(one)


def test_a_flow_is_evaluated_by_its_own_density_of_samples_and_of_test_images():
    torch.manual_seed(1)
    darker = ImageSource("dark", ImageCollection(ImageSet(quantize(0.7 * exact_generator().sample(4000)))))
    flow = exact_model()
    flow.set_log_normalizer(3.0)
    found = evaluate_image_flow(flow, darker, seed=0, features=PIXELS, samples=4000)
    pixel, spread = found.report["bits_per_pixel"], found.log_prob.std().item() / math.sqrt(4000)
    entropy = bits_per_pixel(-DIMS * ENTROPY, DIMS, DIMS)
    assert pixel["samples_generator"] == pytest.approx(entropy, abs=4 * spread / (DIMS * math.log(2)))
    test = flow.log_prob(darker.split("test") / 256 + 1 / 512).mean().item()
    assert pixel["test"] == pytest.approx(bits_per_pixel(test, DIMS, DIMS), abs=0.02)
    assert pixel["test"] < entropy - 0.05  # what is darker than the samples is denser
    assert found.report["bits_per_dim_generator"] == pytest.approx(pixel["test"] + 7)
    assert found.report["quality"]["images"] == 400


def test_samples_that_are_not_numbers_are_refused_rather_than_taken_for_black():
    class Broken(torch.nn.Linear):
        def sample(self, n):
            return torch.where(torch.arange(n).view(n, 1, 1, 1) == 7, math.nan, torch.rand(n, *SHAPE))

    with pytest.raises(
        ValueError, match="evaluate_image_samples: model must draw numbers, got NaN in 2 of 300"
    ):
        evaluate_image_samples(Broken(1, 1), exact_source(), 0, PIXELS, samples=300)


def test_sample_quality_is_measured_from_the_test_images():
    dark, bright = exact_source().split("train") // 4, 255 - exact_source(seed=1).split("train") // 4
    source = ImageSource("shifted", ImageCollection(ImageSet(dark), ImageSet(bright[:500])))
    quality = sample_quality(bright[500:1000], source, PIXELS)
    assert quality["images"] == 500 and quality["distance"] < 0.01 * quality["distance_real"]


# --- the report ---------------------------------------------------------------------------------------------


def test_the_truth_gets_a_perfect_report():
    source = exact_source()
    evaluation = evaluate_quickly(exact_model(), source, features=PIXELS, samples=2000)
    report = evaluation.report
    bits = ENTROPY / math.log(2) + 8
    error = report["bits_per_dim_standard_error"]
    assert 0 < error < 0.02 and report["held_out_images"] == 400
    assert report["bits_per_dim"] == pytest.approx(bits, abs=5 * error)
    assert report["bits_per_dim_train"] == pytest.approx(bits, abs=5 * error)
    assert report["bits_per_dim_generator"] == pytest.approx(report["bits_per_dim"], abs=1e-4)
    assert report["bits_per_dim_uniform"] == 8
    pixel = report["bits_per_pixel"]
    assert pixel["uniform"] == 1
    assert pixel["test"] == pytest.approx(report["bits_per_dim"] - 7, abs=1e-9)
    assert pixel["samples_generator"] == pytest.approx(pixel["samples_critic"], abs=1e-5)
    normalizer = report["log_normalizer"]
    assert report["schema"] == 2
    by_generator = normalizer["evidence"]["generator"]
    assert by_generator["value"] == pytest.approx(3, abs=1e-3) == normalizer["value"]
    assert by_generator["ess_fraction"] == pytest.approx(1, abs=1e-3)
    assert normalizer["reliable"] and normalizer["reason"] == "" and by_generator["samples"] == 2000
    assert normalizer["evidence"]["pixels"]["value"] == pytest.approx(3, abs=0.05)
    assert "annealed" not in normalizer["evidence"]
    assert report["generator_density"] == "exact"
    assert report["kl_generator_model"] == pytest.approx(0, abs=1e-3) and report["kl_gate"]["passed"]
    assert report["quality"]["distance"] == pytest.approx(report["quality"]["distance_real"], rel=0.5)
    assert evaluation.samples.shape == (2000, *SHAPE) and evaluation.log_prob.shape == (2000,)
    json.dumps(report, allow_nan=False)
    assert not undocumented(report, "images")


def test_a_known_divergence_is_reported():
    # E exp(-tilt x), pixel by pixel, by quadrature.
    x = torch.sigmoid(Z)
    log_mean = DIMS * math.log(torch.trapezoid(P * torch.exp(-0.7 * x), Z).item())
    mean = DIMS * torch.trapezoid(P * 0.7 * x, Z).item()
    model = exact_model(offset=0.0, tilt=0.7)
    report = evaluate_quickly(model, exact_source(), samples=4000).report
    assert report["log_normalizer"]["evidence"]["generator"]["value"] == pytest.approx(log_mean, abs=0.05)
    assert report["kl_generator_model"] == pytest.approx(log_mean + mean, abs=0.05)
    difference = report["bits_per_pixel"]["samples_critic"] - report["bits_per_pixel"]["samples_generator"]
    assert difference == pytest.approx(report["kl_generator_model"] / (DIMS * math.log(2)), rel=1e-6)
    assert report["quality"] is None
    # Test images are of the generator's density, so what it knows of them is more.
    assert report["gain"] == pytest.approx(-(log_mean + mean) / (DIMS * math.log(2)), abs=0.01)
    difference = report["bits_per_dim_generator"] - report["bits_per_dim"]
    assert report["gain"] == pytest.approx(difference, abs=1e-9)
    # Of one noise per image, so that the error is of the tilt alone: that of -0.7 Σ x over 400 images.
    spread = math.sqrt(DIMS * torch.trapezoid(P * (0.7 * x - mean / DIMS) ** 2, Z).item() / 400)
    assert report["gain_standard_error"] == pytest.approx(spread / (DIMS * math.log(2)), rel=0.15)
    # Of as many weights as images log α is as uncertain as their mean; and by 1 nat, where it is off by as much.
    few = evaluate_quickly(model, exact_source(), samples=400).report
    assert few["gain_standard_error"] == pytest.approx(math.sqrt(2) * spread / (DIMS * math.log(2)), rel=0.15)
    model.set_log_normalizer(log_mean + 1)
    off = evaluate_quickly(model, exact_source(), samples=4000).report
    assert off["gain_standard_error"] == pytest.approx(1 / 1.96 / (DIMS * math.log(2)), rel=0.1)
    assert f"standard error {off['gain_standard_error']:.5f}, with that of log α" in render(off)


def test_the_models_own_log_normalizer_is_used_and_checked():
    model = exact_model()
    model.set_log_normalizer(1.0)  # by 2 nats too little
    report = evaluate_quickly(model, exact_source(), samples=2000).report
    assert report["log_normalizer"]["value"] == 1 and not report["log_normalizer"]["reliable"]
    assert "generator differs by +2.000 nats" in report["log_normalizer"]["reason"]
    assert report["kl_generator_model"] == pytest.approx(-2, abs=1e-3) and not report["kl_gate"]["passed"]
    assert report["bits_per_dim"] == pytest.approx(
        ENTROPY / math.log(2) + 8 - 2 / (DIMS * math.log(2)), abs=0.1
    )
    assert math.isnan(exact_model().log_normalizer)


def test_the_gate_allows_for_the_noise_of_the_models_own_log_normalizer():
    model, source = exact_model(tilt=0.01), exact_source()
    report = evaluate_quickly(model, source, seed=1, samples=1000).report
    mean = report["log_normalizer"]["value"] - report["kl_generator_model"]  # of the log-weights
    estimate = report["log_normalizer"]["evidence"]["generator"]
    noise = estimate["ci95"][1] - estimate["value"]  # of the mean too, for weights so even
    for errors, passed in ((1.2, True), (2.0, False)):
        model.set_log_normalizer(mean - errors * noise)
        gate = evaluate_quickly(model, source, seed=1, samples=1000).report["kl_gate"]
        assert gate["ci95"] == pytest.approx(math.sqrt(2) * noise, rel=0.2)
        assert gate["kl"] == pytest.approx(-errors * noise, rel=1e-3) and gate["passed"] == passed


def test_annealing_that_does_not_reach_the_density_is_left_out():
    report = evaluate_quickly(
        exact_model(offset=-math.inf), exact_source(), samples=100, temperatures=5
    ).report
    assert "annealed" not in report["log_normalizer"]["evidence"] and not report["log_normalizer"]["reliable"]


def test_outliers():
    source = exact_source()
    same = exact_source(seed=1)
    bright = ImageSource("bright", ImageCollection(ImageSet(255 - exact_source(seed=2).split("train") // 4)))
    outliers = {"same": same, "bright": bright}
    report = evaluate_quickly(exact_model(), source, outliers=outliers, samples=1000).report["outliers"]
    assert report["same"]["auroc"] == pytest.approx(0.5, abs=0.06) and report["same"]["images"] == 400
    assert report["bright"]["auroc"] > 0.999 and report["uniform noise"]["auroc"] > 0.9
    assert report.keys() == {"uniform noise", "constant images", "same", "bright"}
    assert report["bright"]["auroc_typicality"] > 0.999  # far from training images, on either side
    above = evaluate_quickly(exact_model(offset=1e3), source, outliers=outliers, samples=1000).report
    assert above["outliers"]["bright"]["auroc_typicality"] > 0.999
    wide = ImageSource("wide", ImageCollection(ImageSet(torch.zeros(200, 1, 4, 5, dtype=torch.uint8))))
    with pytest.raises(InputError, match=r"wide: want images of shape \(1, 4, 4\), got \(1, 4, 5\)"):
        evaluate_quickly(exact_model(), source, outliers={"wide": wide}, samples=100)


def test_outliers_are_not_held_in_memory_all_together():
    given = []

    class OneAtATime(ImageSource):
        def held_out(self, n, split="test"):
            assert all(images() is None for images in given)
            images = super().held_out(n, split)
            given.append(weakref.ref(images))
            return images

    images = ImageCollection(ImageSet(exact_source().split("train")))
    outliers = {name: OneAtATime(name, images) for name in "abc"}
    evaluate_quickly(exact_model(), exact_source(), outliers=outliers, samples=100)
    assert len(given) == 3


def test_a_generator_that_drops_coordinates_has_a_surrogate_density():
    flow = OneWayFlow(
        DiagonalNormal(torch.full((2, 4, 4), MEAN), SCALE),
        [Slice(2, 1, GaussianConditional()), Sigmoid()],
    )
    model = DensityModel(exact_model().critic, flow)
    report = evaluate_quickly(model, exact_source(), samples=100).report
    assert report["generator_density"] == "surrogate"
    assert report["samples_rounded"] is None
    # log q(x, t2) - log r(t2 | x), t2 ~ N(x, 1), of independent normal values: by pixel -KL(N(x, 1) ‖ q).
    x = Sigmoid().inverse(dequantize(exact_source().split("test")).double())[0]
    kl = 0.5 * ((1 + (x - MEAN).square()) / SCALE**2 - 1) + math.log(SCALE)
    exact = evaluate_quickly(exact_model(), exact_source(), samples=100).report["bits_per_dim_generator"]
    assert report["bits_per_dim_generator"] == pytest.approx(exact + kl.mean().item() / math.log(2), abs=0.05)
    text = render(report)
    assert "a surrogate" in text and text.count("a bound: no more than this") == 2


def test_same_seed_same_report_and_the_global_generator_is_left_alone():
    model, source = exact_model(tilt=0.5), exact_source()
    state = torch.get_rng_state()
    reports = [evaluate_quickly(model, source, seed, samples=200).report for seed in (3, 3, 4)]
    assert reports[0] == reports[1] != reports[2]
    assert torch.equal(torch.get_rng_state(), state)


def render(report):
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(image_report_table(report))
    return console.export_text()


def test_ends_of_an_interval_that_are_unknown_are_infinite_each_its_way():
    report = evaluate_quickly(exact_model(), exact_source(), samples=100).report
    report["log_normalizer"]["evidence"]["pixels"]["ci95"] = [None, None]
    assert "-∞ to ∞" in render(report)


def test_the_table_says_what_cannot_be_believed():
    source = exact_source()
    good = evaluate_quickly(exact_model(), source, features=PIXELS, samples=1000).report
    text = render(good)
    assert (
        "uniform density 8.00" in text and "Fréchet" in text and "pixels" in text and "UNRELIABLE" not in text
    )
    model = exact_model(tilt=40.0)
    model.set_log_normalizer(-1000.0)
    bad = evaluate_quickly(model, source, outliers={"same": source}, samples=100).report
    text = render(bad)
    assert "UNRELIABLE, as log α is" in text and "FAILED" in text and "Fréchet" not in text
    bad["outliers"]["same"]["auroc"] = 0.3
    assert "BELOW CHANCE" in render(bad)


def test_a_density_that_is_zero_everywhere_is_reported_as_undefined():
    model = exact_model(offset=-math.inf)
    report = evaluate_quickly(model, exact_source(), features=PIXELS, samples=100, refined=True).report
    assert report["quality"] is not None and report["quality_refined"] is None
    assert report["bits_per_dim"] is None and report["log_normalizer"]["value"] is None
    text = render(report)
    assert "every weight is zero" in text and "undefined" in text and "FAILED" in text


def test_the_papers_bits_per_pixel():
    # A density of [0, 1] images that is uniform on half of each of 3 channels.
    assert bits_per_pixel(3 * 64 * math.log(2), dims=3 * 64, pixels=64) == pytest.approx(0)
    assert bits_per_pixel(0, dims=3 * 64, pixels=64) == pytest.approx(3)


# --- scores -------------------------------------------------------------------------------------------------


def test_what_has_no_density_ranks_last():
    batches = [torch.zeros(5, *SHAPE, dtype=torch.uint8)]
    values = torch.tensor([1.0, math.nan, 5.0, -math.inf, math.nan])
    assert score_image_batches(lambda x: values, batches).rank.tolist() == [2, 4, 1, 3, 5]


def test_scores_of_single_images():
    values = torch.tensor([7, 200, 90, 31], dtype=torch.uint8)
    images = values.view(4, 1, 1, 1).expand(-1, *SHAPE)
    collection = ImageCollection(
        ImageSet(images[:3], names=["a.png", "b.png", "c.png"]), ImageSet(images[3:])
    )
    scores = score_images(lambda x: -x.flatten(1).mean(1), collection, SHAPE)
    assert [score.name for score in scores] == ["a.png", "b.png", "c.png", "test[0]"]
    assert [score.rank for score in scores] == [1, 4, 3, 2]
    for score, value in zip(scores, values.tolist(), strict=True):
        assert score.log_prob == pytest.approx(-(value + 0.5) / 256, abs=0.002)
        assert score.bits_per_dim == pytest.approx(8 - score.log_prob / (DIMS * math.log(2)), abs=1e-9)
    assert scores == score_images(lambda x: -x.flatten(1).mean(1), collection, SHAPE)
    assert json.dumps(dataclasses.asdict(scores[0]))
    with pytest.raises(InputError, match=r"train images: want shape \(1, 8, 8\), got \(1, 4, 4\)"):
        score_images(lambda x: x, collection, (1, 8, 8))
