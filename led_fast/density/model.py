"""The density model: a critic, its normaliser, and the generator that samples it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from led_fast.density.mode import eval_mode
from led_fast.density.proposals import OwnMeasure
from led_fast.density.quadrature import QuadratureEstimate
from led_fast.density.refinement import RefinedSample, resample
from led_fast.density.verdict import UnreliableNormalizerWarning, Verdict, by_quadrature
from led_fast.flows import OneWayFlow


class DensityModel(nn.Module):
    """The density `log p(x) = f(x) - log α` of a critic f, and samples from it by a generator (Sec. 2).

    Args:
        critic: f = log N, a module (B, ...) -> (B,).
        generator: a one-way flow onto the same space.

    Example:
        >>> import torch
        >>> from led_fast import density, flows, models
        >>> generator = flows.OneWayFlow(flows.MixtureBase(2, components=4), [flows.Linear(2)])
        >>> model = density.DensityModel(models.points_critic(), generator)
        >>> model.set_log_normalizer(density.estimate_log_normalizer(model.critic, generator).value)
        >>> model.log_prob(torch.zeros(3, 2)).shape, model.sample(5, refine=True).shape
        (torch.Size([3]), torch.Size([5, 2]))
    """

    log_normalizer: Tensor

    def __init__(self, critic: nn.Module, generator: OneWayFlow) -> None:
        super().__init__()
        self.critic = critic
        self.generator = generator
        self.register_buffer("log_normalizer", torch.tensor(float("nan"), dtype=torch.float64))
        self._verdict: Verdict | None = None
        self._warned = False

    def unnormalized_log_prob(self, x: Tensor) -> Tensor:
        """The critic's f(x) = log N(x): (B, ...) -> (B,), in nats."""
        return self.critic(x)

    def own_tilt(self) -> Callable[[Tensor], Tensor] | None:
        """`f - log q` by itself, (B, ...) -> (B,), where the critic tilts the very density that the generator has.

        A critic that does says so by a method `tilt_of(generator)`; None where it has none, or tilts another density.
        The difference of both log densities is the same, but not where a sample lies so far out that they are beyond
        10⁸ nats: there rounding alone makes a wild importance weight.
        """
        tilt_of = getattr(self.critic, "tilt_of", None)
        return None if tilt_of is None else tilt_of(self.generator)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density of x: (B, ...) -> (B,), in nats.

        Warns once a model with `UnreliableNormalizerWarning` where the verdict on log α is that it is not reliable.

        Raises:
            RuntimeError: `log_normalizer` has not been set.
        """
        if self.log_normalizer.isnan():
            raise RuntimeError(
                "DensityModel.log_prob: log_normalizer is not set; estimate it, then call set_log_normalizer"
            )
        self._warn()
        f = self.critic(x)
        return f - self.log_normalizer.to(torch.promote_types(f.dtype, x.dtype))

    def set_log_normalizer(self, value: float) -> None:
        """Sets log α to a value that nobody has judged."""
        self.log_normalizer.fill_(value)
        self._verdict = None

    def set_verdict(self, verdict: Verdict) -> None:
        """Sets log α, with the verdict on it, which is saved with the model: see `led_fast.density.judge`."""
        self.log_normalizer.fill_(verdict.value)
        self._verdict, self._warned = verdict, False

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on log α; None where it was never judged."""
        return self._verdict

    def get_extra_state(self) -> Tensor:
        """The verdict as the bytes of JSON, uint8: code that saves or copies state dicts wants tensors in them."""
        return _to_bytes(self._verdict)

    def set_extra_state(self, state: Tensor) -> None:
        """The inverse of `get_extra_state`."""
        verdict = json.loads(bytes(state.tolist()))
        self._verdict, self._warned = None if verdict is None else Verdict.from_json(verdict), False

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DensityModel:
        """Lets log α be float64 whatever the networks become, because in bfloat16 it may be nats off."""
        value = self.log_normalizer
        super()._apply(fn, recurse)
        if self.log_normalizer.dtype != value.dtype:
            self.log_normalizer = value.to(self.log_normalizer.device)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Also takes a state of version 0.1.0, which held the quadrature's four numbers, or zeros."""
        if (old := state_dict.pop(f"{prefix}_quadrature", None)) is not None:
            value, error, edge_share, evaluations = old.tolist()
            quadrature = QuadratureEstimate(value, error, edge_share, int(evaluations))
            verdict = by_quadrature(quadrature) if evaluations else None
            state_dict[f"{prefix}_extra_state"] = _to_bytes(verdict)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _warn(self) -> None:
        if torch.compiler.is_compiling() or self._warned or self._verdict is None or self._verdict.reliable:
            return
        self._warned = True
        warnings.warn(
            f"log α is not reliable, and all log densities may be off by as much: {self._verdict.reason}",
            UnreliableNormalizerWarning,
            stacklevel=3,
        )

    def sample(self, n: int, refine: bool = False) -> Tensor:
        """Draws n samples of the generator, or with `refine` of the density itself: (n, ...)."""
        if refine:
            return self.refined_sample(n).x
        with eval_mode(self.generator):
            return self.generator.sample(n)

    @torch.no_grad()
    def refined_sample(self, n: int, draws_per_sample: int = 8) -> RefinedSample:
        """Draws from the density by importance resampling of generator draws with weights N / q.

        The samples follow p as the number of draws grows, as far as the generator covers p; a draw of large
        weight comes more than once. Warns as `log_prob` does: where log α is doubtful, so is the cover.

        Args:
            n: number of samples.
            draws_per_sample: generator draws for each sample returned, but 256 in all at least.

        Raises:
            ValueError: a number is not positive, or a weight is NaN or infinite, or all weights are zero.
        """
        for name, value in (("n", n), ("draws_per_sample", draws_per_sample)):
            if value < 1:
                raise ValueError(f"DensityModel.refined_sample: {name} must be positive, got {value}")
        self._warn()
        with eval_mode(self.generator, self.critic):
            tilt = self.own_tilt()
            if tilt is None:
                return resample(self.critic, self.generator, n, draws_per_sample)
            return resample(tilt, OwnMeasure(self.generator), n, draws_per_sample)


def _to_bytes(verdict: Verdict | None) -> Tensor:
    text = json.dumps(None if verdict is None else verdict.to_json())
    return torch.tensor(list(text.encode()), dtype=torch.uint8, device="cpu")
