"""Critics of images: a density in the box, and one that tilts a generator's."""

import copy
import math
import pickle
from dataclasses import replace

import pytest
import torch
from flow_oracles import randomize

from led_fast.density import DensityModel
from led_fast.flows import ActNorm, BatchNorm, OneWayFlow, Sigmoid, StandardNormal, Unflatten
from led_fast.models import ImageCritic, ImageCriticConfig, ImagePreset, image_critic, image_generator
from led_fast.models.cap import capped, least_upper_bound

SHAPE = (1, 8, 8)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_critic_integrates_to_what_its_net_says_on_one_pixel_and_is_zero_outside():
    critic = image_critic(ImagePreset(SHAPE, critic=ImageCriticConfig(width=4, base="pixels"))).double()
    randomize(critic, 0.3)
    critic.location.uniform_(-1, 1)
    critic.scale.uniform_(0.5, 2)
    x = torch.rand(5, *SHAPE, dtype=torch.float64)
    x[0, 0, 3, 3], x[1, 0, 0, 0], x[2, 0, 0, 0], x[3, 0, 7, 7] = 1.2, -1e-3, 0.0, 1.0
    value = critic(x)
    assert torch.equal(value.isinf(), torch.tensor([True, True, False, False, False]))
    # With the net at zero the critic is a normalised density of independent pixels.
    torch.nn.init.zeros_(critic.net.net[-1].weight)
    torch.nn.init.zeros_(critic.net.net[-1].bias)
    places = [(0, row, column) for row in range(8) for column in range(8)]
    image = torch.rand(1, *SHAPE, dtype=torch.float64)
    every = sum(_pixel_log_density(critic, image[0][place], place) for place in places)
    torch.testing.assert_close(critic(image)[0], every)
    base = torch.full((1, *SHAPE), 0.5, dtype=torch.float64)
    logits = torch.linspace(-13, 13, 8001, dtype=torch.float64)
    images = base.repeat(len(logits), 1, 1, 1)
    images[:, 0, 2, 5] = logits.sigmoid()
    others = critic(base) - _pixel_log_density(critic, torch.tensor(0.5, dtype=torch.float64), (0, 2, 5))
    density = (critic(images) - others).exp() * images[:, 0, 2, 5] * (1 - images[:, 0, 2, 5])
    assert torch.trapezoid(density, logits).item() == pytest.approx(1.0, abs=1e-5)


def _pixel_log_density(critic, x, place):
    deviation = (-0.5 * critic.base.log_precision[place]).exp()
    location, scale = critic.location[place], critic.scale[place]
    normal = torch.distributions.Normal(location + scale * critic.base.mean[place], scale * deviation)
    return normal.log_prob(torch.logit(x)) - (x * (1 - x)).log()


def test_a_critic_that_has_adopted_its_generator_starts_with_even_weights():
    generator, critic = image_generator("tiny").double(), image_critic("tiny").double()
    randomize(generator, 0.05)
    critic.adopt(generator)
    y, log_q = generator.rsample_and_log_prob(16)
    log_weights = critic(y) - log_q
    torch.testing.assert_close(log_weights, torch.zeros_like(log_weights), atol=1e-6, rtol=0)
    # What the generator learns from here on is not the critic's.
    before = critic(y.detach())
    randomize(generator, 0.05)
    assert torch.equal(critic(y.detach()), before)
    assert not any(name.startswith("base") for name, _ in critic.named_parameters())
    critic.requires_grad_(False)
    (by_image,) = torch.autograd.grad(critic(y).sum(), y)
    assert by_image.abs().sum() > 0


@pytest.mark.parametrize("norm", ["running", "batch"])
def test_what_a_critic_tilts_rests_while_the_critic_is_in_training(norm):
    generator = OneWayFlow(StandardNormal(64), [Unflatten(*SHAPE), BatchNorm(1, statistics=norm), Sigmoid()])
    critic = ImageCritic(ImageCriticConfig(width=4), SHAPE, generator)
    x, before = torch.rand(8, *SHAPE), copy.deepcopy(critic.state_dict())
    wanted = critic(x)
    assert torch.equal(critic.train()(x), wanted) and critic.net.training
    critic.tilted.sample(8)
    assert all(torch.equal(value, before[name]) for name, value in critic.state_dict().items())


