"""What the task of points hands to training: noisy data, proposals that cover, a target with a floor."""

import math

import pytest
import torch

from led_fast.data import open_source
from led_fast.density import KernelProposal, log_mean_exp
from led_fast.flows import DiagonalNormal, ScoredSample
from led_fast.kinds.points import PointsTask
from led_fast.training import TrainConfig


def task_of(changes):
    torch.manual_seed(0)
    source = open_source("ring")
    return PointsTask(TrainConfig.of(source, changes=changes), source)


def test_noise_on_the_data_falls_to_a_part_of_their_spacing():
    task = task_of({"model.noise.start": 0.6, "model.noise.end": 0.5, "model.noise.until": 0.7})
    for at, noise in ((0.0, 0.6), (0.35, math.sqrt(0.6 * 0.5 * task.spacing)), (0.7, 0.5 * task.spacing)):
        x = task.data(40_000, at)
        centers = (task.source.mixture.centers - task.source.shift) / task.source.scale
        expected = (
            centers.square().sum(1).mean() + 2 * (0.01 / task.source.scale[0]) ** 2 + 2 * noise**2
        ).item()
        assert x.square().sum(1).mean().item() == pytest.approx(expected, rel=0.02)
        if at == 0.7:  # where the noise is all but gone, by its own scale
            distance = torch.cdist(x.double(), centers).min(1).values.square().mean()
            one_mode = 2 * ((0.01 / task.source.scale[0]) ** 2 + noise**2)
            assert distance.item() == pytest.approx(one_mode.item(), rel=0.03)


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("broad_share", [0.2, 1.0])
def test_proposals_cover_the_plane_and_integrate_to_one(broad_share, balanced):
    settings = {"share": 0.5, "broad_share": broad_share, "balanced": balanced}
    task = task_of({f"model.coverage.{name}": value for name, value in settings.items()})
    critic = DiagonalNormal(torch.tensor([0.5, -0.5]), 0.7)
    draw = task.proposals(40_000, 0.0)
    assert isinstance(task.proposal.broad, KernelProposal) == (broad_share < 1)
    assert (draw.balance_loss is not None) == balanced
    assert abs(log_mean_exp(critic.log_prob(draw.y) - draw.log_q).item()) < 0.1  # its integral is 1


def test_the_weight_of_the_forward_kl_falls_where_it_is_told_to():
    assert task_of({}).forward_weight(0.8, 1.0) == 0.8
    task = task_of(
        {"model.sharpening.end": 0.2, "model.sharpening.begin": 0.4, "model.sharpening.until": 0.9}
    )
    weights = [task.forward_weight(0.8, at) for at in (0.0, 0.4, 0.65, 0.9, 1.0)]
    assert weights == pytest.approx([0.8, 0.8, 0.5, 0.2, 0.2])


def test_the_floor_under_the_target_falls_late():
    settings = {"start": 0.01, "end": 0.002, "begin": 0.75, "until": 0.9}
    task = task_of({f"model.floor.{name}": value for name, value in settings.items()})
    far = torch.tensor([[3.0, -3.0]])
    sample = ScoredSample(far, *torch.zeros(3, 1))
    for at, floor in ((0.0, 0.01), (0.75, 0.01), (0.9, 0.002), (1.0, 0.002)):
        bottom = task.broad.log_prob(far) + 2.5 + math.log(floor)  # log α = 2.5
        torch.testing.assert_close(task.target(torch.tensor([-500.0]), sample, 2.5, at), bottom)
        high = torch.tensor([4.0])
        assert abs(task.target(high, sample, 2.5, at) - high).item() < 0.02
