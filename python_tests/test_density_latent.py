import math

import pytest
import torch

from led_fast.density import ascend, far_latents, interpolate
from led_fast.density.latent import _slerp
from led_fast.flows import Inflate, Linear, OneWayFlow, StandardNormal


def noisy_generator():
    torch.manual_seed(0)
    return OneWayFlow(StandardNormal(3), [Inflate(2), Linear(5)])


def test_interpolation_joins_its_ends_on_a_great_circle_with_one_noise():
    generator = OneWayFlow(StandardNormal(3), [Inflate(2)])
    walks = interpolate(generator, pairs=4, steps=9)
    assert walks.shape == (4, 9, 5)
    latents, noise = walks[..., :3], walks[..., 3:]
    assert (noise == noise[:, :1]).all() and not (noise[0] == noise[1]).any()
    directions = latents / latents.norm(dim=2, keepdim=True)
    angles = (directions[:, 1:] * directions[:, :-1]).sum(2).clamp(max=1).acos()
    whole = (directions[:, 0] * directions[:, -1]).sum(1).acos()
    torch.testing.assert_close(angles.sum(1), whole, rtol=1e-3, atol=1e-3)  # no step off the circle
    with pytest.raises(ValueError, match="steps must be at least 2, got 1"):
        interpolate(generator, 1, 1)


def test_where_there_is_no_great_circle_a_walk_is_straight_and_its_ends_are_exact():
    generator = OneWayFlow(StandardNormal(1), [])
    for row in interpolate(generator, pairs=20, steps=5):
        torch.testing.assert_close(row, torch.lerp(row[0], row[-1], torch.linspace(0, 1, 5)[:, None]))
    torch.manual_seed(3)
    start, end = torch.randn(2, 6, 7)
    end[0], end[1], end[2] = start[0], 2 * start[1], -3 * start[2]
    rows = torch.stack([_slerp(start, end, i / 4) for i in range(5)], dim=1)
    assert torch.equal(rows[:, 0], start) and torch.equal(rows[:, 4], end)
    straight = torch.stack([torch.lerp(start, end, i / 4) for i in range(5)], dim=1)
    torch.testing.assert_close(rows[:3], straight[:3])
    assert (
        not torch.isclose(rows[3:, 2], straight[3:, 2]).any(dim=1).all()
    )  # the other rows are circles still


def test_ascent_raises_the_score_and_holds_the_noise():
    generator = noisy_generator()
    latents = far_latents(generator, 4, 4, n=6)
    moved = ascend(generator, lambda y: -y.square().sum(1), latents, steps=300)
    assert (moved.score_after > moved.score_before).all()
    # What no latent value can change is the noise's share: its part outside of the range of the latent columns.
    weight = generator.layers[1].weight.detach()
    span = torch.linalg.qr(weight[:, :3])[0]
    rest = moved.before - moved.before @ span @ span.mT
    torch.testing.assert_close(moved.after @ span, torch.zeros(6, 3), atol=0.05, rtol=0)
    torch.testing.assert_close(moved.after - moved.after @ span @ span.mT, rest, atol=1e-4, rtol=1e-4)
    assert generator.layers[1].weight.grad is None


def test_far_latents_have_their_distances():
    z = far_latents(OneWayFlow(StandardNormal(2, 8), []), 1.5, 4.0, n=6)
    torch.testing.assert_close(z.flatten(1).norm(dim=1) / math.sqrt(16), torch.linspace(1.5, 4, 6))


def test_ascent_leaves_what_has_no_gradient_and_moves_the_rest():
    generator = OneWayFlow(StandardNormal(2), [])
    latents = torch.tensor([[1.0, 2.0], [-1.0, 2.0]])
    moved = ascend(
        generator, lambda y: -y.square().sum(1) + y[:, 0].sqrt(), latents, steps=5
    )  # NaN left of 0
    assert moved.after[1, 0] == -1 and moved.after[1, 1] < 2 and (moved.after[0] != latents[0]).all()
