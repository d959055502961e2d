"""The one-way flow: a sampler that knows the density of what it draws (Sec. 2.1.1)."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from itertools import chain

import torch
from torch import Tensor, nn

from led_fast.flows.base import Base, rsample_log_prob_and_score
from led_fast.flows.blocks import in_runs
from led_fast.flows.contract import (
    Layer,
    forward_with_score,
    inverse,
    invertible,
    through,
    through_with_score,
    total,
)
from led_fast.flows.dimension import Slice
from led_fast.flows.image import Rearrangement
from led_fast.flows.scored_sample import ScoredSample
from led_fast.ops.autocast import in_full_precision, without_autocast


class OneWayFlow(Layer):
    """A base distribution pushed through layers, with the log density tracked on the way (Eq. 6-8).

    Sampling, with the density of what is drawn, is all that LED needs. So layers may raise or lower the dimension,
    and need no inverse. Where every layer has one, `log_prob` gives the density of any point. After a `Slice`,
    log q is the surrogate `log q(t1, t2) - log r(t2 | t1)`: its importance weights stay unbiased.
    All of it is computed in float32, under autocast and of half-precision values too, because half precision would put
    log q off by nats. Only networks inside its layers may be told otherwise, by `led_fast.nn.set_inner_dtype`.

    Args:
        base: has `rsample_and_log_prob(n) -> (z, log_prob)`, `log_prob(z)` and, for `rsample_with_score`,
            `score(z)` or `rsample_log_prob_and_score(n) -> (z, log_prob, score)`.
        layers: modules that keep the contract of `led_fast.flows.contract`.

    Example:
        >>> import torch
        >>> from led_fast import flows
        >>> flow = flows.OneWayFlow(flows.StandardNormal(2), [flows.Linear(2), flows.SoftReLU()])
        >>> y, log_q = flow.rsample_and_log_prob(5)
        >>> torch.testing.assert_close(flow.log_prob(y), log_q)
    """

    base: Base

    def __init__(self, base: Base, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.base = base
        self.layers = nn.ModuleList(layers)

    @property
    def bijective(self) -> bool:
        """Whether every layer is a bijection; False for one that does not say."""
        return all(getattr(layer, "bijective", False) for layer in self.layers)

    @property
    def invertible(self) -> bool:
        """Whether every layer has an inverse, so that `log_prob` is there."""
        return all(map(invertible, self.layers))

    @property
    def has_bound(self) -> bool:
        """Whether `log_prob_bound` is there: what has no inverse is a `Slice` whose r can be drawn from."""
        return all(
            invertible(layer)
            or (isinstance(layer, Slice) and hasattr(layer.conditional, "rsample_and_log_prob"))
            for layer in self.layers
        )

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Pushes latent values through all layers: (y, ladj), as a layer does."""
        with in_full_precision(t, self) as t:
            return through(in_runs(self.layers, t), t)

    def inverse(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Takes points back through all layers: (z, ladj), as a layer does.

        Raises:
            NotInvertibleError: a layer has no inverse.
        """
        with in_full_precision(t, self) as t:
            z, steps = self._steps_back(t, self.layers)
            return z, total(steps, z)

    def forward_with_score(self, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Layer`: by the rule of every layer in turn."""
        with in_full_precision(t, self) as t:
            return through_with_score(in_runs(self.layers, t), t, score)

    def log_prob(self, y: Tensor) -> Tensor:
        """Log density of any y, (B, ...) -> (B,), in nats; differentiable in y and all parameters.

        Raises:
            NotInvertibleError: a layer has no inverse.
        """
        return self._log_prob(y, self.layers)

    def log_prob_bound(self, y: Tensor) -> Tensor:
        """A lower bound of log q(y) in expectation, (B, ...) -> (B,), in nats; without a `Slice`, log q(y) itself.

        What slices drop is drawn from their r: `log q(y, t2) - log r(t2 | y)` with `t2 ~ r` is at most log q(y) on
        average, and its exponential is unbiased; where r is the true conditional, it is log q(y). (See augmented
        flows, Huang et al. 2020, and SurVAE flows, Nielsen et al. 2020.) Differentiable in y and all parameters.

        Raises:
            NotInvertibleError: a layer has no inverse, or a slice an r that cannot be drawn from.
        """
        return self._log_prob(y, self.layers, augmented=True)

    def log_prob_before_last(self, t: Tensor) -> Tensor:
        """As `log_prob`, of points that the last layer has not moved yet."""
        return self._log_prob(t, self.layers[:-1])

    def _log_prob(self, y: Tensor, layers: nn.ModuleList, augmented: bool = False) -> Tensor:
        with in_full_precision(y, self) as t:
            z, steps = self._steps_back(t, layers, augmented)
            return total([self.base.log_prob(z), *steps], z)

    def _steps_back(
        self, t: Tensor, layers: nn.ModuleList, augmented: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """Takes points back through layers, `augmented` through slices too: (z, the ladj of each that is not 0)."""
        steps = []
        for layer in reversed(layers):
            if isinstance(layer, Rearrangement):
                t = layer.put_back(t)
                continue
            t, step = layer.augment(t) if augmented and isinstance(layer, Slice) else inverse(layer, t)
            steps.append(step)
        return t, steps

    def rsample_and_log_prob(self, n: int) -> tuple[Tensor, Tensor]:
        """Draws n samples, differentiable in all parameters.

        Returns:
            (y, log_q): samples (n, ...) and their log density (n,), in nats.
        """
        with self._without_autocast():
            z, log_q = self.base.rsample_and_log_prob(n)
        y, ladj = self(z)
        return y, log_q - ladj

    def rsample(self, n: int) -> Tensor:
        """Draws n samples, differentiable in all parameters: (n, ...)."""
        return self.rsample_and_log_prob(n)[0]

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """Draws n samples without gradients: (n, ...)."""
        return self.rsample(n)

    def _without_autocast(self) -> AbstractContextManager:
        """Where the base is to be asked."""
        return without_autocast(next(chain(self.parameters(), self.buffers()), torch.empty(0)))

    def rsample_with_score(self, n: int) -> ScoredSample:
        """Draws n samples and carries the score ∇ log q along, for pathwise gradients."""
        with self._without_autocast():
            z, log_joint, score = rsample_log_prob_and_score(self.base, n)
        scores, values, log_r = [], [], []  # of what is dropped
        with in_full_precision(z, self) as t:
            score = score.to(t.dtype)
            for layer in in_runs(self.layers, t):
                if isinstance(layer, Slice):
                    kept, dropped = layer.split(t)
                    score, dropped_score = layer.split(score)
                    scores.append(dropped_score)
                    values.append(dropped)
                    log_r.append(layer.conditional(dropped, kept))
                    t = kept
                else:
                    t, ladj, score = forward_with_score(layer, t, score)
                    log_joint = log_joint - ladj
        return ScoredSample.of(
            t, log_joint, total(log_r, t) if log_r else None, [*values, t], [*scores, score]
        )
