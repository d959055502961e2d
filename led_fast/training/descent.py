"""Parts of a training step that all networks share."""

import math

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class DivergenceError(RuntimeError):
    """A loss or a gradient is not finite. No weight has been touched by it."""


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Sets the learning rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_gradient(network: nn.Module, limit: float, loss: Tensor, name: str) -> None:
    """Shortens a network's gradient to a norm of at most `limit`.

    Raises:
        DivergenceError: the gradient or the loss, which belongs to the network of that name, is not finite.
    """
    norm = nn.utils.clip_grad_norm_(network.parameters(), limit)
    if not math.isfinite(loss.item() + norm.item()):
        raise DivergenceError(f"the {name}'s loss is {loss.item():.3g} and its gradient {norm.item():.3g}")


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, age: float, decay: float) -> None:
    """Moves the running average of a network's weights on.

    Args:
        average: of the same modules.
        network: as the last step left it.
        age: steps that the average has seen before; young ones forget faster, so that first weights do not linger.
        decay: what an old average keeps in a step.
    """
    decay = min(decay, (age + 1) / (age + 10))
    for old, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - decay)
        else:
            old.copy_(new)
