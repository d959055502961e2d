"""The score of a density behind an elementwise map, `(score - ∇ log_abs_det) / slope`, against its derivatives."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import staircase_cases as staircases
import test_soft_relu_per_feature as bends
import torch
from test_soft_relu import DTYPES, sample
from torch import Tensor

from led_fast.ops._sample_sums import log_dtype
from led_fast.ops.blocks import Elementwise
from led_fast.ops.soft_relu_per_feature import BENDS, derivatives_of_slopes
from led_fast.ops.staircase import STAIRCASE, staircase_derivatives


class Case(NamedTuple):
    """A map, its derivatives, parameters by (features, dtype), and how large terms may be that cancel."""

    map: Elementwise
    derivatives: Callable[..., tuple[Tensor, Tensor]]
    parameters: Callable[[int, torch.dtype], list[Tensor]]
    terms: Callable[[Tensor, list[Tensor]], Tensor]


def steps_of(features: int, dtype: torch.dtype) -> list[Tensor]:
    return [p.to(dtype) for p in staircases.parameters_of("gentle", features, 5)]


CASES = {
    "soft_relu": Case(BENDS, derivatives_of_slopes, bends.parameters_of, lambda of_log, _: of_log.abs()),
    "staircase": Case(STAIRCASE, staircase_derivatives, steps_of, lambda _, steps: 2 * steps[2].amax()),
}
SHAPES = [("soft_relu", shape) for shape in [*bends.SHAPES, (0, 3)]]
SHAPES += [("staircase", shape) for shape in [*staircases.SHAPES, (0, 3)]]
CHANNELS_LAST = [("soft_relu", (3, 4, 7, 5)), ("soft_relu", (2, 3, 90, 80)), ("staircase", (3, 4, 7, 5))]


def check(case: Case, x: Tensor, score: Tensor) -> None:
    parameters = case.parameters(x.shape[1], torch.float64)
    ours = case.map.carry(x, score, *(p.to(log_dtype(x)) for p in parameters))
    slope, of_log = case.derivatives(x.double(), *parameters)
    exact = (score.double() - of_log) / slope
    assert ours.dtype == x.dtype and ours.stride() == x.stride()
    most = 8 * torch.finfo(x.dtype).eps + 64 * torch.finfo(log_dtype(x)).eps
    size = (score.double().abs() + case.terms(of_log, parameters)) / slope
    assert ((ours.double() - exact).abs() <= most * size).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "shape"), SHAPES)
def test_is_that_of_the_derivatives(name, shape, dtype) -> None:
    check(CASES[name], 2 * sample(shape, dtype), sample(shape, dtype, 1))


@pytest.mark.parametrize(("name", "shape"), CHANNELS_LAST)
def test_channels_last(name, shape) -> None:
    x = sample(shape, torch.float32).contiguous(memory_format=torch.channels_last)
    check(CASES[name], x, sample(shape, torch.float32, 1))


@pytest.mark.parametrize("name", CASES)
def test_refuses_another_shape(name) -> None:
    case = CASES[name]
    with pytest.raises(RuntimeError, match="the score must have x's shape and dtype"):
        case.map.carry(torch.zeros(3, 2), torch.zeros(2, 3), *case.parameters(2, torch.float32))
