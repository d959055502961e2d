"""Image generators, exact densities and presets, and what critics share with them."""

import copy
import math
import pickle
from dataclasses import fields, replace

import pytest
import torch
from flow_oracles import jacobian, randomize

from led_fast.flows import Coupling, Inflate, Inverse, OneWayFlow, PixelShuffle, Slice, SoftReLU
from led_fast.models import (
    IMAGE_PRESETS,
    ImageGeneratorConfig,
    ImagePreset,
    image_critic,
    image_generator,
    standardize,
)
from led_fast.models.flow_steps import Limits
from led_fast.models.image_networks import Bend
from led_fast.models.multiscale_generator import multiscale_layers
from led_fast.nn import CircularConv2d

SHAPE = (1, 8, 8)
PLAIN = ImageGeneratorConfig(latent=10, coupling_width=0, block_scales=None)
COUPLED = ImageGeneratorConfig(latent=4, grid=2, coupling_width=4, local_couplings=1, local_width=4, steps=2)
STEPS = ImageGeneratorConfig(
    latent=4, grid=2, coupling_width=4, blocks=0, local_steps=2, local_width=4, kernel_size=1
)
GENERATORS = {
    "coupled": COUPLED,
    "plain": replace(PLAIN, norm="act"),
    "two blocks": replace(COUPLED, latent=8, blocks=2, block_scales=None, activation="soft_relu"),
    "running": replace(PLAIN, norm="running", activation="soft_relu"),
    "multiscale": ImageGeneratorConfig(
        scale_steps=(2, 1), coupling_width=4, kernel_size=1, activation="learned_soft_relu"
    ),
    "multiscale, wide kernels": ImageGeneratorConfig(
        scale_steps=(1, 2, 1), coupling_width=4, kernel_size=3, activation="learned_soft_relu"
    ),
    "multiscale, limited": ImageGeneratorConfig(
        scale_steps=(2, 1),
        coupling_width=4,
        coupling_log_scale=1.0,
        coupling_reach=3.0,
        kernel_size=1,
        activation="learned_soft_relu",
    ),
    "steps": STEPS,
    "steps, wide kernels": replace(STEPS, local_steps=3, kernel_size=3),
    "steps, blocks and local couplings": replace(STEPS, blocks=1, local_couplings=1, norm="act"),
    "steps without couplings below": replace(STEPS, latent=10, coupling_width=0),
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def trained_like(config: ImageGeneratorConfig) -> OneWayFlow:
    flow = image_generator(ImagePreset(SHAPE, config)).double()
    flow.rsample_and_log_prob(32)
    return randomize(flow, 0.05).eval()


def push(flow: OneWayFlow, noise: torch.Tensor) -> torch.Tensor:
    """All noise of one sample, flat -> all that the flow keeps, then all that it drops, flat."""
    latent = flow.base.mean.numel()
    t, noise, dropped = noise[None, :latent], noise[latent:], []
    for layer in flow.layers:
        if isinstance(layer, Inflate):
            count = layer.features * math.prod(t.shape[2:])
            padding, noise = noise[:count].view(1, layer.features, *t.shape[2:]), noise[count:]
            t = torch.cat([t, padding], dim=1)
        elif isinstance(layer, Slice):
            t, tail = layer.split(t)
            dropped.append(tail.flatten())
        else:
            t = layer(t)[0]
    return torch.cat([t.flatten(), *dropped])


def record(flow: OneWayFlow, monkeypatch) -> list[torch.Tensor]:
    """Makes the next draw write down its noise, latent values first."""
    noise: list[torch.Tensor] = []
    draw = flow.base.rsample_and_log_prob

    def recording(n):
        z, log_prob = draw(n)
        noise.append(z)
        return z, log_prob

    monkeypatch.setattr(flow.base, "rsample_and_log_prob", recording)
    for layer in flow.layers:
        if isinstance(layer, Inflate):
            layer.register_forward_hook(lambda m, _, out: noise.append(out[0][:, -m.features :].flatten(1)))
    return noise


def log_prob(flow: OneWayFlow, noise: torch.Tensor, create_graph: bool = False) -> torch.Tensor:
    """Log density of the joint at `push(flow, noise)`, by the whole Jacobian."""
    normal = -0.5 * noise.square().sum() - 0.5 * len(noise) * math.log(2 * math.pi)
    whole = jacobian(lambda u: push(flow, u), noise, create_graph)
    return normal - torch.linalg.slogdet(whole).logabsdet


@pytest.mark.parametrize("name", GENERATORS)
def test_log_q_is_the_whole_jacobians(name, monkeypatch):
    flow = trained_like(GENERATORS[name])
    noise = record(flow, monkeypatch)
    y, log_q = flow.rsample_and_log_prob(2)
    for i, u in enumerate(torch.cat(noise, dim=1).detach()):
        torch.testing.assert_close(push(flow, u), y[i].flatten())
        torch.testing.assert_close(log_q[i], log_prob(flow, u), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["steps", "multiscale"])
def test_convolutions_of_steps_see_a_pixel_alike_everywhere(name):
    images = torch.rand(300, 3, 8, 8)
    images[:, 1] *= 0.2
    preset = ImagePreset((3, 8, 8), GENERATORS[name])
    generator, critic = image_generator(preset), image_critic(preset)
    standardize(generator, critic, images)
    t = generator.layers[-2].inverse(generator.layers[-1].inverse(images)[0])[0]
    assert generator.layers[-2].shift.shape == (3, 1, 1)
    torch.testing.assert_close(t.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(t.std((0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)
    for bend in (module for module in generator.modules() if isinstance(module, Bend)):
        scale, shift = generator.layers[-2].scale, generator.layers[-2].shift
        torch.testing.assert_close(bend.steepness, (0.5 * scale).expand(3, 8, 8))
        torch.testing.assert_close(bend.shift, (0.5 * (shift - critic.last_map.centre)).expand(3, 8, 8))


def test_local_steps_lie_before_the_last_shuffle_and_change_each_half_in_turn():
    preset = ImagePreset((3, 16, 16), replace(STEPS, local_steps=3))
    layers = list(image_generator(preset).layers)
    last = max(i for i, layer in enumerate(layers) if isinstance(layer, PixelShuffle))
    couplings = [layer for layer in layers[last - 9 : last] if isinstance(layer, Coupling)]
    assert [layer.given_first for layer in couplings] == [False, True, False]
    assert all(layer.features == 12 and layer.given == 6 for layer in couplings)
    assert (
        sum(isinstance(layer, Coupling) for layer in layers[: last - 9]) == 2
    )  # pixels by latent values, and back
    others = [layer.layer for layer in layers[last - 9 : last] if isinstance(layer, Inverse)]
    assert [type(layer) for layer in others] == 3 * [SoftReLU, CircularConv2d]


def test_a_multiscale_flow_splits_off_half_at_every_scale():
    preset = ImagePreset((3, 16, 16), replace(GENERATORS["multiscale"], scale_steps=(2, 2, 2)))
    generator = image_generator(preset)
    noise = [layer.features for layer in generator.layers if isinstance(layer, Inflate)]
    assert noise == [12, 6] and generator.base.mean.shape == (48 * 2 * 2,)
    couplings = [layer for layer in generator.layers if isinstance(layer, Coupling)]
    assert len(couplings) == 3 * 2 + 2
    # Of two steps in turn, each changes what the other one looks at; what is new is drawn by what was there.
    assert [layer.given_first for layer in couplings] == [True, False, True, True, False, True, True, False]


@pytest.mark.parametrize("steps", [(), (1, 1, 1, 1)])
def test_sizes_that_cannot_be_halved_as_often_are_refused(steps):
    with pytest.raises(ValueError, match="scale_steps must name"):
        multiscale_layers((1, 8, 8), steps, 4, 1, Limits(2.0, None))


UNUSED = {
    "latent": 8,
    "grid": 2,
    "local_couplings": 1,
    "local_steps": 1,
    "local_width": 8,
    "blocks": 2,
    "block_scales": None,
    "steps": 5,
    "norm": "act",
    "oversize": True,
    "conditional": "gaussian",
    "start": "identity",
    "activation": "soft_relu",
    "coupling_width": 0,
}


@pytest.mark.parametrize("name", UNUSED)
def test_what_a_multiscale_flow_has_no_use_for_is_refused(name):
    preset = ImagePreset(SHAPE, replace(GENERATORS["multiscale"], **{name: UNUSED[name]}))
    with pytest.raises(ValueError, match=rf"with scale_steps, {name} must be .*, got {UNUSED[name]!r}"):
        image_generator(preset)


def test_every_setting_of_a_generator_counts_in_a_multiscale_flow_or_is_refused():
    count = {"scale_steps", "coupling_log_scale", "coupling_reach", "kernel_size", "last_map"}
    assert count | set(UNUSED) == {field.name for field in fields(ImageGeneratorConfig)}


def through(layers, t):
    for layer in layers:
        t = layer(t)[0]
    return t


@pytest.mark.parametrize("channels", [1, 3])
def test_local_couplings_draw_rows_of_pixels_by_the_rows_around_them(channels):
    shape, config = (channels, 8, 8), replace(COUPLED, latent=16 * channels, local_couplings=2)
    layers = list(image_generator(ImagePreset(shape, config)).double().layers)
    couplings = [i for i, layer in enumerate(layers) if isinstance(layer, Coupling)][3:]  # three are global
    shuffle = max(i for i, layer in enumerate(layers) if isinstance(layer, PixelShuffle))
    assert [layers[i].given_first for i in couplings] == [
        True,
        False,
        True,
        False,
    ]  # odd rows, then even ones
    to_image = layers[couplings[-1] + 1 : shuffle + 1]
    t = torch.randn(1, 4 * channels, 4, 4, dtype=torch.float64, requires_grad=True)
    image = through([layers[couplings[0]], *to_image], t)
    (by_values,) = torch.autograd.grad(image[0, -1, 3, 4], t)  # the odd row of the second pair of rows
    reached = through(to_image, by_values)[0].abs() > 0
    assert reached[:, 1::2].nonzero().tolist() == [[channels - 1, 1, 4]]  # itself alone, of all odd rows
    assert all(colour[0::2].any() for colour in reached)
    start = (
        shuffle - len(to_image) - len(couplings) - (channels > 1)
    )  # before what reorders channels for them
    around = [layer for layer in layers[start + 1 : shuffle] if not isinstance(layer, Coupling)]
    assert torch.equal(through(around, t), t)  # every pixel is where it would be without them


@pytest.mark.parametrize("conditional", ["gaussian", "learned"])
def test_joint_density_of_an_oversize_generator(conditional, monkeypatch):
    flow = trained_like(replace(PLAIN, activation="soft_relu", oversize=True, conditional=conditional))
    log_r = []
    for layer in flow.layers:
        if isinstance(layer, Slice):
            layer.register_forward_hook(lambda *args: log_r.append(args[2][1]))
    noise = record(flow, monkeypatch)
    y, log_q = flow.rsample_and_log_prob(1)
    u = torch.cat(noise, dim=1)[0].detach()
    assert y.shape == (1, *SHAPE) and len(log_r) == 2 and len(u) == 256
    # The sigmoid comes after the slices: it stretches what is kept, not what is dropped.
    torch.testing.assert_close((log_q + sum(log_r))[0], log_prob(flow, u), rtol=1e-9, atol=1e-9)


def test_learned_conditional_of_pixels_integrates_to_one():
    flow = trained_like(replace(PLAIN, oversize=True))
    conditional = next(layer.conditional for layer in flow.layers if isinstance(layer, Slice))
    kept = torch.randn(1, 1, 1, 1, dtype=torch.float64)
    grid = torch.linspace(-12, 12, 4001, dtype=torch.float64).view(-1, 1, 1, 1)
    density = conditional(grid, kept.expand_as(grid)).exp()
    assert torch.trapezoid(density, grid.flatten()).item() == pytest.approx(1.0, abs=1e-6)


def test_score_of_a_coupled_generator_is_the_gradient_of_the_whole_jacobians():
    flow = trained_like(COUPLED)
    u = torch.randn(64, dtype=torch.float64)
    t, score = u[None, :4], -u[None, :4]
    for layer in flow.layers:
        if isinstance(layer, Inflate):
            t = torch.cat([t, u[4:].view(1, -1, 2, 2)], dim=1)
            score = torch.cat([score, -u[4:].view(1, -1, 2, 2)], dim=1)
        else:
            t, _, score = layer.forward_with_score(t, score)
    u.requires_grad_()
    (by_noise,) = torch.autograd.grad(log_prob(flow, u, create_graph=True), u)
    expected = torch.linalg.solve(jacobian(lambda v: push(flow, v), u.detach()).mT, by_noise)
    torch.testing.assert_close(score.flatten(), expected, rtol=1e-7, atol=1e-9)


def test_score_carrying_draw_agrees_with_the_plain_one():
    flow = trained_like(COUPLED)
    torch.manual_seed(1)
    y, log_q = flow.rsample_and_log_prob(4)
    torch.manual_seed(1)
    sample = flow.rsample_with_score(4)
    torch.testing.assert_close(sample.y, y)
    for value in sample[1:]:
        torch.testing.assert_close(value, log_q)
    full, path, fixed = (
        torch.autograd.grad(value.sum(), list(flow.parameters()), retain_graph=True) for value in sample[1:]
    )
    for whole, a, b in zip(full, path, fixed, strict=True):
        torch.testing.assert_close(whole, a + b, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("preset", ["tiny", "mnist32", "color32", "paper_mnist32"])
def test_one_step_of_a_preset(preset):
    generator, critic = image_generator(preset), image_critic(preset)
    shape = IMAGE_PRESETS[preset].shape
    standardize(generator, critic, torch.rand(64, *shape))
    y, log_q = generator.rsample_and_log_prob(2)
    assert y.shape == (2, *shape) and y.dtype == torch.float32
    (log_q - critic(y)).mean().backward()
    for module in (generator, critic):
        assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_standardize_takes_the_moments_of_each_pixels_logit():
    logits = torch.linspace(-2, 3, 64).view(SHAPE) + torch.tensor([-4.0, 0.0, 4.0]).view(3, 1, 1, 1)
    logits[:, 0, 0, 0] = torch.tensor([-0.1, 0.0, 0.1])  # hardly varies: scale 1
    generator, critic = image_generator("tiny"), image_critic("tiny")
    standardize(generator, critic, logits.sigmoid())
    scale = torch.full(SHAPE, 4.0)
    scale[0, 0, 0] = 1.0
    for location, deviation in (
        (critic.location, critic.scale),
        (generator.layers[-2].shift, generator.layers[-2].scale),
    ):
        torch.testing.assert_close(location, logits[1], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(deviation, scale, rtol=1e-3, atol=1e-3)
    with pytest.raises(TypeError, match="generator must end in an Affine"):
        standardize(OneWayFlow(generator.base, generator.layers[:3]), critic, logits.sigmoid())


def test_copies_and_state_dicts():
    generator, critic = image_generator("tiny"), image_critic("tiny")
    standardize(generator, critic, torch.rand(64, *SHAPE))
    other, other_critic = image_generator("tiny"), image_critic("tiny")
    other.load_state_dict(generator.state_dict())
    other_critic.load_state_dict(critic.state_dict())
    draws = []
    for flow in (generator, other, copy.deepcopy(generator), pickle.loads(pickle.dumps(generator))):
        torch.manual_seed(2)
        draws.append(flow.sample(3))
    assert all(torch.equal(draw, draws[0]) for draw in draws)
    assert torch.equal(critic(draws[0]), other_critic(draws[0]))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: image_generator("mnist"), "preset must be one of color32"),
        (lambda: image_generator(ImagePreset((1, 28, 28))), "8, 16, 32 or 64, got 28x28"),
        (lambda: image_generator(ImagePreset((1, 32, 16))), "got 32x16"),
        (lambda: image_generator(ImagePreset(SHAPE, ImageGeneratorConfig(grid=3))), "grid must be"),
        (
            lambda: image_generator(ImagePreset(SHAPE, ImageGeneratorConfig(latent=6, grid=2))),
            "multiple of 4",
        ),
        (lambda: image_generator(ImagePreset(SHAPE, ImageGeneratorConfig(latent=64))), r"lie in \(0, 64\)"),
        (
            lambda: image_generator(ImagePreset((3, 8, 8), replace(STEPS, latent=64, grid=8))),
            "with local_steps, grid must be below the drawn image's size, 8, got 8",
        ),
        (
            lambda: image_critic("paper_mnist32").adopt(image_generator("tiny")),
            "base must be 'generator', got 'pixels'",
        ),
        (lambda: image_critic("tiny")(torch.rand(2, 3, 8, 8)), r"\(B, 1, 8, 8\), got \(2, 3, 8, 8\)"),
    ],
)
def test_bad_arguments(act, message):
    with pytest.raises(ValueError, match=message):
        act()


def test_the_networks_of_the_couplings_see_the_image_that_the_flow_makes():
    """A decoder that draws a picture as its mean makes the flow produce that picture, latent places apart."""
    generator = image_generator(
        ImagePreset((2, 32, 32), ImageGeneratorConfig(coupling_width=8, blocks=0, latent=32, grid=4))
    )
    picture = torch.randn(2, 32, 32)
    decoder = generator.layers[2].network
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.zero_()
        decoder.bias[:2] = picture
        decoder.bias[2:] = -20.0
    seen = []
    generator.layers[3].network.bend.register_forward_hook(lambda m, args, out: seen.append(args[0]))
    drawn = torch.logit(generator.sample(1)[0].double()).float()
    latent = torch.zeros(128, dtype=torch.bool)
    latent[:2] = True
    holes = latent.view(-1, 1, 1).expand(-1, 4, 4)[None].float()
    for _ in range(3):
        holes = torch.nn.functional.pixel_shuffle(holes, 2)
    kept = holes[0] == 0
    torch.testing.assert_close(drawn[kept], picture[kept], atol=0.1, rtol=0)
    torch.testing.assert_close(seen[0][0][kept], picture[kept], atol=0.1, rtol=0)
