"""Layers that change the dimension: inflation (Eq. 7) and slicing (Eq. 8)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from led_fast.flows.conditional import LearnedConditional
from led_fast.flows.contract import (
    Layer,
    NotInvertibleError,
    check_features,
    check_positive,
    standard_normal_log_prob,
)


class Inflate(Layer):
    """Appends standard normal noise, `t' = [t ‖ η]`, η ~ N(0, I), ladj = -log N(η; 0, I) (Eq. 7).

    It is no bijection, because every call draws other noise; but `inverse`, which takes the noise away again with
    ladj = log N(η; 0, I), gives the exact density of any given `t'`.

    Args:
        features: number of features (channels) appended.

    Shape:
        t: (B, F, ...). Output: (B, F + features, ...) and ladj (B,).

    Example:
        >>> import torch
        >>> from led_fast.flows import Inflate
        >>> t, ladj = Inflate(3)(torch.zeros(5, 2))
        >>> t.shape
        torch.Size([5, 5])
    """

    bijective = False

    def __init__(self, features: int) -> None:
        super().__init__()
        check_positive("Inflate", features=features)
        self.features = features

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns ([t ‖ η], -log N(η; 0, I))."""
        if t.dim() < 2:
            raise ValueError(f"Inflate: t must have shape (B, F, ...), got {tuple(t.shape)}")
        noise = t.new_empty(t.shape[0], self.features, *t.shape[2:]).normal_()
        return torch.cat([t, noise], dim=1), -standard_normal_log_prob(noise)

    def inverse(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (t without the last features η, log N(η; 0, I))."""
        kept = t.shape[1] - self.features if t.dim() > 1 else 0
        if kept < 1:
            raise ValueError(
                f"Inflate: t must have shape (B, more than {self.features}, ...), got {tuple(t.shape)}"
            )
        value, noise = t.split([kept, self.features], dim=1)
        return value.clone(), standard_normal_log_prob(noise)

    def forward_with_score(self, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Layer`: the score of the noise is -η."""
        out, ladj = self(t)
        return out, ladj, torch.cat([score, -out[:, t.shape[1] :].detach()], dim=1)


class Slice(Layer):
    """Keeps the first features t1, drops the rest t2, with ladj = log r(t2 | t1) (Eq. 8).

    For **any** normalised r, `N(t1) / exp(log q)` stays an unbiased weight for the integral of N, and the
    entropy implied by `log q(t1, t2) - log r(t2 | t1)` stays a lower bound of that of t1, tight when r is the
    true conditional. The value for one sample is a surrogate, not the marginal density of t1. An r far from
    the true conditional, above all a broader one, makes the weights heavy-tailed; so r is learned by default,
    by the loss of the generator, which it tightens.

    Args:
        features: number of features (channels) of the input.
        keep: number of features kept.
        conditional: module `(t2, t1) -> log r(t2 | t1)`, (B,). Default: a `LearnedConditional`.
            `led_fast.flows.GaussianConditional` is the paper's. For `augment`, its
            `rsample_and_log_prob(t1, n) -> (t2, log r(t2 | t1))` draws n features.

    Shape:
        t: (B, features, ...). Output: (B, keep, ...) and ladj (B,).

    `inverse` and `forward_with_score` raise `NotInvertibleError`, because what was dropped is gone; `OneWayFlow` has a
    rule of its own for the score. `augment` draws it anew, from an r that can be drawn from.

    Example:
        >>> import torch
        >>> from led_fast.flows import GaussianConditional, Slice
        >>> t, ladj = Slice(4, keep=2, conditional=GaussianConditional())(torch.zeros(5, 4))
        >>> t.shape
        torch.Size([5, 2])
    """

    bijective = False

    def __init__(self, features: int, keep: int, conditional: nn.Module | None = None) -> None:
        super().__init__()
        if not 0 < keep < features:
            raise ValueError(f"Slice: keep must lie between 0 and features = {features}, got {keep}")
        self.features = features
        self.keep = keep
        self.conditional = (
            conditional if conditional is not None else LearnedConditional(features - keep, keep)
        )

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (t1, log r(t2 | t1))."""
        kept, dropped = self.split(t)
        return kept.clone(), self.conditional(dropped, kept)

    def forward_with_score(self, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Raises `NotInvertibleError`: the score at t1 alone does not follow from that at (t1, t2)."""
        raise NotInvertibleError(
            "forward_with_score: Slice drops features, and has no score of those it keeps"
        )

    def augment(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns ([t ‖ t2], -log r(t2 | t)) with t2 drawn from r: the way back of a bound, not of a density.

        Raises:
            NotInvertibleError: the conditional has no `rsample_and_log_prob`.
        """
        check_features("Slice", t, self.keep)
        draw = getattr(self.conditional, "rsample_and_log_prob", None)
        if draw is None:
            raise NotInvertibleError(
                f"augment: {type(self.conditional).__name__} has no rsample_and_log_prob to draw what was dropped"
            )
        dropped, log_r = draw(t, self.features - self.keep)
        return torch.cat([t, dropped], dim=1), -log_r

    def split(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (t1, t2): what is kept and what is dropped."""
        check_features("Slice", t, self.features)
        kept, dropped = t.split([self.keep, self.features - self.keep], dim=1)
        return kept, dropped
