"""The log density of mixtures and its score, against eager PyTorch and products of matrices."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import led_fast
from led_fast import reference

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
# Samples, dimension, components: one sample, one component, the base and the proposal of training in the plane, more
# of each.
SHAPES = [(1, 2, 640), (256, 2, 1), (256, 2, 64), (192, 2, 640), (8192, 2, 64)]
SHAPES += [(256, 16, 64), (8192, 16, 64), (256, 64, 64)]


def mixture_of(components: int, dimension: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    means, scales = torch.randn(2, components, dimension, generator=generator).to(DEVICE)
    weights = torch.randn(components, generator=generator).log_softmax(0)
    return 2 * means, 0.3 * scales - 0.5, weights.to(DEVICE)


def products(x: Tensor, means: Tensor, log_scales: Tensor, log_weights: Tensor) -> Tensor:
    """The squares multiplied out, in float64, because they nearly cancel."""
    means, log_scales = means.double(), log_scales.double()
    precision = (-2 * log_scales).exp()
    weighted, wide = precision * means, x.double()
    log_volume = log_scales.sum(1) + 0.5 * x.shape[1] * math.log(2 * math.pi)
    at_zero = log_weights.double() - log_volume - 0.5 * (weighted * means).sum(1)
    logs = torch.addmm(torch.addmm(at_zero, wide, weighted.mT), wide.square(), precision.mT, alpha=-0.5)
    return logs.to(x.dtype).logsumexp(1)


def with_score_by_autograd(x: Tensor, *mixture: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        log_prob = products(leaf, *mixture)
        return log_prob.detach(), torch.autograd.grad(log_prob.sum(), leaf)[0]


@pytest.mark.parametrize("threads", [1], indirect=True)
@pytest.mark.parametrize("what", ["forward", "with score", "forward+backward"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_mixture(compare, shape, what, threads) -> None:
    samples, dimension, components = shape
    x, mixture = torch.randn(samples, dimension, device=DEVICE), mixture_of(components, dimension)
    functions = {
        "led_fast": led_fast.mixture_log_prob,
        "eager": reference.mixture_log_prob,
        "products": products,
    }
    if what == "with score":
        functions = {
            "led_fast": led_fast.mixture_log_prob_and_score,
            "eager": reference.mixture_log_prob_and_score,
            "products": with_score_by_autograd,
        }
    case = {"shape": f"{samples}x{dimension}", "components": components, "pass": what, "threads": threads}
    backward = what == "forward+backward"
    leaves = [v.clone().requires_grad_(backward) for v in (x, *mixture)]
    gradient = torch.randn(samples, device=DEVICE)

    def run(function: Callable) -> object:
        outputs = function(*leaves)
        return torch.autograd.grad(outputs, leaves, gradient) if backward else outputs

    with torch.set_grad_enabled(backward):
        compare("mixture", case, {name: lambda f=f: run(f) for name, f in functions.items()})
