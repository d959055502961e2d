"""The DCGAN critic: shapes, its sum over layers by hand, and what it refuses."""

import pytest
import torch

from led_fast import reference
from led_fast.models import DCGANCritic


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [32, 64])
def test_subtracts_the_norm_of_every_layer(size, channels):
    critic = DCGANCritic(size, channels, width=8).double()
    x = torch.rand(3, channels, size, size, dtype=torch.float64)
    h, norms = x, 0
    convolutions = [layer for layer in critic.net if isinstance(layer, torch.nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == ([8, 16, 32, 1] if size == 32 else [8, 16, 32, 64, 1])
    for c in convolutions:
        norms = norms + reference.perpendicular_norm(h, c.weight, stride=c.stride, padding=c.padding)
        h = torch.nn.functional.conv2d(h, c.weight, c.bias, c.stride, c.padding)
        h = torch.nn.functional.leaky_relu(h, 0.2) if c is not convolutions[-1] else h
    torch.testing.assert_close(critic(x), h.flatten() - norms)


def test_penalties():
    x = torch.rand(2, 1, 32, 32)
    values = {}
    for penalty, squared in [("off", False), ("direction", False), ("direction", True), ("exact", False)]:
        torch.manual_seed(0)
        critic = DCGANCritic(32, 1, 8, penalty, squared)
        values[penalty, squared] = critic(x)
        values[penalty, squared].sum().backward()
        assert all(p.grad.isfinite().all() for p in critic.parameters())
    # The row space holds the direction: the exact part is the smaller one.
    assert (values["off", False] >= values["exact", False]).all()
    assert (values["exact", False] > values["direction", False]).all()
    assert not torch.equal(values["direction", False], values["direction", True])


def test_weights_are_those_of_the_plain_network():
    plain, critic = DCGANCritic(32, 3, 8, "off"), DCGANCritic(32, 3, 8, "exact")
    critic.load_state_dict(plain.state_dict())


def test_the_penalty_lowers_the_density_of_noise():
    """Layers that learn to leave little of smooth images out leave much of uniform noise out."""
    torch.manual_seed(0)
    grid = torch.linspace(0, 1, 32)
    a, b, c = torch.rand(3, 64, 1, 1)
    data = ((a * grid[:, None] + b * grid + c) / 3)[:, None]
    noise = torch.rand(64, 1, 32, 32)
    critic = DCGANCritic(32, 1, 8)
    optimizer = torch.optim.Adam(critic.parameters(), 1e-3)
    for _ in range(30):
        optimizer.zero_grad()
        (-critic(data).mean() + critic.net(data)[0].mean()).backward()  # the penalty alone
        optimizer.step()
    with torch.no_grad():
        gap = critic(data).mean() - critic(noise).mean()
    assert gap > 5


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(image_size=28), "image_size must be 8, 16, 32 or 64, got 28"),
        (dict(channels=0), "channels and width must be positive, got 0 and 64"),
        (dict(width=0), "channels and width must be positive, got 3 and 0"),
        (dict(penalty="yes"), "penalty must be 'off', 'direction' or 'exact', got 'yes'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        DCGANCritic(**arguments)


def test_wrong_images():
    with pytest.raises(ValueError, match=r"x must have shape \(B, 3, 32, 32\), got \(2, 1, 32, 32\)"):
        DCGANCritic()(torch.rand(2, 1, 32, 32))
