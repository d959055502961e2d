"""Flows that know the density of their samples; each layer runs both ways where it can (`flows.contract`)."""

from led_fast.flows import adapters
from led_fast.flows.base import DiagonalNormal, MixtureBase, StandardNormal
from led_fast.flows.conditional import GaussianConditional, LearnedConditional
from led_fast.flows.contract import Layer, NotInvertibleError
from led_fast.flows.coupling import Coupling
from led_fast.flows.dark import DarkMap
from led_fast.flows.dimension import Inflate, Slice
from led_fast.flows.elementwise import Affine, Sigmoid
from led_fast.flows.flow import OneWayFlow, ScoredSample
from led_fast.flows.image import ChannelShuffle, PairNeighbors, PixelShuffle, Unflatten
from led_fast.flows.inverse import Inverse
from led_fast.flows.light import LightMap
from led_fast.flows.linear import Linear, Parametrization
from led_fast.flows.marginal import Marginal
from led_fast.flows.norm import ActNorm, BatchNorm
from led_fast.flows.staircase import Staircase
from led_fast.nn import CircularConv2d, SoftReLU

__all__ = [
    "ActNorm",
    "Affine",
    "BatchNorm",
    "ChannelShuffle",
    "CircularConv2d",
    "Coupling",
    "DarkMap",
    "DiagonalNormal",
    "GaussianConditional",
    "Inflate",
    "Inverse",
    "Layer",
    "LearnedConditional",
    "LightMap",
    "Linear",
    "Marginal",
    "MixtureBase",
    "NotInvertibleError",
    "OneWayFlow",
    "PairNeighbors",
    "Parametrization",
    "PixelShuffle",
    "ScoredSample",
    "Sigmoid",
    "Slice",
    "SoftReLU",
    "Staircase",
    "StandardNormal",
    "Unflatten",
    "adapters",
]
