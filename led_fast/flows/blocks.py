"""Runs of a flow's layers that go as one function: linear and elementwise layers in turn, on CPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from led_fast.flows.contract import log_dtype, through, through_with_score
from led_fast.flows.linear import Linear
from led_fast.flows.staircase import Staircase, steps_of
from led_fast.nn import SoftReLU
from led_fast.nn.soft_relu import bends_of
from led_fast.ops._autograd import is_plain
from led_fast.ops.backend import reference_in_use
from led_fast.ops.blocks import Order, blocks
from led_fast.ops.soft_relu_per_feature import BENDS
from led_fast.ops.staircase import STAIRCASE

_Layer = Linear | Staircase | SoftReLU
_Key = tuple[type, int, int]
_MOST_FEATURES = 32  # of more, one call computes for longer than several take to be called


def in_runs(layers: Iterable[nn.Module], t: Tensor) -> list[nn.Module | Run]:
    """The layers that t is to go through, runs of them in one piece where that can be done.

    Not under compilers and transforms, which follow every layer; not in half precision, in which nothing is inverted;
    and not on a GPU, where training records its steps.
    """
    fitting = t.is_cpu and is_plain(t) and t.dtype == log_dtype(t)
    if not fitting or reference_in_use() or _has_any_global_hook():
        return list(layers)
    pieces: list[nn.Module | Run] = []
    run: list[_Layer] = []
    keys: list[_Key] = []
    for layer in layers:
        key = _key(layer) if isinstance(layer, _Layer) else None
        if run and not (key and _goes_on(keys, key)):
            pieces += _closed(run)
            run, keys = [], []
        if key:
            run.append(cast(_Layer, layer))
            keys.append(key)
        else:
            pieces.append(layer)
    return pieces + _closed(run)


def _closed(run: list[_Layer]) -> list[nn.Module | Run]:
    return [Run(run)] if len(run) > 1 else list(run)


def _key(layer: _Layer) -> _Key | None:
    """What layers of a kind must agree in; None for one that must stand alone."""
    kind = type(layer)
    if (
        kind not in (Linear, Staircase, SoftReLU)
        or (layer.features or 0) > _MOST_FEATURES
        or _is_hooked(layer)
    ):
        return None
    if isinstance(layer, Staircase):
        return kind, layer.features, layer.centers.shape[1]
    if isinstance(layer, Linear):
        return (kind, layer.features, 0) if layer.parametrization == "dense" else None
    return None if layer.features is None else (kind, layer.features, 0)


def _is_hooked(layer: nn.Module) -> bool:
    """Whether somebody wants to see the layer's own calls, or has put another function in their place."""
    hooks = (
        layer._forward_pre_hooks or layer._forward_hooks or layer._backward_pre_hooks or layer._backward_hooks
    )
    return bool(hooks or layer._compiled_call_impl or vars(layer).keys() & {"forward", "forward_with_score"})


def _goes_on(keys: Sequence[_Key], key: _Key) -> bool:
    if len(keys) > 1:
        return key == keys[-2]
    before = keys[0]
    return before[1] == key[1] and (before[0] is Linear) != (key[0] is Linear)


class Run:
    """Two or more layers in turn, called as a layer is."""

    def __init__(self, layers: Sequence[_Layer]) -> None:
        self.layers = layers

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """See `Layer.forward`."""
        joined = self._joined(t)
        return through(self.layers, t) if joined is None else joined(t, None)[:2]

    def forward_with_score(self, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Layer.forward_with_score`."""
        joined = None if score.requires_grad else self._joined(t)
        return through_with_score(self.layers, t, score) if joined is None else joined(t, score)

    def _joined(self, t: Tensor) -> Callable[[Tensor, Tensor | None], Any] | None:
        """`blocks` of the layers; None where t or a parameter is none for it."""
        weights, biases = _stacked((v.weight, v.bias) for v in self.layers if isinstance(v, Linear))
        learned = _stacked(v.learned() for v in self.layers if not isinstance(v, Linear))
        if t.shape[1:] != biases.shape[1:]:
            return None
        if not all(is_plain(p) and p.dtype == t.dtype for p in (weights, biases, *learned)):
            return None
        linear_first = isinstance(self.layers[0], Linear)
        if any(isinstance(v, Staircase) for v in self.layers[:2]):
            order, parameters = Order(STAIRCASE, linear_first), steps_of(*learned)
        else:
            order, parameters = Order(BENDS, linear_first), bends_of(*learned)
        return lambda t, score: blocks(order, t, score, weights, biases, *parameters)


def _stacked(of_layers: Iterable[tuple[Tensor, ...]]) -> list[Tensor]:
    return [torch.stack(values) for values in zip(*of_layers, strict=True)]
