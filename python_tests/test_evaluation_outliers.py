"""Scores of odd images, against what is known of a tilted density."""

import pytest
import torch
from exact_images import MEAN, SHAPE, ExactCritic, exact_generator, exact_model
from tilting_images import tilting_model

from led_fast.data.images import quantize
from led_fast.density import DensityModel
from led_fast.evaluation.outliers import ImageValues, constant_images, outlier_report
from led_fast.flows import DiagonalNormal, OneWayFlow, Sigmoid
from led_fast.models import IMAGE_PRESETS, image_critic, image_generator

TILT = 3.0


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def images(n=600, mean=MEAN, scale=0.8):
    return OneWayFlow(DiagonalNormal(torch.full(SHAPE, mean), scale), [Sigmoid()]).sample(n)


def test_the_ratio_to_the_generator_is_what_the_tilt_says():
    model = exact_model(tilt=TILT)
    x = images()
    values = ImageValues.of(model, x)
    ratio = values.scores(0.0)["auroc_ratio"]
    torch.testing.assert_close(ratio, 3.0 - TILT * x.double().flatten(1).sum(1), atol=1e-4, rtol=1e-5)
    assert values.tilt is None and "auroc_tilt" not in values.scores(
        0.0
    )  # this critic tilts nothing that it knows


def test_a_critic_that_tilts_its_generator_has_the_ratio_for_its_tilt():
    preset = IMAGE_PRESETS["tiny"]
    generator, critic = image_generator(preset), image_critic(preset)
    critic.adopt(generator)
    torch.nn.init.normal_(critic.net.net[-1].weight)
    model = DensityModel(critic, generator).eval()
    with torch.no_grad():
        scores = ImageValues.of(model, torch.rand(20, *preset.shape)).scores(0.0)
    assert scores["auroc_tilt"].std() > 0.1
    torch.testing.assert_close(scores["auroc_tilt"], scores["auroc_ratio"], atol=2e-3, rtol=1e-3)


def told_apart(model, test, train, other):
    test, train, other = (ImageValues.of(model, x) for x in (test, train, other))
    return outlier_report(test, train.log_n.mean().item(), other)


def test_typicality_finds_what_is_too_dense():
    model = exact_model()
    test, train, mode = images(), images(), images(scale=0.05)
    found = told_apart(model, test, train, mode)
    assert found["auroc"] < 0.05 and found["auroc_typicality"] > 0.95 and found["images"] == 600
    typical = told_apart(model, test, mode, mode)
    assert typical["auroc_typicality"] < 0.05  # typical is what training images are like
    same = told_apart(model, test, train, images())
    assert all(
        same[name] == pytest.approx(0.5, abs=0.06) for name in ("auroc", "auroc_typicality", "auroc_ratio")
    )


def test_a_score_that_is_not_defined_has_no_auroc():
    test = ImageValues.of(exact_model(), images(20))
    nowhere = torch.full((20,), -torch.inf)
    lost = test._replace(log_n=nowhere, log_q=nowhere, ratio=nowhere - nowhere)
    assert outlier_report(test, test.log_n.mean().item(), lost) == {
        "images": 20,
        "auroc": 1.0,
        "auroc_typicality": 1.0,
        "auroc_ratio": None,
    }


class OneWay(torch.nn.Module):
    def forward(self, t):
        return t, torch.zeros(len(t))


def test_a_generator_without_a_way_back_has_no_ratio():
    critic = ExactCritic()
    critic.register_parameter("unused", torch.nn.Parameter(torch.zeros(())))
    one_way = OneWayFlow(exact_generator().base, [OneWay()])
    assert ImageValues.of(DensityModel(critic, one_way), images(5)).log_q is None


def test_constant_images_have_one_level_each_and_all_levels_come():
    x = constant_images(5000, (3, 4, 4))
    levels = quantize(x).flatten(1)
    assert (levels == levels[:, :1]).all() and len(levels[:, 0].unique()) == 256
    assert not (x == x[:, :1, :1, :1]).any(dim=0).all() and x.min() > 0 and x.max() < 1


def test_the_ratio_to_its_own_generator_is_the_tilt():
    model = tilting_model()
    x = torch.rand(20, 1, 8, 8)
    values = ImageValues.of(model, x)
    assert torch.equal(values.ratio, values.tilt)
    next(model.generator.parameters()).data.add_(1e-3)
    values = ImageValues.of(model, x)
    assert torch.equal(values.ratio, values.log_n - values.log_q)
