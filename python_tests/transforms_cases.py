"""What is put through every transform: operators and layers, each one line."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import layers
import torch
from torch import Tensor, nn

import led_fast
from led_fast.flows import Inflate
from led_fast.flows.contract import invertible
from led_fast.models import DCGANCritic
from led_fast.nn import (
    CircularConv2d,
    Conv2d,
    ConvTranspose2d,
    FourierFeatures,
    InplaceLeakyReLU,
    PerpendicularConv2d,
    PerpendicularLinear,
    PerpendicularSequential,
    SoftReLU,
)

Outputs = tuple[Tensor, ...]


@dataclass
class Case:
    """A function of tensors in float64, all of them differentiated.

    Args:
        function: of the tensors; returns one or a tuple.
        inputs: `(batch, size)` to the tensors, the first of which has images of about `size` where it has images.
        layer: the constructor of the layer that it is, if it is one.
        sizes: whether images of any size will do.
        cannot: transforms that raise an error instead, each with a part of its message.
    """

    function: Callable[..., Any]
    inputs: Callable[[int, int], list[Tensor]]
    layer: Callable[[], nn.Module] | None = None
    sizes: bool = True
    cannot: dict[str, str] = field(default_factory=dict)

    def __call__(self, *inputs: Tensor) -> Outputs:
        outputs = self.function(*inputs)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    def function_of_tuples(self) -> Callable[..., Outputs]:
        """As a plain function, which is what compilers read best."""
        function = self.function

        def call(*inputs: Tensor) -> Outputs:
            outputs = function(*inputs)
            return outputs if isinstance(outputs, tuple) else (outputs,)

        return call


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def near_identity(channels: int, taps: int) -> Tensor:
    weight = randn(channels, channels, taps, taps) / 10
    weight[:, :, 0, 0] += torch.eye(channels)
    return weight


def images(channels: int) -> Callable[[int, int], Tensor]:
    return lambda batch, size: randn(batch, channels, size, size + 2)


def layer(make: Callable[[], nn.Module], x: Callable[[int, int], Tensor], **more: Any) -> Case:
    """A layer as a function of its input and of its parameters."""
    torch.manual_seed(0)
    module = make().double()
    names = [name for name, _ in module.named_parameters()]

    def function(x: Tensor, *parameters: Tensor) -> Any:
        like = parameters[0] if parameters else x if x.dtype == torch.float64 else x.float()
        buffers = {
            name: value.to(like) if value.is_floating_point() else value.to(like.device)
            for name, value in module.named_buffers()
        }
        return torch.func.functional_call(
            module, {**buffers, **dict(zip(names, parameters, strict=True))}, (x,)
        )

    def inputs(batch: int, size: int) -> list[Tensor]:
        return [x(batch, size), *(p.detach().clone() for p in module.parameters())]

    return Case(function, inputs, make, **more)


def norm(geometry: dict[str, int], channels: int, kernel: int) -> Case:
    return Case(
        lambda x, weight: led_fast.perpendicular_norm(x, weight, **geometry),
        lambda batch, size: [images(channels)(batch, size), randn(6, channels, kernel, kernel)],
    )


def bends(batch: int, size: int) -> list[Tensor]:
    """x, alpha, beta, u0 and t0 of two features."""
    beta, gap, u0, t0 = torch.rand(4, 2, dtype=torch.float64) + 0.5
    return [images(2)(batch, size), beta + 3 * gap, beta, u0, t0]


def staircase(batch: int, size: int) -> list[Tensor]:
    """A value of two features, three steps each."""
    positive = [0.3 + randn(2, 3).abs() for _ in range(2)]
    return [images(2)(batch, size), randn(2, 3), *positive, 0.3 + randn(2).abs()]


def mixture(batch: int, size: int) -> list[Tensor]:
    """Points of three dimensions, and four components."""
    return [randn(batch, 3), randn(4, 3), randn(4, 3) / 2, randn(4)]


class BothWays(nn.Module):
    """A layer of flows as a function of one value: forward, and back from close to where it led."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer.eval()

    def forward(self, t: Tensor) -> Outputs:
        if isinstance(self.layer, Inflate):  # forward draws noise
            return self.layer.inverse(t)
        out, ladj = self.layer(t)
        if not invertible(self.layer):
            return out, ladj
        return out, ladj, *self.layer.inverse(0.9 * out + 0.05)  # within Sigmoid's box


def both_ways(name: str) -> Case:
    case = layers.LAYERS[name]
    return layer(
        lambda: BothWays(case.build()), lambda batch, size: randn(batch, *case.shape) / 2, sizes=False
    )


DCGAN = dict(stride=2, padding=1)

