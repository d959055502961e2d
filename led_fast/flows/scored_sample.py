"""Samples of a flow with the parts of their log density's gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from led_fast.ops._autograd import in_transform
from led_fast.ops._sample_sums import along_samples


class ScoredSample(NamedTuple):
    """Samples and their log density under three kinds of gradient; the three have equal values.

    The gradient of `log_q` is the sum of two parts, which different losses need apart. `log_q_path` follows
    the sample alone, at fixed density parameters: the pathwise gradient of a reverse KL, without the noise of
    a term whose mean is zero. `log_q_fixed` follows the density's parameters alone, at a fixed sample: what a
    forward KL needs. Behind a slice, "the sample" is the joint of kept and dropped values, and r(t2 | t1)
    counts as part of the target: it learns through `log_q_path`.
    """

    y: Tensor
    log_q: Tensor
    log_q_path: Tensor
    log_q_fixed: Tensor

    @classmethod
    def of(
        cls,
        y: Tensor,
        log_joint: Tensor,
        log_r: Tensor | None,
        values: Sequence[Tensor],
        scores: Sequence[Tensor],
    ) -> ScoredSample:
        """From the density of all values together.

        Args:
            y: the samples, (n, ...).
            log_joint: log density of kept and dropped values, (n,), with its gradient.
            log_r: that of the dropped ones given the kept, (n,); None where none is dropped.
            values: dropped and kept, (n, ...) each, with their gradients.
            scores: the gradient of the joint log density at each, detached.
        """
        if in_transform():
            return cls(y, *_by_parts(log_joint, log_r, values, scores))
        return cls(y, *_Parts.apply(log_joint, log_r, *values, *scores))


def _by_parts(
    log_joint: Tensor, log_r: Tensor | None, values: Sequence[Tensor], scores: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """`log_q`, `log_q_path` and `log_q_fixed`."""
    pairs = zip(scores, values, strict=True)
    path = torch.stack([(score * value).flatten(1).sum(dim=1) for score, value in pairs]).sum(0)
    log_q, path_only = (log_joint, path) if log_r is None else (log_joint - log_r, path - log_r)
    fixed_only, value = log_joint - path, log_q.detach()
    return log_q, value + (path_only - path_only.detach()), value + (fixed_only - fixed_only.detach())


class _Parts(torch.autograd.Function):
    """As `_by_parts`, by one node. Linear in what it differentiates, so that its backward differentiates by itself."""

    @staticmethod
    def forward(ctx: Any, log_joint: Tensor, log_r: Tensor | None, *rest: Tensor) -> tuple[Tensor, ...]:
        ctx.of_r = log_r is not None
        ctx.save_for_backward(*rest[len(rest) // 2 :])
        ctx.set_materialize_grads(False)
        log_q = log_joint.clone() if log_r is None else log_joint - log_r
        return log_q, log_q.clone(), log_q.clone()

    @staticmethod
    def backward(
        ctx: Any, by_both: Tensor | None, by_path: Tensor | None, by_fixed: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        scores = ctx.saved_tensors
        # Zeros are left out, not multiplied: a score may be infinite.
        of_path = _sum(by_path, None if by_fixed is None else -by_fixed)
        of_values = [None if of_path is None else along_samples(of_path, s) * s for s in scores]
        of_kept = _sum(by_both, by_path) if ctx.of_r else None
        return (
            _sum(by_both, by_fixed),
            None if of_kept is None else -of_kept,
            *of_values,
            *[None] * len(scores),
        )


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b
