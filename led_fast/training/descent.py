"""Parts of a training step that all networks share. None of them waits for a GPU."""

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.optim import Adam

from led_fast.training.world import World

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class DivergenceError(RuntimeError):
    """A loss or a gradient is not finite. It has touched no weight or moment of its network, and no average moved.

    Attributes:
        what: the loss or gradient that was not finite and, within a run, the step: the message without its advice.

    Args:
        what: see above.
        advice: what to do about it.
    """

    def __init__(self, what: str, advice: str = "") -> None:
        super().__init__(f"{what}; {advice}" if advice else what)
        self.what = what


def adam(
    parameters: Iterable[nn.Parameter],
    rate: float,
    betas: tuple[float, float],
    weight_decay: float = 0.0,
    shares: Mapping[nn.Parameter, float] = MappingProxyType({}),
) -> Adam:
    """Adam as one kernel; on a GPU the learning rate lies there, where a recorded step reads it anew.

    `shares` of the rate are those of `rate_shares`; other parameters have all of it.
    """
    by_share: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        by_share.setdefault(shares.get(parameter, 1.0), []).append(parameter)
    device = next(iter(by_share.values()))[0].device
    on_cpu = device.type == "cpu"
    return Adam(
        [
            {"params": group, "share": share, "lr": _learning_rate(rate * share, device)}
            for share, group in by_share.items()
        ],
        betas=betas,
        weight_decay=weight_decay,
        decoupled_weight_decay=weight_decay > 0,
        fused=True,
        capturable=not on_cpu,
    )


def rate_shares(network: nn.Module, full_rate_inputs: int | None) -> dict[nn.Parameter, float]:
    """Shares of the learning rate of matrices and convolutions, see `led_fast.training.settings.Optimizer`."""
    shares: dict[nn.Parameter, float] = {}
    if full_rate_inputs is None:
        return shares
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.dim() > 1:
                inputs = parameter[0].numel()
                if isinstance(module, _TRANSPOSED):
                    # Its weight is (inputs, outputs, ...), and a stride leaves out most of its taps.
                    inputs = parameter[:, 0].numel() // math.prod(module.stride)
                shares[parameter] = min(1.0, full_rate_inputs / inputs)
    return shares


def set_learning_rate(optimizer: Adam, rate: float) -> None:
    """Sets the learning rate; each group of parameters gets its share."""
    for group in optimizer.param_groups:
        of_group = rate * group.get("share", 1.0)
        if not group["capturable"]:
            group["lr"] = of_group
        elif group["lr"].device == (device := group["params"][0].device):
            group["lr"].fill_(of_group)
        else:  # as a checkpoint has it
            group["lr"] = _learning_rate(of_group, device)


def _learning_rate(rate: float, device: torch.device) -> float | Tensor:
    return rate if device.type == "cpu" else torch.full((), rate, dtype=torch.float32, device=device)


def descend(
    optimizer: Adam,
    clipped: Sequence[nn.Parameter],
    losses: Iterable[tuple[Tensor, float]],
    limit: float,
    broken: Tensor | None = None,
    world: World = World(),  # noqa: B008 (a single process has no state)
) -> tuple[Tensor, Tensor, Tensor]:
    """Takes one step down a weighted sum of losses, but where a number is not finite.

    That is decided on the device: Adam leaves weights and moments alone where its `found_inf`, which gradient scalers
    use, is 1.

    Args:
        optimizer: from `adam`.
        clipped: the parameters whose gradient is shortened to a norm of at most `limit`.
        losses: of all processes, with their weights; one after the other, so that the graph of one is gone before the
            next is built.
        limit: of that norm.
        broken: 1 where an earlier descent of this step met such a number, so that this one does nothing either.
        world: the processes whose gradients add up.

    Returns:
        The loss, the norm before it is shortened, and `broken` for the next descent; 0-d tensors.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    total: Tensor | None = None
    _forget_gradients(parameters)
    for loss, weight in losses:
        earlier = [parameter.grad for parameter in parameters]
        _forget_gradients(parameters)
        loss.backward(torch.full_like(loss, weight))
        _add_gradients(parameters, earlier)
        loss = loss.detach()
        share = loss if weight == 1 else weight * loss
        total = share if total is None else total + share
    assert total is not None
    world.sum_gradients(parameters)
    gradients = [parameter.grad for parameter in clipped if parameter.grad is not None]
    norm = _shorten(gradients, limit) if gradients else torch.zeros_like(total)
    both = total + norm
    found = (both - both).float().nan_to_num(nan=1.0)  # NaN where `both` is infinite or NaN, else 0
    broken = found if broken is None else torch.maximum(broken, found)
    optimizer.found_inf = broken  # type: ignore[attr-defined]
    optimizer.step()
    return total, norm, broken


def _forget_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """As an optimiser's `zero_grad`, without its hooks for profilers."""
    for parameter in parameters:
        parameter.grad = None


def _shorten(gradients: list[Tensor], limit: float) -> Tensor:
    """As `clip_grad_norm_` of gradients on one device, without sorting them by device; returns their norm."""
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1))
    return norm


def _add_gradients(parameters: Sequence[nn.Parameter], earlier: Sequence[Tensor | None]) -> None:
    """Adds the gradients of earlier losses, all at once, where autograd would add one after the other."""
    pairs = [(p, before) for p, before in zip(parameters, earlier, strict=True) if before is not None]
    both = [(p.grad, before) for p, before in pairs if p.grad is not None]
    if both:
        torch._foreach_add_(*map(list, zip(*both, strict=True)))
    for parameter, before in pairs:
        if parameter.grad is None:
            parameter.grad = before


class RunningAverages:
    """Running averages of the weights of networks, moved by one kernel.

    Args:
        pairs: (average, network), each of the same modules.
    """

    def __init__(self, *pairs: tuple[nn.Module, nn.Module]) -> None:
        values = [
            both
            for pair in pairs
            for both in zip(*(module.state_dict().values() for module in pair), strict=True)
        ]
        floating = [both for both in values if both[0].is_floating_point()]
        others = [both for both in values if not both[0].is_floating_point()]
        self._averages, self._values = [old for old, _ in floating], [new for _, new in floating]
        self._copies, self._copied = [old for old, _ in others], [new for _, new in others]

    @torch.no_grad()
    def follow(self, age: float, decay: float) -> None:
        """Moves the averages on to the networks as the last step left them.

        Args:
            age: steps that the averages have seen before; young ones forget faster, so that first weights do not
                linger.
            decay: what an old average keeps in a step.
        """
        decay = min(decay, (age + 1) / (age + 10))
        torch._foreach_lerp_(self._averages, self._values, 1 - decay)
        if self._copies:
            torch._foreach_copy_(self._copies, self._copied)


def check_finite(losses: Iterable[tuple[str, float, float]]) -> None:
    """Looks at the (name of a network, loss, norm of its gradient) of every descent of a step.

    Raises:
        DivergenceError: one is not finite.
    """
    for name, loss, norm in losses:
        if not math.isfinite(loss + norm):
            raise DivergenceError(f"the {name}'s loss is {loss:.3g} and its gradient {norm:.3g}")