OPERATORS: dict[str, Callable[[], Case]] = {
    "soft_relu": lambda: Case(led_fast.soft_relu, lambda batch, size: [images(2)(batch, size)]),
    "soft_relu_inverse": lambda: Case(
        led_fast.soft_relu_inverse, lambda batch, size: [images(2)(batch, size)]
    ),
    "staircase": lambda: Case(led_fast.staircase, staircase),
    "staircase_inverse": lambda: Case(led_fast.staircase_inverse, staircase),
    "soft_relu, per feature": lambda: Case(led_fast.soft_relu, bends),
    "soft_relu_inverse, per feature": lambda: Case(led_fast.soft_relu_inverse, bends),
    "circulant_logdet": lambda: Case(
        lambda weight, x: led_fast.circulant_logdet(weight, x.shape[2:]) + x.mean(),
        lambda batch, size: [randn(2, 2, 3, 3), images(1)(batch, size)],
    ),
    "circulant_logdet, few frequencies": lambda: Case(
        lambda weight: led_fast.circulant_logdet(weight, (1, 2)),
        lambda batch, size: [randn(64, 64, 1, 1)],
        sizes=False,
    ),
    "circular_conv_inverse": lambda: Case(
        led_fast.circular_conv_inverse,
        lambda batch, size: [images(2)(batch, size), near_identity(2, 3)],
    ),
    "circular_conv_inverse, transposed": lambda: Case(
        lambda y, weight: led_fast.circular_conv_inverse(y, weight, transpose=True),
        lambda batch, size: [images(2)(batch, size), near_identity(2, 2)],
    ),
    "fourier_features": lambda: Case(
        led_fast.fourier_features, lambda batch, size: [randn(batch, 3), 3 * randn(3, 5)]
    ),
    "mixture_log_prob": lambda: Case(led_fast.mixture_log_prob, mixture),
    "mixture_log_prob_and_score": lambda: Case(led_fast.mixture_log_prob_and_score, mixture),
    "perpendicular_norm, linear": lambda: Case(
        led_fast.perpendicular_norm, lambda batch, size: [randn(batch, 5), randn(3, 5)]
    ),
    "perpendicular_norm, given t": lambda: Case(
        lambda x, weight: led_fast.perpendicular_norm(x, weight, x @ weight.T),
        lambda batch, size: [randn(batch, 5), randn(3, 5)],
    ),
    "perpendicular_norm, image": lambda: norm(DCGAN, 3, 4),
    "perpendicular_norm, DCGAN": lambda: norm(DCGAN, 5, 4),
    "perpendicular_norm, library": lambda: norm(dict(padding=1), 5, 3),
    "perpendicular": lambda: Case(
        lambda x, weight: led_fast.perpendicular(x, weight, **DCGAN),
        lambda batch, size: [images(3)(batch, size), randn(4, 3, 4, 4)],
    ),
    "perpendicular, exact": lambda: Case(
        lambda x, weight: led_fast.perpendicular(x, weight, mode="exact"),
        lambda batch, size: [randn(batch, 5), randn(3, 5)],
    ),
}

# Conjugate gradients look at their residual after each step: compilers and tensors without values cannot.
ITERATES = {
    "batched gradients (is_grads_batched)": "Batching rule not implemented",
    "third order, mixed": "output_padding is not supported|unordered_map::at",  # of PyTorch
    "compile": "Dynamo does not support tracing",
    "compile, one graph for all sizes": "Dynamo does not support tracing",
    "compile ∘ vmap ∘ grad": "Dynamo does not support tracing",
    "compile ∘ jvp": "Data-dependent branching",
    "compile ∘ hessian": "Dynamo does not support tracing",
    "export, dynamic sizes": "data-dependent",
    "jit.trace, other sizes": "output_padding is not supported|unordered_map::at",
    "fake tensors leave nothing behind": "_local_scalar_dense",
    "make_fx": "data-dependent",
    "meta tensors": "meta tensors",
}

LAYERS: dict[str, Callable[[], Case]] = {
    "SoftReLU": lambda: layer(SoftReLU, images(2)),
    "SoftReLU, learned": lambda: layer(lambda: SoftReLU(features=2, learned=True), images(2)),
    "CircularConv2d": lambda: layer(lambda: CircularConv2d(2, 3), images(2)),
    "Conv2d": lambda: layer(lambda: Conv2d(5, 6, 4, 2, 1), images(5)),
    "Conv2d, few channels": lambda: layer(lambda: Conv2d(5, 2, 3, padding=1), images(5)),
    "ConvTranspose2d": lambda: layer(lambda: ConvTranspose2d(5, 6, 4, 2, 1), images(5)),
    "LeakyReLU": lambda: layer(
        lambda: nn.Sequential(nn.Linear(5, 3), InplaceLeakyReLU(0.2)),
        lambda b, s: randn(b, 5),
        cannot={"in-place changes of outputs": "modified by an inplace operation"},
    ),
    "PerpendicularLinear": lambda: layer(lambda: PerpendicularLinear(5, 3), lambda b, s: randn(b, 5)),
    "PerpendicularConv2d": lambda: layer(lambda: PerpendicularConv2d(3, 4, 4, 2, 1), images(3)),
    "PerpendicularConv2d, no bias": lambda: layer(
        lambda: PerpendicularConv2d(5, 4, 3, bias=False), images(5)
    ),
    "PerpendicularConv2d, exact": lambda: layer(
        lambda: PerpendicularConv2d(3, 2, 3, 2, mode="exact"), images(3), cannot=ITERATES
    ),
    "PerpendicularSequential": lambda: layer(
        lambda: PerpendicularSequential(
            PerpendicularConv2d(3, 6, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            PerpendicularConv2d(6, 2, 2, bias=False),
        ),
        images(3),
    ),
    "FourierFeatures": lambda: layer(lambda: FourierFeatures(2, 3), lambda b, s: randn(b, 2)),
    "DCGANCritic": lambda: layer(
        lambda: DCGANCritic(8, channels=1, width=2), lambda b, s: randn(b, 1, 8, 8), sizes=False
    ),
    "DCGANCritic, no penalty": lambda: layer(
        lambda: DCGANCritic(8, 1, 2, penalty="off"), lambda b, s: randn(b, 1, 8, 8), sizes=False
    ),
}

FLOW_LAYERS: dict[str, Callable[[], Case]] = {
    name: lambda name=name: both_ways(name)
    for name, case in layers.LAYERS.items()
    if name == type(case.build()).__name__
    or name in ("Linear, lu", "Linear, woodbury", "PairNeighbors, rows")
}
