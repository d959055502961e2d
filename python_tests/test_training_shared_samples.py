"""The critic's step and the generator's that follows take the same samples, where both can."""

import pytest
import torch
from image_sources import noise_source

from led_fast.data import open_source
from led_fast.training import TrainConfig, Trainer

JOINT = {"recipe.warm_up": 0.0}


def trainer_of(kind, changes):
    source = open_source("ring") if kind == "points" else noise_source()
    return Trainer(TrainConfig.of(source, "default" if kind == "points" else "tiny", changes=changes), source)


def seen_in_a_step(trainer):
    """The rows that the critic was given: by the critic's step, and by each generator step."""
    seen, view = [], trainer._function

    def critic(x):
        seen.append(x.detach().clone())
        return view(x)

    trainer._function = critic
    trainer.step()
    return seen


def shared(of_critic, of_generator):
    return sum((of_critic == row).flatten(1).all(1).any().item() for row in of_generator)


@pytest.mark.parametrize(
    "kind, changes, common",
    [
        ("points", {}, 192),  # half of 384 proposals
        ("points", {"recipe.batches.generated": 128}, 0),  # fewer than that
        ("points", {"recipe.batches.shared": False}, 0),
        ("points", {"recipe.objective": "gan"}, 256),
        ("points", {"recipe.objective": "gan", "recipe.batches.generated": 64}, 0),
        ("images", JOINT, 64),
        ("images", {**JOINT, "recipe.batches.integral_samples": 2}, 0),
        ("images", {"recipe.objective": "gan"}, 64),
    ],
)
def test_common_samples(kind, changes, common):
    critic, first, *others = seen_in_a_step(trainer_of(kind, changes))
    assert shared(critic, first) == common
    assert all(shared(critic, later) == 0 for later in others)


def test_shared_samples_keep_their_density_and_the_generator_its_gradient():
    trainer = trainer_of("points", {})
    torch.manual_seed(0)
    drawn = trainer.objective.draw(0.5)
    draw = trainer.task.proposals(384, 0.5, drawn)
    assert torch.equal(draw.y[:192], drawn.y[:192]) and not draw.y.requires_grad
    trainer.objective.critic_loss(trainer.critic, trainer.task.data(256, 0.5), 0.5, drawn).value.backward()
    assert all(p.grad is None for p in trainer.generator.parameters())
    for loss in trainer.objective.generator_losses(trainer.critic, 0.5, drawn):
        loss.value.backward()
    assert all(p.grad is not None for p in trainer.generator.parameters())


def test_a_generator_that_learns_alone_draws_nothing():
    trainer = trainer_of("images", {})
    assert trainer.objective.draw(0.0) is None
