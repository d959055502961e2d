"""The paper's generators before they have learned anything: log q is nearly right, whatever the width."""

import math
from dataclasses import replace

import pytest
import torch
from flow_oracles import randomize

from led_fast.flows import Inflate, LearnedConditional, Linear, Sigmoid, SoftReLU, StandardNormal
from led_fast.models import IMAGE_PRESETS, PRESETS, ImagePreset, image_generator, points_generator
from led_fast.models.start import start_near_identity
from led_fast.nn import CircularConv2d

PAPER = PRESETS["paper"].generator
SAMPLES = 20_000


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def log_weights(generator, dim=2, n=SAMPLES):
    """Of the standard normal, which the start aims at, to the generator."""
    with torch.no_grad():
        y, log_q = generator.rsample_and_log_prob(n)
        return StandardNormal(dim).log_prob(y) - log_q


def ess(log_weights):
    return 1 / (len(log_weights) * log_weights.softmax(0).square().sum().item())


@pytest.mark.parametrize(
    ("features", "blocks", "least"),
    [(2, 32, 0.4), (5, 32, 0.25), (8, 32, 0.35), (32, 16, 0.4), pytest.param(256, 8, 0.9)],
)
def test_an_untrained_generator_knows_its_density(features, blocks, least):
    weights = log_weights(points_generator(replace(PAPER, features=features, blocks=blocks)))
    assert ess(weights) > least and 0 < -weights.mean() < 0.5


def test_what_is_printed_does_not_know_it():
    weights = log_weights(points_generator("paper_printed"))
    assert ess(weights) < 1e-3 and -weights.mean() > 100


@pytest.mark.parametrize("dim", [1, 3, 5])
def test_other_dimensions(dim):
    config = replace(PAPER, features=dim + 6, blocks=8)
    assert ess(log_weights(points_generator(config, dim), dim)) > 0.35


def test_without_the_neighbours_it_is_wrong():
    generator = points_generator(replace(PAPER, features=256, blocks=8))
    last = generator.layers[-8]
    assert isinstance(last, Linear)
    with torch.no_grad():
        for keep in (2, 4, 8, 16, 32, 64, 128):  # undone from what is kept on
            last.weight[keep : 2 * keep] -= last.weight[:keep].clone()
            last.bias[keep : 2 * keep] -= last.bias[:keep].clone()
    assert ess(log_weights(generator)) < 0.1


def test_pre_activations_have_unit_variance_and_the_output_is_the_latent():
    generator = points_generator(PAPER)
    z, t = torch.randn(SAMPLES, 2), None
    for layer in generator.layers[:-2]:
        t, _ = layer(z if t is None else t)
        if isinstance(layer, Linear) and layer is not generator.layers[-3]:
            torch.testing.assert_close(t.mean(0), torch.zeros(8), atol=0.05, rtol=0)
            torch.testing.assert_close(t.std(0), torch.ones(8), atol=0.06, rtol=0)
    residual = t[:, :2] - z
    assert residual.var(0).max() < 0.2 * z.var()
    # Least squares: what is left is not correlated with what the last layer has seen.
    assert (torch.corrcoef(torch.cat([residual, t], 1).mT)[:2, 2:]).abs().max() < 0.06


def test_linear_layers_turn_the_coordinates_and_leave_the_noise_alone():
    generator = points_generator(PAPER)
    linears = [layer for layer in generator.layers if isinstance(layer, Linear)]
    for linear in linears[:-1]:
        directions = linear.weight / linear.weight.norm(dim=1, keepdim=True)
        expected = torch.eye(8)
        expected[:2, :2] = directions[:2, :2]
        torch.testing.assert_close(directions, expected)
        torch.testing.assert_close(directions[:2, :2] @ directions[:2, :2].mT, torch.eye(2))
    for bend in (layer for layer in generator.layers if isinstance(layer, SoftReLU)):
        assert (bend.log_ratio[2:] == 0).all() and (bend.log_ratio[:2] != 0).all()


def test_a_seed_decides_the_start():
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(points_generator("paper").state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["layers.1.weight"], states[2]["layers.1.weight"])


def test_a_learned_conditional_starts_beside_noise_alone():
    generator = points_generator(replace(PAPER, conditional="learned"))
    dropped = generator.layers[-1].conditional
    t = torch.randn(SAMPLES, 2)
    for layer in generator.layers[:-1]:
        t, _ = layer(t)
    assert isinstance(dropped, LearnedConditional)
    torch.testing.assert_close(t[:, 2:].mT.cov(), torch.eye(6), atol=0.05, rtol=0)


def test_weights_are_unbiased_wherever_the_parameters_go():
    generator = randomize(points_generator(replace(PAPER, blocks=4)), 0.02)
    weights = log_weights(generator, n=200_000).double().exp()
    assert weights.mean().item() == pytest.approx(1, abs=5 * weights.std().item() / math.sqrt(len(weights)))
    assert weights.std() > 0.1


