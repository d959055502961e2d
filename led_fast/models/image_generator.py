"""One-way flows onto images in the box [0, 1] (Sec. 2.1, C.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import nn

from led_fast.flows import (
    ActNorm,
    Affine,
    BatchNorm,
    ChannelShuffle,
    Coupling,
    DarkMap,
    GaussianConditional,
    Inflate,
    LightMap,
    Linear,
    OneWayFlow,
    PairNeighbors,
    PixelShuffle,
    Sigmoid,
    Slice,
    SoftReLU,
    Staircase,
    StandardNormal,
    Unflatten,
)
from led_fast.flows.elementwise import LastMap
from led_fast.models.flow_steps import Limits, flow_steps
from led_fast.models.image_networks import (
    Decoder,
    Encoder,
    Inpainter,
    NeighborConditional,
    Shape,
    local_network,
)
from led_fast.models.multiscale_generator import multiscale_layers
from led_fast.models.start import start_convolutions_near_identity
from led_fast.nn import CircularConv2d
from led_fast.ranges import Count, Natural, Positive

LastMapName = Literal["sigmoid", "dark", "light"]

_OF_MULTISCALE = (
    "scale_steps",
    "coupling_width",
    "coupling_log_scale",
    "coupling_reach",
    "kernel_size",
    "activation",
    "last_map",
)


@dataclass(frozen=True)
class ImageGeneratorConfig:
    """DCGAN as a one-way flow, with or without steps of a flow on top, or a flow of several scales of such steps.

    Attributes:
        latent: number of latent values; with couplings, a multiple of grid².
        grid: height and width where the flow starts, a divisor of the image's by a power of two.
        coupling_width: channels of the networks in the couplings, by which the latent values draw all others
            (not in the paper); 0: none.
        local_couplings: number of pairs of couplings before the last shuffle, where the even rows of pixels draw the
            odd ones by what is around them, and back (not in the paper).
        local_steps: number of steps before the last shuffle, see `led_fast.models.flow_steps`. With them latent values
            are not drawn anew by the pixels around them, which the steps do, and the moments that the flow ends with
            are those of a channel instead of a pixel's, because convolutions see all pixels alike.
        local_width: channels of the networks in local couplings and steps.
        blocks: number of {circular convolution, norm, activation} at each scale.
        block_scales: number of scales, counted from the image's own, that have blocks; None: all.
        kernel_size: of the circular convolutions, of steps too.
        activation: of the blocks: "staircase", the paper's "soft_relu", or "learned_soft_relu", which learns the bends.
        steps: steps of each staircase.
        norm: "act", "batch" (the paper's batch statistics), "running" or "none".
        oversize: whether to draw an image of twice the size and slice it down, as the paper does: log q is
            then a surrogate, see `led_fast.flows.Slice`. False: the last shuffle lands on the image's size,
            nothing is dropped and log q is exact.
        conditional: r of the dropped pixels: "learned", or the paper's "gaussian" around the left (upper)
            neighbour, σ = 1.
        start: "random": layers as they are drawn. "identity": all blocks lie at coarser scales than the drawn image's,
            and start where Eq. 8 is exact and log q nearly right, see `led_fast.models.start`; wants `oversize`, the
            "gaussian" conditional and "learned_soft_relu", and neither couplings nor a norm.
        scale_steps: steps of a multi-scale flow at each scale, from half of the image's size on, see
            `led_fast.models.multiscale_generator`. It wants "learned_soft_relu" and `coupling_width`, and has
            `kernel_size`, `last_map` and the next two besides; all else must be as it is by default. (): DCGAN.
        coupling_log_scale: largest log scale of the couplings in steps, local ones or those of a multi-scale flow.
        coupling_reach: values count as no more than this to the networks of these couplings, see
            `led_fast.models.flow_steps.Limits`; None: as what they are.
        last_map: into the box: "sigmoid", the logistic function, as the paper's tanh; "dark" for images that are
            mostly black, see :class:`led_fast.flows.DarkMap`; or "light" for mostly white ones.

    Example:
        >>> from led_fast.models import ImageGeneratorConfig, ImagePreset, image_generator
        >>> generator = image_generator(ImagePreset((1, 16, 16), ImageGeneratorConfig(coupling_width=8)))
    """

    latent: Count = 16
    grid: Count = 4
    coupling_width: Natural = 24
    local_couplings: Natural = 0
    local_steps: Natural = 0
    local_width: Count = 32
    blocks: Natural = 1
    block_scales: Natural | None = 1
    kernel_size: Count = 3
    activation: Literal["staircase", "soft_relu", "learned_soft_relu"] = "staircase"
    steps: Count = 4
    norm: Literal["none", "act", "batch", "running"] = "none"
    oversize: bool = False
    conditional: Literal["learned", "gaussian"] = "learned"
    start: Literal["random", "identity"] = "random"
    scale_steps: tuple[Count, ...] = ()
    coupling_log_scale: Positive = 2.0
    coupling_reach: Positive | None = None
    last_map: LastMapName = "sigmoid"


def build_generator(config: ImageGeneratorConfig, shape: Shape) -> OneWayFlow:
    """Builds the flow of a config onto images (C, H, W); its last two layers are an `Affine` and the last map.

    Raises:
        ValueError: H is not W or not 8, 16, 32, 64, the latent values do not fit, `local_steps` find no shuffle, the
            layers do not suit the start, or `scale_steps` stands beside what it has no use for.
    """
    channels, height, width = shape
    if height != width or height not in (8, 16, 32, 64):
        raise ValueError(
            f"image_generator: height and width must be equal, and 8, 16, 32 or 64, got {height}x{width}"
        )
    box = build_last_map(config.last_map)
    alike = torch.ones(channels, 1, 1)  # for all pixels, so that convolutions see them as they are
    if config.scale_steps:
        _check_layers_of_multiscale(config)
        latents, multiscale = multiscale_layers(
            shape, config.scale_steps, config.coupling_width, config.kernel_size, _limits(config)
        )
        return OneWayFlow(StandardNormal(latents), [*multiscale, Affine(alike, 0 * alike), box])
    if config.grid not in (1, 2, 4, 8):
        raise ValueError(f"image_generator: grid must be 1, 2, 4 or 8, got {config.grid}")
    if config.start == "identity":
        _check_layers_of_identity(config)
    drawn = (channels, 2 * height, 2 * width) if config.oversize else shape
    layers, factor = _start(config, drawn)
    if config.local_steps and factor < 2:
        raise ValueError(
            f"image_generator: with local_steps, grid must be below the drawn image's size, {drawn[1]}, "
            f"got {config.grid}"
        )
    blocks = _blocks(config, drawn, factor)
    if config.start == "identity":
        start_convolutions_near_identity(blocks, channels, math.prod(shape))
    layers += blocks
    if config.oversize:
        for along in ("columns", "rows"):
            layers += [PairNeighbors(along), Slice(2 * channels, channels, _conditional(config, channels))]
    scale = alike if config.local_steps else torch.ones(shape)
    return OneWayFlow(StandardNormal(config.latent), [*layers, Affine(scale, 0 * scale), box])


def _limits(config: ImageGeneratorConfig) -> Limits:
    return Limits(config.coupling_log_scale, config.coupling_reach)


def _check_layers_of_multiscale(config: ImageGeneratorConfig) -> None:
    if not config.coupling_width:
        raise ValueError("image_generator: with scale_steps, coupling_width must be positive, got 0")
    wanted: dict[str, Any] = {f.name: f.default for f in fields(config) if f.name not in _OF_MULTISCALE}
    for name, value in {"activation": "learned_soft_relu", **wanted}.items():
        if (got := getattr(config, name)) != value:
            raise ValueError(f"image_generator: with scale_steps, {name} must be {value!r}, got {got!r}")


def _check_layers_of_identity(config: ImageGeneratorConfig) -> None:
    names = (
        "coupling_width",
        "local_couplings",
        "local_steps",
        "block_scales",
        "activation",
        "norm",
        "conditional",
        "oversize",
    )
    wanted = (0, 0, 0, None, "learned_soft_relu", "none", "gaussian", True)
    got = tuple(getattr(config, name) for name in names)
    if got != wanted:
        raise ValueError(
            f'image_generator: with start "identity", {", ".join(names)} must be {wanted}, got {got}'
        )


def build_last_map(name: LastMapName, learned: bool = True) -> LastMap:
    """The last map of that name; `learned` as for `DarkMap`."""
    if name == "sigmoid":
        return Sigmoid()
    return DarkMap(learned) if name == "dark" else LightMap(learned)


def _blocks(config: ImageGeneratorConfig, drawn: Shape, factor: int) -> list[nn.Module]:
    """From the coarsest grid to the image that is drawn.

    A start near the identity wants no blocks at the drawn size, where a convolution cannot tell what is kept from what
    is not, and a convolution before the last shuffle, which can.
    """
    channels, size, _ = drawn
    layers: list[nn.Module] = []
    identity = config.start == "identity"
    finest = math.inf if config.block_scales is None else 2**config.block_scales
    while factor >= 1:
        scale_channels = channels * factor**2
        for _ in range(config.blocks if factor < finest and not (identity and factor == 1) else 0):
            layers += [_convolution(config, scale_channels), *_norm(config, scale_channels)]
            layers.append(_activation(config, scale_channels))
        if factor == 2:
            layers += (
                [_convolution(config, scale_channels)] if identity else _local_couplings(config, channels)
            )
            steps = flow_steps(
                config.local_steps,
                scale_channels,
                size // 2,
                config.local_width,
                config.kernel_size,
                _limits(config),
            )
            layers += steps[::-1]
        if factor > 1:
            layers.append(PixelShuffle(2))
        factor //= 2
    return layers


def _start(config: ImageGeneratorConfig, drawn: Shape) -> tuple[list[nn.Module], int]:
    """From the latent values to C·factor² channels of noise on the coarsest grid, and that factor."""
    channels, size, _ = drawn
    values = channels * size * size
    if not 0 < config.latent < values:
        raise ValueError(f"image_generator: latent must lie in (0, {values}), got {config.latent}")
    factor, cell = size // config.grid, channels * (size // config.grid) ** 2
    if not config.coupling_width:
        padded = [Linear(config.latent), Inflate(values - config.latent)]
        return [*padded, Unflatten(cell, config.grid, config.grid)], factor
    latents = config.latent // config.grid**2
    if config.latent % config.grid**2 or latents >= cell:
        raise ValueError(
            f"image_generator: with couplings, latent must be a multiple of {config.grid**2} below {values}, "
            f"got {config.latent}"
        )
    network = (drawn, factor, latents, config.coupling_width)
    layers: list[nn.Module] = [
        Unflatten(latents, config.grid, config.grid),
        Inflate(cell - latents),
        Coupling(Decoder(*network), cell, latents),
        Coupling(Encoder(*network), cell, cell - latents, given_first=False, whiten=True),
    ]
    if not config.local_steps:
        layers.append(Coupling(Inpainter(*network), cell, cell - latents, given_first=False))
    return layers, factor


def _local_couplings(config: ImageGeneratorConfig, channels: int) -> list[nn.Module]:
    """Couplings of the even rows with the odd ones, where an image has 4 of its pixels to a place."""
    half = 2 * channels
    couplings: list[nn.Module] = [
        Coupling(local_network(half, config.local_width), 2 * half, half, given_first=first)
        for _ in range(config.local_couplings)
        for first in (True, False)
    ]
    # The last shuffle has all pixels of a colour together; here all colours of a row are.
    return (
        [ChannelShuffle(channels), *couplings, ChannelShuffle(4)] if couplings and channels > 1 else couplings
    )


def _convolution(config: ImageGeneratorConfig, channels: int) -> nn.Module:
    layer = CircularConv2d(channels, config.kernel_size)
    if config.coupling_width:
        # The couplings draw pixels already: start near the identity, which leaves them where they are.
        centre = (config.kernel_size - 1) // 2
        with torch.no_grad():
            layer.weight[:, :, centre, centre] = torch.eye(channels)
    return layer


def _norm(config: ImageGeneratorConfig, channels: int) -> list[nn.Module]:
    if config.norm == "none":
        return []
    return [ActNorm(channels) if config.norm == "act" else BatchNorm(channels, config.norm)]


def _activation(config: ImageGeneratorConfig, channels: int) -> nn.Module:
    if config.activation == "staircase":
        return Staircase(channels, config.steps)
    if config.activation == "learned_soft_relu":
        return SoftReLU(features=channels, learned=True)
    return SoftReLU()


def _conditional(config: ImageGeneratorConfig, channels: int) -> nn.Module:
    return NeighborConditional(channels, 32) if config.conditional == "learned" else GaussianConditional()
