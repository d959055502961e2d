"""Our layers in flows of zuko and nflows; normflows takes them as they are.

A layer's `forward` becomes the transform's call, and its `inverse` the transform's inverse. Mind which way a library
calls it: transforms of zuko and nflows lead from data to latent values, layers of normflows and of
`led_fast.flows.OneWayFlow` from latent values to data. So give each layer the way that its own `forward` should take,
or turn it: `to_zuko(layer).inv`, `nflows.transforms.InverseTransform(to_nflows(layer))`,
`normflows.flows.Reverse(layer)`. Likelihood training wants from data to latent values what is cheap, for most of our
layers `forward`; docs/interop.md has a table.

`pip install "led_fast[interop]"` brings the three libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from led_fast.flows.contract import NotInvertibleError, invertible

if TYPE_CHECKING:
    from nflows.transforms.base import Transform
    from zuko.lazy import LazyTransform


def to_zuko(layer: nn.Module, event_dim: int | tuple[int, int] = 1) -> LazyTransform:
    """A lazy transform of zuko, whose call is `layer.forward` and whose `.inv` is `layer.inverse`.

    In `zuko.flows.Flow([...], base)` a transform leads from data to latent values, so `layer.forward` serves
    `log_prob` and `layer.inverse` serves `sample`; `to_zuko(layer).inv` is the other way about. Dimensions before
    those of a sample are batch dimensions, any number of them. A context is accepted and ignored.

    Args:
        layer: any module that keeps the contract of `led_fast.flows.contract` and has an inverse; a whole `OneWayFlow`
            too. It is not copied: its parameters are those of the transform.
        event_dim: number of dimensions of one sample, 1 for vectors, 3 for images; a pair, of input and output, where
            these differ: (1, 3) for `Unflatten`.

    Raises:
        NotInvertibleError: the layer has no inverse, as `Slice`.
        ImportError: zuko is not installed.

    Example:
        >>> import torch, zuko
        >>> from led_fast import flows
        >>> layers = [flows.Linear(2), flows.SoftReLU(), flows.Linear(2)]
        >>> base = zuko.lazy.UnconditionalDistribution(
        ...     zuko.distributions.DiagNormal, torch.zeros(2), torch.ones(2), buffer=True
        ... )
        >>> flow = zuko.flows.Flow([flows.adapters.to_zuko(layer) for layer in layers], base)
        >>> flow().log_prob(torch.randn(7, 5, 2)).shape
        torch.Size([7, 5])
    """
    _check("to_zuko", layer)
    try:
        from led_fast.flows.adapters.zuko_transform import LazyLayer
    except ModuleNotFoundError as error:
        raise _missing("to_zuko", "zuko", error) from error
    return LazyLayer(layer, (event_dim, event_dim) if isinstance(event_dim, int) else event_dim)


def to_nflows(layer: nn.Module) -> Transform:
    """A transform of nflows, whose `forward` is `layer.forward` and whose `inverse` is `layer.inverse`.

    In `nflows.flows.Flow(transform, base)` a transform leads from data to latent values, so `layer.forward` serves
    `log_prob` and `layer.inverse` serves `sample`; `nflows.transforms.InverseTransform` turns it. A context is accepted
    and ignored.

    Args:
        layer: any module that keeps the contract of `led_fast.flows.contract` and has an inverse; a whole `OneWayFlow`
            too. It is not copied: its parameters are those of the transform.

    Raises:
        NotInvertibleError: the layer has no inverse, as `Slice`.
        ImportError: nflows is not installed.

    Example:
        >>> import torch
        >>> from led_fast import flows
        >>> from nflows.distributions import StandardNormal
        >>> from nflows.flows import Flow
        >>> from nflows.transforms import CompositeTransform
        >>> layers = [flows.Linear(2), flows.SoftReLU(), flows.Linear(2)]
        >>> flow = Flow(CompositeTransform(map(flows.adapters.to_nflows, layers)), StandardNormal([2]))
        >>> flow.log_prob(torch.randn(7, 2)).shape
        torch.Size([7])
    """
    _check("to_nflows", layer)
    try:
        from led_fast.flows.adapters.nflows_transform import LayerTransform
    except ModuleNotFoundError as error:
        raise _missing("to_nflows", "nflows", error) from error
    return LayerTransform(layer)


def _check(adapter: str, layer: nn.Module) -> None:
    if not invertible(layer):
        raise NotInvertibleError(f"{adapter}: {type(layer).__name__} cannot be inverted")


def _missing(adapter: str, package: str, error: ModuleNotFoundError) -> ImportError:
    return ImportError(
        f'{adapter}: {package} is wanted, and {error.name} is not installed: pip install "led_fast[interop]"'
    )
