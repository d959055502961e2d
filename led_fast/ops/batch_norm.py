"""Each feature of a batch by the batch's own mean and variance, and these moments."""

import math
from typing import Any

import torch
from torch import Tensor

from led_fast.ops._autograd import in_transform


def moments(t: Tensor) -> tuple[Tensor, Tensor]:
    """Variance (biased) and mean of every feature over batch and positions: (B, F, ...) -> (F,) each."""
    if not t.is_cpu:
        return torch.var_mean(t, dim=_over(t), correction=0)
    # That takes many times as long on a CPU.
    centred, mean = _centred(t)
    return centred.square().mean(_over(t)), mean


def batch_norm(
    t: Tensor, log_gamma: Tensor, beta: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`γ (t - mean) / √(var + eps) + β` by the batch's moments, of any number of derivatives.

    Args:
        t: (B, F, ...), of the parameters' dtype.
        log_gamma: log γ, (F,).
        beta: β, (F,).
        eps: added to the variance.

    Returns:
        The value, like t; `log γ - ½ log(var + eps)`, (F,); and the variance and mean, (F,) each, detached.
    """
    if t.is_cpu and not in_transform():
        return _BatchNorm.apply(t, log_gamma, beta, eps)
    var, mean = moments(t)
    return *_plain(t, log_gamma, beta, eps, var, mean), var.detach(), mean.detach()


def along_features(parameter: Tensor, t: Tensor) -> Tensor:
    """Views a parameter of shape (F,) so that it broadcasts over t of shape (B, F, ...)."""
    return parameter.view(-1, *[1] * (t.dim() - 2))


def _over(t: Tensor) -> list[int]:
    return [d for d in range(t.dim()) if d != 1]


def _centred(t: Tensor) -> tuple[Tensor, Tensor]:
    """t less its mean, and that.

    Counted from a first mean on, so that the second one keeps the digits of small differences.
    """
    over = _over(t)
    first = t.detach().mean(over, keepdim=True)
    moved = t - first
    mean = moved.mean(over, keepdim=True)
    return moved - mean, (first + mean).flatten()


def _plain(
    t: Tensor, log_gamma: Tensor, beta: Tensor, eps: float, var: Tensor, mean: Tensor
) -> tuple[Tensor, Tensor]:
    log_scale = log_gamma - 0.5 * (var + eps).log()
    scaled = (t - along_features(mean, t)) * along_features(log_scale.exp(), t)
    return scaled + along_features(beta, t), log_scale


class _BatchNorm(torch.autograd.Function):
    """In a third of the passes over t that its parts would take, one by one."""

    @staticmethod
    def forward(ctx: Any, t: Tensor, log_gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, ...]:
        centred, mean = _centred(t)
        var = centred.square().mean(_over(t))
        log_scale = log_gamma - 0.5 * (var + eps).log()
        out = (centred * along_features(log_scale.exp(), t)).add_(along_features(beta, t))
        ctx.save_for_backward(t, log_gamma, beta, centred, log_scale, var)
        ctx.eps = eps
        ctx.mark_non_differentiable(var, mean)
        return out, log_scale, var, mean

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor, of_log_scale: Tensor, *of_moments: Tensor
    ) -> tuple[Tensor | None, ...]:
        t, log_gamma, beta, centred, log_scale, var = ctx.saved_tensors
        if torch.is_grad_enabled():  # it is to be differentiated again

            def plain(t: Tensor, log_gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
                return _plain(t, log_gamma, beta, ctx.eps, *moments(t))

            # Of these inputs alone: what they depend on themselves is not gone through.
            pull = torch.func.vjp(plain, t, log_gamma, beta)[1]
            return *pull((grad, of_log_scale)), None
        over, scale, count = _over(t), log_scale.exp(), math.prod(t.shape[d] for d in _over(t))
        of_beta = grad.sum(over)
        of_log_gamma = torch.addcmul(of_log_scale, (grad * centred).sum(over), scale)
        of_t = grad * along_features(scale, t)
        of_t -= centred * along_features(of_log_gamma / ((var + ctx.eps) * count), t)
        of_t -= along_features(scale * of_beta / count, t)
        return of_t, of_log_gamma, of_beta, None