def test_a_generator_that_drops_nothing_is_a_density():
    generator = randomize(points_generator(replace(PAPER, features=2, blocks=8)), 0.05).double()
    assert generator.bijective
    axis = torch.linspace(-12, 12, 801, dtype=torch.float64)
    with torch.no_grad():
        density = generator.log_prob(torch.cartesian_prod(axis, axis)).exp().view(801, 801)
    assert torch.trapezoid(torch.trapezoid(density, axis), axis).item() == pytest.approx(1, abs=1e-3)


def test_no_noise_needs_no_inflation():
    assert not any(
        isinstance(layer, Inflate) for layer in points_generator(replace(PAPER, features=2)).layers
    )


def test_float64():
    blocks, last = [(Linear(3).double(), SoftReLU(features=3, learned=True).double())], Linear(3).double()
    start_near_identity(blocks, last, 2, [(3, 2)])
    y = t = torch.randn(1000, 3, dtype=torch.float64)
    for layer in (*blocks[0], last):
        y, _ = layer(y)
    assert y.dtype == torch.float64 and (y[:, 2] - y[:, 0] - t[:, 2]).abs().max() < 1e-6


SMALL = ImagePreset((3, 8, 8), replace(IMAGE_PRESETS["paper_mnist32"].generator, latent=10, grid=2))


def logit_weights(generator, n):
    """Of independent standard normal logits to a generator of images."""
    with torch.no_grad():
        images, log_q = generator.rsample_and_log_prob(n)
        logits, ladj = Sigmoid().inverse(images.double())
        return StandardNormal(logits[0].numel()).log_prob(logits.flatten(1)) + ladj - log_q


@pytest.mark.parametrize(
    "preset", ["paper_mnist32", "paper_color32", pytest.param("paper_color64", marks=pytest.mark.slow), SMALL]
)
def test_an_untrained_generator_of_images_knows_its_density(preset):
    weights = logit_weights(image_generator(preset), 400)
    assert ess(weights) > 0.5 and 0 < -weights.mean() < 0.5


@pytest.mark.parametrize("broken", ["neighbours", "shift", "rotation"])
def test_no_part_of_the_start_may_be_missing(broken):
    generator = image_generator(SMALL)
    convolutions = [layer for layer in generator.layers if isinstance(layer, CircularConv2d)]
    with torch.no_grad():
        if broken == "neighbours":
            convolutions[-1].weight[1] -= convolutions[-1].weight[0]
        elif broken == "shift":
            convolutions[1].bias.zero_()
        else:
            convolutions[0].weight[0] = convolutions[0].weight[1]
            convolutions[0].weight[0, 0] += 0.1
    assert ess(logit_weights(generator, 400)) < 0.1


def test_convolutions_turn_what_is_kept_and_leave_the_noise_alone():
    generator = image_generator(SMALL)
    for layer in [layer for layer in generator.layers if isinstance(layer, CircularConv2d)][:-1]:
        centre = layer.weight[:, :, 1, 1].detach()
        assert layer.weight.detach().square().sum() == centre.square().sum()
        torch.testing.assert_close(centre @ centre.mT, torch.eye(len(centre)))
        assert (centre.diagonal() == 1).double().mean() == 0.75


def test_weights_of_images_are_unbiased_wherever_the_parameters_go():
    config = replace(SMALL.generator, latent=2, grid=1, blocks=1, kernel_size=1)
    generator = randomize(image_generator(ImagePreset((1, 8, 8), config)), 0.002)
    weights = logit_weights(generator, 20_000).double().exp()
    assert weights.mean().item() == pytest.approx(1, abs=5 * weights.std().item() / math.sqrt(len(weights)))
    assert weights.std() > 0.05


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("block_scales", 1),
        ("oversize", False),
        ("norm", "act"),
        ("activation", "staircase"),
        ("coupling_width", 8),
        ("local_couplings", 1),
        ("local_steps", 1),
        ("conditional", "learned"),
    ],
)
def test_a_start_that_suits_no_other_layers(change, value):
    with pytest.raises(ValueError, match=r'image_generator: with start "identity", .* must be'):
        image_generator(ImagePreset(SMALL.shape, replace(SMALL.generator, **{change: value})))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_start_alike_whatever_the_defaults(dtype):
    torch.set_default_dtype(dtype)
    try:
        generator = image_generator(SMALL)
        assert all(parameter.dtype == dtype for parameter in generator.parameters())
        assert ess(logit_weights(generator, 400)) > 0.5
        with torch.device("meta"):
            assert all(parameter.is_meta for parameter in image_generator(SMALL).parameters())
    finally:
        torch.set_default_dtype(torch.float32)
