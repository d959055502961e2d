"""Normalisation layers (A.4)."""

from __future__ import annotations

import math
from collections import deque
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from led_fast.flows.contract import Layer, check_features, check_positive, log_dtype
from led_fast.ops.batch_norm import along_features, batch_norm, moments

_REMEMBERED = 16  # batches that gradient checkpointing may run again


class _Flag:
    """Looks at a 0-d bool tensor no more once it was True, as long as nobody writes to it: a GPU is waited for once."""

    def __init__(self) -> None:
        self._seen: tuple[Tensor, int] | None = None

    def is_set(self, flag: Tensor) -> bool:
        if flag.is_inference():  # which has no version
            return bool(flag)
        if self._seen is not None and self._seen[0] is flag and self._seen[1] == flag._version:
            return True
        self._seen = (flag, flag._version) if flag else None
        return self._seen is not None

    def set(self, flag: Tensor) -> None:
        """Sets the tensor."""
        flag.fill_(True)
        self._seen = None if flag.is_inference() else (flag, flag._version)

    def __deepcopy__(self, memo: object) -> _Flag:
        return _Flag()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _Flag, ()


Statistics = Literal["running", "batch"]


class _Normalization(Layer):
    """`t' = e^s (t - mean) + shift` for each feature; a subclass says by which constants."""

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (t', Σ s)."""
        out, log_scale = self._normalize(t)
        return out, _ladj(log_scale, t)

    def inverse(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (t, -Σ s)."""
        mean, log_scale, shift = self._inverse_constants(t)
        return _affine(t, shift, -log_scale, mean), _ladj(-log_scale, t)

    def forward_with_score(self, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Layer`: the Jacobian is diagonal."""
        out, log_scale = self._normalize(t)
        return out, _ladj(log_scale, t), score * along_features((-log_scale).exp(), t).detach()

    def _normalize(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """t' and s."""
        mean, log_scale, shift = self._constants(t)
        return _affine(t, mean, log_scale, shift), log_scale

    def _constants(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The (mean, s, shift) that `forward` applies to t."""
        raise NotImplementedError

    def _inverse_constants(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The (mean, s, shift) that `inverse` takes away from t."""
        raise NotImplementedError


class BatchNorm(_Normalization):
    """Batch normalisation, `t' = γ (t - mean) / √(var + ε) + β`, ladj = Σ log γ - ½ log(var + ε) (Eq. 12-13).

    The formula of ladj takes mean and variance for constants. With `statistics="running"` they are: in
    training, too, the layer normalises by the averages of the batches before this one (the first batch starts
    them; one sample alone leaves them as they are), so the density is exact. With `statistics="batch"`, the
    paper's choice, a training batch is normalised by its own mean and variance: its true Jacobian is singular
    and the formula is off by some .008 nats for each sample and feature at batch 256. In eval mode the
    running statistics serve in both cases, and every function of `led_fast.density` that reports a density
    puts the generator in eval mode. `inverse` always takes the running ones, and moves nothing.

    Gradient checkpointing runs a batch again in backward: that moves nothing, and normalises as the first time. Which
    time that was is told by the batch's moments.

    Args:
        features: number F of features (channels).
        statistics: "running" or "batch", what normalises in training mode.
        momentum: weight of a new batch in the running averages.
        eps: added to the variance.

    Shape:
        t: (B, F, ...). Output: the same and ladj (B,).

    Raises:
        RuntimeError: gradient checkpointing runs a batch again that is not among the last 16, or that passed more than
            once before backward.

    Example:
        >>> import torch
        >>> from led_fast.flows import BatchNorm
        >>> t, ladj = BatchNorm(3)(torch.randn(64, 3))
        >>> t.shape, ladj.shape
        (torch.Size([64, 3]), torch.Size([64]))
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
        self.features = features
        self.statistics = statistics
        self.momentum = momentum
        self.eps = eps
        self.log_gamma = nn.Parameter(torch.zeros(features))
        self.beta = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))
        self.register_buffer("initialized", torch.tensor(False))
        self._started = _Flag()
        # Moments of batches, and the (mean, variance) that normalised these batches.
        self._recent: deque[tuple[Tensor, tuple[Tensor, Tensor]]] = deque(maxlen=_REMEMBERED)

    def _normalize(self, t: Tensor) -> tuple[Tensor, Tensor]:
        check_features("BatchNorm", t, self.features)
        if self.statistics == "running" or not self._learns_of(t):
            return super()._normalize(t)
        value = t.to(self.running_mean.dtype)
        out, log_scale, var, mean = batch_norm(value, self.log_gamma, self.beta, self.eps)
        self._moments_in_use(mean, var)
        return out.to(t.dtype), log_scale

    def _constants(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self._learns_of(t):
            return self._normalizing(self.running_mean, self.running_var)
        with torch.no_grad():
            var, mean = moments(t.to(self.running_mean.dtype))
        return self._normalizing(*self._moments_in_use(mean, var))

    def _learns_of(self, t: Tensor) -> bool:
        return self.training and t.shape[0] > 1

    def _moments_in_use(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """Running averages that normalise a batch of these moments, which moves them."""
        if torch._C._current_graph_task_id() != -1:  # in backward: a checkpointed batch is run again
            return self._recall(torch.stack([mean, var]))
        return self._move(mean, var)

    def _inverse_constants(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        check_features("BatchNorm", t, self.features)
        return self._normalizing(self.running_mean, self.running_var)

    def _normalizing(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return mean, self.log_gamma - 0.5 * (var + self.eps).log(), self.beta

    def _move(self, batch_mean: Tensor, batch_var: Tensor) -> tuple[Tensor, Tensor]:
        """Moves the running averages by a batch; returns those that normalise it."""
        if self._started.is_set(self.initialized):
            # Copies: the graph of this step keeps the averages that it has used.
            mean, var = self.running_mean.clone(), self.running_var.clone()
            self.running_mean.lerp_(batch_mean, self.momentum)
            self.running_var.lerp_(batch_var, self.momentum)
        else:
            mean, var = batch_mean, batch_var
            self.running_mean.copy_(mean)
            self.running_var.copy_(var)
            self._started.set(self.initialized)
        self._recent.append((torch.stack([batch_mean, batch_var]), (mean, var)))
        return mean, var

    def _recall(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        """What normalised a batch the first time."""
        found = [used for known, used in self._recent if _alike(known, moments)]
        if not found:
            raise RuntimeError(
                f"BatchNorm: gradient checkpointing runs a batch again that is not among the last {_REMEMBERED}; call "
                "backward after fewer of them"
            )
        if len(found) > 1:
            raise RuntimeError(
                "BatchNorm: gradient checkpointing cannot tell apart batches of the same moments, normalised by other "
                "averages; call backward after each, or leave the layer out of the checkpoint"
            )
        return found[0]


class ActNorm(_Normalization):
    """An affine map for each feature; its first training batch leaves with mean 0 and variance 1.

    (Kingma and Dhariwal 2018, "Glow".) That batch may pass in either direction. Statistics never enter again, so
    the density is exact at any batch size; one sample alone does not start it. A feature that is constant in it keeps
    its scale. Let one batch pass before `DistributedDataParallel` wraps the flow, and hands that start to all.

    Args:
        features: number F of features (channels).

    Shape:
        t: (B, F, ...). Output: `e^s (t - mean) + shift` of the same shape, and ladj = Σ s, (B,).

    Raises:
        ValueError: the batch that is to start it is not finite.
        RuntimeError: `DistributedDataParallel` wraps a layer that has not started, so each process would start by its
            own batch.

    Example:
        >>> import torch
        >>> from led_fast.flows import ActNorm
        >>> t, ladj = ActNorm(2)(torch.tensor([[1.0, 10.0], [3.0, 30.0]]))
        >>> t.mean(0).abs().max() < 1e-6
        tensor(True)
    """

    mean: Tensor
    initialized: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        check_positive("ActNorm", features=features)
        self.features = features
        self.log_scale = nn.Parameter(torch.zeros(features))
        self.shift = nn.Parameter(torch.zeros(features))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("initialized", torch.tensor(False))
        self._started = _Flag()

    def _constants(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        check_features("ActNorm", t, self.features)
        if self._starts_by(t):
            self._start(t, -0.5, self.mean)
        return self.mean, self.log_scale, self.shift

    def _inverse_constants(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        check_features("ActNorm", t, self.features)
        if self._starts_by(t):
            self._start(t, 0.5, self.shift)
        return self.mean, self.log_scale, self.shift

    def _starts_by(self, t: Tensor) -> bool:
        return self.training and t.shape[0] > 1 and not self._started.is_set(self.initialized)

    @torch.no_grad()
    def _start(self, t: Tensor, power: float, location: Tensor) -> None:
        wrapper = getattr(DistributedDataParallel, "_active_ddp_module", None)
        if wrapper is not None and wrapper.process_group.size() > 1:
            raise RuntimeError(
                "ActNorm: its first batch starts it, and each process has another one: let a batch pass through the "
                "flow in training mode before DistributedDataParallel wraps it, which hands that start to all"
            )
        var, mean = moments(t.to(self.mean.dtype))
        if not bool(var.isfinite().all()):
            raise ValueError(
                "ActNorm: the first batch must be finite, got NaN or infinite values, or too large ones"
            )
        location.copy_(mean)
        self.log_scale.copy_(torch.where(var > 0, power * (var + 1e-12).log(), 0))
        self._started.set(self.initialized)


def _affine(t: Tensor, mean: Tensor, log_scale: Tensor, shift: Tensor) -> Tensor:
    out = (t - along_features(mean, t)) * along_features(log_scale.exp(), t) + along_features(shift, t)
    return out.to(t.dtype)


def _ladj(log_scale: Tensor, t: Tensor) -> Tensor:
    return (log_scale.sum(dtype=log_dtype(t)) * math.prod(t.shape[2:])).repeat(t.shape[0])


def _alike(a: Tensor, b: Tensor) -> bool:
    return bool(((a == b) | (a.isnan() & b.isnan())).all())
