"""Normalisation layers (A.4)."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from led_fast.flows.contract import check_features, check_positive, per_feature
from led_fast.flows.score import forward_with_score

Statistics = Literal["running", "batch"]


class BatchNorm(nn.Module):
    """Batch normalisation, `t' = γ (t - mean) / √(var + ε) + β`, ladj = Σ log γ - ½ log(var + ε) (Eq. 12-13).

    The formula of ladj takes mean and variance for constants. With `statistics="running"` they are: in
    training, too, the layer normalises by the averages of the batches before this one (the first batch starts
    them; one sample alone leaves them as they are), so the density is exact. With `statistics="batch"`, the
    paper's choice, a training batch is normalised by its own mean and variance: its true Jacobian is singular
    and the formula is off by some .008 nats for each sample and feature at batch 256. In eval mode the
    running statistics serve in both cases, and every function of `led_fast.density` that reports a density
    puts the generator in eval mode.

    Args:
        features: number F of features (channels).
        statistics: "running" or "batch", what normalises in training mode.
        momentum: weight of a new batch in the running averages.
        eps: added to the variance.

    Shape:
        t: (B, F, ...). Output: the same and ladj (B,).
    """

    running_mean: Tensor
    running_var: Tensor
    initialized: Tensor

    def __init__(
        self, features: int, statistics: Statistics = "running", momentum: float = 0.1, eps: float = 1e-5
    ) -> None:
        super().__init__()
        check_positive("BatchNorm", features=features, momentum=momentum, eps=eps)
        if statistics not in get_args(Statistics):
            raise ValueError(f"BatchNorm: statistics must be 'running' or 'batch', got {statistics!r}")
        self.statistics = statistics
        self.momentum = momentum
        self.eps = eps
        self.log_gamma = nn.Parameter(torch.zeros(features))
        self.beta = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))
        self.register_buffer("initialized", torch.tensor(False))

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (t', Σ log γ / √(var + ε))."""
        check_features("BatchNorm", t, len(self.beta))
        return _affine(t, *self._constants(t))

    def _constants(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The (mean, log scale, shift) of this call; in training mode, moves the running averages."""
        mean, var = self.running_mean, self.running_var
        if self.training and len(t) > 1:
            batch_var, batch_mean = _moments(t)
            if not self.initialized:
                mean, var = batch_mean.detach(), batch_var.detach()
                self.running_mean.copy_(mean)
                self.running_var.copy_(var)
                self.initialized.fill_(True)
            else:
                # Out of place first: the graph of this step keeps the averages that it has used.
                mean, var = mean.clone(), var.clone()
                self.running_mean.lerp_(batch_mean.detach(), self.momentum)
                self.running_var.lerp_(batch_var.detach(), self.momentum)
            if self.statistics == "batch":
                mean, var = batch_mean, batch_var
        return mean, self.log_gamma - 0.5 * (var + self.eps).log(), self.beta


class ActNorm(nn.Module):
    """An affine map for each feature; its first training batch leaves with mean 0 and variance 1.

    (Kingma and Dhariwal 2018, "Glow".) Statistics never enter again, so the density is exact at any batch
    size; one sample alone does not start it.

    Args:
        features: number F of features (channels).

    Shape:
        t: (B, F, ...). Output: `e^s (t - mean) + shift` of the same shape, and ladj = Σ s, (B,).
    """

    mean: Tensor
    initialized: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        check_positive("ActNorm", features=features)
        self.log_scale = nn.Parameter(torch.zeros(features))
        self.shift = nn.Parameter(torch.zeros(features))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("initialized", torch.tensor(False))

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (t', Σ s)."""
        check_features("ActNorm", t, len(self.shift))
        return _affine(t, *self._constants(t))

    @torch.no_grad()
    def _start(self, t: Tensor) -> None:
        var, mean = _moments(t)
        self.mean.copy_(mean)
        self.log_scale.copy_(-0.5 * (var + 1e-12).log())
        self.initialized.fill_(True)

    def _constants(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The (mean, log scale, shift) that this call applies."""
        if self.training and len(t) > 1 and not self.initialized:
            self._start(t)
        return self.mean, self.log_scale, self.shift


def _affine(t: Tensor, mean: Tensor, log_scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    out = (t - per_feature(mean, t)) * per_feature(log_scale.exp(), t) + per_feature(shift, t)
    return out, (log_scale.sum() * math.prod(t.shape[2:])).expand(len(t))


def _moments(t: Tensor) -> tuple[Tensor, Tensor]:
    """Variance (biased) and mean of every feature over batch and positions."""
    return torch.var_mean(t, dim=[d for d in range(t.dim()) if d != 1], correction=0)


def _with_score(layer: BatchNorm | ActNorm, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    check_features(type(layer).__name__, t, len(score[0]))
    mean, log_scale, shift = layer._constants(t)
    out, ladj = _affine(t, mean, log_scale, shift)
    return out, ladj, score * per_feature((-log_scale).exp(), t).detach()


forward_with_score.register(BatchNorm, _with_score)
forward_with_score.register(ActNorm, _with_score)
