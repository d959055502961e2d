"""Slow, independent truths that the flow tests compare with."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from led_fast.flows import Inflate, OneWayFlow, Slice


def randomize(module: nn.Module, scale: float = 0.3) -> nn.Module:
    """Moves every parameter off its initial value, so that no log-determinant is trivially zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return module


def jacobian(function: Callable[[Tensor], Tensor], x: Tensor, create_graph: bool = False) -> Tensor:
    """Jacobian of a flat map (D,) -> (D',) at x, row by row with autograd."""
    return torch.autograd.functional.jacobian(function, x, create_graph=create_graph)


def brute_force_ladj(layer: nn.Module, t: Tensor) -> Tensor:
    """Log|det| of a batch-independent bijection's Jacobian, sample by sample: (B,)."""

    def flat(x: Tensor) -> Tensor:
        return layer(x.view(1, *t.shape[1:]))[0].flatten()

    jacobians = torch.stack([jacobian(flat, sample.flatten()) for sample in t])
    return torch.linalg.slogdet(jacobians).logabsdet


def joint_map(flow: OneWayFlow, u: Tensor, dim: int = 2) -> Tensor:
    """All noise of one sample (plane base, inflations), flat -> all that the flow keeps or drops, flat."""
    t, rest, dropped = u[None, :dim], u[dim:], []
    for layer in flow.layers:
        if isinstance(layer, Inflate):
            t, rest = torch.cat([t, rest[None, : layer.features]], dim=1), rest[layer.features :]
        elif isinstance(layer, Slice):
            t, tail = layer.split(t)
            dropped.append(tail[0])
        else:
            t = layer(t)[0]
    return torch.cat([t[0], *dropped])


def joint_log_prob(flow: OneWayFlow, u: Tensor, create_graph: bool = False, dim: int = 2) -> Tensor:
    """Log density of `joint_map(flow, u)` by the change of variables with the whole Jacobian."""
    noise = -0.5 * u[dim:].square().sum() - 0.5 * len(u[dim:]) * math.log(2 * math.pi)
    return (
        flow.base.log_prob(u[None, :dim])[0]
        + noise
        - torch.linalg.slogdet(jacobian(lambda v: joint_map(flow, v, dim), u, create_graph)).logabsdet
    )


def joint_score(flow: OneWayFlow, u: Tensor) -> Tensor:
    """Gradient of the joint's log density at `joint_map(flow, u)`."""
    u = u.detach().requires_grad_()
    (by_noise,) = torch.autograd.grad(joint_log_prob(flow, u, create_graph=True), u)
    return torch.linalg.solve(jacobian(lambda v: joint_map(flow, v), u.detach()).mT, by_noise)


def record_noise(flow: OneWayFlow, monkeypatch) -> list[Tensor]:
    """Makes the next draws write their noise, in the order in which it enters, into the returned list."""
    noise: list[Tensor] = []
    draw = flow.base.rsample_and_log_prob

    def recording(n: int) -> tuple[Tensor, Tensor]:
        z, log_prob = draw(n)
        noise.append(z)
        return z, log_prob

    monkeypatch.setattr(flow.base, "rsample_and_log_prob", recording)
    for layer in flow.layers:
        if isinstance(layer, Inflate):
            layer.register_forward_hook(lambda m, _, out: noise.append(out[0][:, -m.features :].detach()))
    return noise


def gaussian_mixture(means: Tensor, std: float) -> Callable[[Tensor], Tensor]:
    """Normalised log density of an equal mixture of isotropic normals."""

    def log_prob(x: Tensor) -> Tensor:
        squared = (x[:, None] - means.to(x)).square().sum(-1)
        constant = math.log(len(means)) + means.shape[1] * math.log(std * math.sqrt(2 * math.pi))
        return (-squared / (2 * std**2)).logsumexp(1) - constant

    return log_prob