def test_an_adopted_base_is_saved_with_the_critic():
    generator, critic, other = image_generator("tiny"), image_critic("tiny"), image_critic("tiny")
    critic.adopt(randomize(generator, 0.05))
    other.load_state_dict(critic.state_dict())
    x = torch.rand(3, *SHAPE)
    for same in (other, copy.deepcopy(critic), pickle.loads(pickle.dumps(critic))):
        assert torch.equal(same(x), critic(x))


def test_a_tilt_is_a_generators_own_only_while_it_is_as_it_was():
    generator, critic = image_generator("tiny"), image_critic("tiny")
    assert critic.tilt_of(randomize(generator, 0.05)) is None
    critic.adopt(generator)
    state = torch.get_rng_state()
    assert critic.tilt_of(generator) == critic.discriminate
    assert torch.equal(torch.get_rng_state(), state)
    changed = copy.deepcopy(generator)
    next(changed.parameters()).data[0] += 1e-6
    assert critic.tilt_of(changed) is None
    of_pixels = image_critic(ImagePreset(SHAPE, critic=ImageCriticConfig(width=4, base="pixels")))
    assert of_pixels.tilt_of(generator) is None


def test_asking_for_a_tilt_changes_no_generator_in_training():
    generator = OneWayFlow(StandardNormal(1, 8, 8), [ActNorm(1), Sigmoid()]).train()
    critic = ImageCritic(ImageCriticConfig(width=4), SHAPE, copy.deepcopy(generator))
    before = copy.deepcopy(generator.state_dict())
    assert critic.tilt_of(generator)
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    assert generator.training


def test_a_generator_of_equal_parameters_may_be_another():
    class Steeper(Sigmoid):
        def forward(self, t):
            return super().forward(3 * t)

    generator = OneWayFlow(StandardNormal(64), [Unflatten(*SHAPE), Sigmoid()])
    critic = ImageCritic(ImageCriticConfig(width=4), SHAPE, copy.deepcopy(generator))
    assert critic.tilt_of(generator)
    assert critic.tilt_of(OneWayFlow(StandardNormal(64), [Unflatten(*SHAPE), Steeper()])) is None


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_bytes_are_refused_because_their_density_would_be_zero(dtype):
    critic, x = image_critic("tiny"), torch.randint(0, 256, (2, *SHAPE), dtype=dtype)
    model = DensityModel(critic, image_generator("tiny"))
    model.set_log_normalizer(0.0)
    for density in (model.log_prob, model.unnormalized_log_prob, critic.discriminate, critic.coordinates):
        with pytest.raises(
            TypeError, match=r"ImageCritic: x must be floating-point in \[0, 1\], got torch\.u?int"
        ):
            density(x)


def test_pixels_have_no_cap():
    with pytest.raises(ValueError, match="cap must be None where base is 'pixels', got 6"):
        image_critic(ImagePreset(SHAPE, critic=ImageCriticConfig(base="pixels", cap=6)))


@pytest.mark.parametrize("cap", [1.0, 6.0])
def test_a_cap_bounds_the_net_and_leaves_it_alone_far_below(cap):
    config = ImageCriticConfig(width=4)
    plain, critic = (
        image_critic(ImagePreset(SHAPE, critic=replace(config, cap=bound))).double() for bound in (None, cap)
    )
    randomize(plain, 0.3)
    critic.load_state_dict(plain.state_dict())
    x = torch.rand(64, *SHAPE, dtype=torch.float64)
    net = plain.discriminate(x)
    torch.testing.assert_close(critic.discriminate(x), capped(net, cap))
    torch.testing.assert_close(critic(x) - plain(x), capped(net, cap) - net)
    values = torch.tensor([-50.0, 0.0, 1e6], dtype=torch.float64)
    wanted = torch.tensor(
        [-50 + math.log1p(math.exp(-cap)), 0.0, least_upper_bound(cap)], dtype=torch.float64
    )
    torch.testing.assert_close(capped(values, cap), wanted)
    slope = torch.func.vmap(torch.func.grad(lambda v: capped(v, cap)))(values)
    torch.testing.assert_close(slope, torch.sigmoid(cap - values))
