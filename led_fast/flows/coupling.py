"""Affine coupling: part of the features scales and shifts the rest, through any network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from led_fast.flows.contract import Layer, check_features, check_positive, gradient, log_dtype, sum_event


class Coupling(Layer):
    """`t2' = e^{s(t1)} t2 + m(t1)` and `t1' = t1`, ladj = Σ s (Dinh et al. 2016, "Real NVP").

    Or, to take mean and scale away instead of giving them, `t2' = e^{-s(t1)} (t2 - m(t1))`, ladj = -Σ s: the
    network then predicts t2 from t1.

    The Jacobian is triangular whatever the network computes, so a deep one adds expressive power at no cost
    in the bookkeeping. The paper's generator has no such layer.

    Args:
        network: maps t1 to [m ‖ s], (B, 2 F2, ...). It must treat the samples of a batch independently. It gets a
            copy of t1, unless it says by an attribute `keeps_input = True` that it leaves its input as it is.
        features: number F of features (channels) of t.
        given: number F1 of features that stay; F2 = F - F1 are changed.
        given_first: whether t1 are the first features or the last.
        whiten: whether mean and scale are taken away.
        bound: largest |s|; s is squashed into it smoothly.

    Shape:
        t: (B, F, ...). Output: the same and ladj (B,).

    Raises:
        ValueError: not 0 < given < features, t has another shape, or the network's output has.

    Example:
        >>> import torch
        >>> from led_fast.flows import Coupling
        >>> layer = Coupling(torch.nn.Linear(1, 4), features=3, given=1)
        >>> t, ladj = layer(torch.randn(5, 3))
        >>> back, back_ladj = layer.inverse(t)
        >>> torch.allclose(ladj + back_ladj, torch.zeros(5), atol=1e-5)
        True
    """

    def __init__(
        self,
        network: nn.Module,
        features: int,
        given: int,
        given_first: bool = True,
        whiten: bool = False,
        bound: float = 4.0,
    ) -> None:
        super().__init__()
        check_positive("Coupling", features=features, bound=bound)
        if not 0 < given < features:
            raise ValueError(f"Coupling: given must lie between 0 and features = {features}, got {given}")
        self.network = network
        self.features = features
        self.given = given
        self.given_first = given_first
        self.whiten = whiten
        self.bound = bound

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (t', ±Σ s)."""
        given, changed = self.split(t)
        shift, log_scale = self._shift_and_scale(given, self.whiten)
        return self._move(given, changed, shift, log_scale, self.whiten)

    def inverse(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (t, ∓Σ s)."""
        given, changed = self.split(t)
        shift, log_scale = self._shift_and_scale(given, not self.whiten)
        return self._move(given, changed, shift, log_scale, not self.whiten)

    def forward_with_score(self, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Layer`. J is triangular: what t2' owes to t1 is taken off the score of t1, in one backward pass."""
        with_graph = torch.is_grad_enabled()
        of_given, of_changed = self.split(score)
        with torch.enable_grad():
            given, changed = self.split(t)
            given = given if with_graph and given.requires_grad else given.detach().requires_grad_()
            shift, log_scale = self.affine(given)
            changed, ladj = (log_scale.exp() * changed + shift).to(t.dtype), sum_event(log_scale)
            of_changed = of_changed * (-log_scale.detach()).exp()
            owed = ladj + sum_event(of_changed * changed)
            by_given = gradient(owed, given)
        out, carried = self.join(given, changed), self.join(of_given - by_given, of_changed.to(t.dtype))
        return (out, ladj, carried) if with_graph else (out.detach(), ladj.detach(), carried)

    def split(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (t1, t2): what stays and what changes."""
        check_features("Coupling", t, self.features)
        rest = self.features - self.given
        # Not two slices, whose gradients are images of zeros, filled in and added up.
        if self.given_first:
            given, changed = t.split([self.given, rest], dim=1)
        else:
            changed, given = t.split([rest, self.given], dim=1)
        return given, changed

    def join(self, given: Tensor, changed: Tensor) -> Tensor:
        """Undoes `split`."""
        return torch.cat([given, changed] if self.given_first else [changed, given], dim=1)

    def affine(self, given: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and log scale of what changes, in `log_dtype`: (b, a) in `t2' = e^a t2 + b`."""
        shift, log_scale = self._shift_and_scale(given, self.whiten)
        return (-shift * log_scale.exp(), log_scale) if self.whiten else (shift, log_scale)

    def _shift_and_scale(self, given: Tensor, away: bool) -> tuple[Tensor, Tensor]:
        """(m, ±s) in `log_dtype`, -s where mean and scale are to be taken away."""
        wanted = (given.shape[0], 2 * (self.features - self.given), *given.shape[2:])
        # A network may change its input in place, unless it says otherwise.
        keeps_input = getattr(self.network, "keeps_input", False)
        parameters = self.network(given if keeps_input else given.clone())
        if tuple(parameters.shape) != wanted:
            raise ValueError(f"Coupling: network must give shape {wanted}, got {tuple(parameters.shape)}")
        mean, raw = parameters.to(log_dtype(given)).chunk(2, dim=1)
        return mean, (-self.bound if away else self.bound) * torch.tanh(raw / self.bound)

    def _move(
        self, given: Tensor, changed: Tensor, shift: Tensor, log_scale: Tensor, away: bool
    ) -> tuple[Tensor, Tensor]:
        scale = log_scale.exp()
        moved = (changed - shift) * scale if away else scale * changed + shift
        return self.join(given, moved.to(given.dtype)), sum_event(log_scale)
