"""One-way flows: generators that know the density of their samples."""

from led_fast.flows.base import DiagonalNormal, MixtureBase, StandardNormal
from led_fast.flows.conditional import GaussianConditional, LearnedConditional
from led_fast.flows.contract import Layer
from led_fast.flows.coupling import Coupling
from led_fast.flows.dimension import Inflate, Slice
from led_fast.flows.elementwise import Affine, Sigmoid, Staircase
from led_fast.flows.flow import OneWayFlow, ScoredSample
from led_fast.flows.image import ChannelShuffle, PairNeighbors, PixelShuffle, Unflatten
from led_fast.flows.inverse import NotInvertibleError, flow_log_prob, inverse
from led_fast.flows.linear import Linear
from led_fast.flows.norm import ActNorm, BatchNorm
from led_fast.flows.score import elementwise_with_score, forward_with_score
from led_fast.nn import SoftReLU

__all__ = [
    "ActNorm",
    "Affine",
    "BatchNorm",
    "ChannelShuffle",
    "Coupling",
    "DiagonalNormal",
    "GaussianConditional",
    "Inflate",
    "Layer",
    "LearnedConditional",
    "Linear",
    "MixtureBase",
    "NotInvertibleError",
    "OneWayFlow",
    "PairNeighbors",
    "PixelShuffle",
    "ScoredSample",
    "Sigmoid",
    "Slice",
    "SoftReLU",
    "Staircase",
    "StandardNormal",
    "Unflatten",
    "elementwise_with_score",
    "flow_log_prob",
    "forward_with_score",
    "inverse",
]
