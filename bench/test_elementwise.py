"""Memory and threads of the operators that map each element: soft-ReLU, staircase, and their inverses."""

from collections.abc import Callable

import pytest
import torch
from memory import needs_counters, peak_memory
from torch import Tensor

import led_fast
from led_fast import reference
from led_fast.ops.soft_relu_per_feature import of_slopes

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
SHAPES = [(64, 16, 16, 16), (64, 16, 32, 32), (64, 96, 32, 32)]
FEATURE, STEPS = (0.2, 4.8, 0.1, 0.12), (0.5, 0.3, 5.0)

# name -> (operator, reference, values of its parameters, how many of these are of (F, K) instead of (F,))
OPERATORS: dict[str, tuple[Callable, Callable, tuple[float, ...], int]] = {
    "soft_relu": (led_fast.soft_relu, reference.soft_relu, (), 0),
    "soft_relu_inverse": (led_fast.soft_relu_inverse, reference.soft_relu_inverse, (), 0),
    "soft_relu_per_feature": (of_slopes, reference.soft_relu_per_feature, FEATURE, 0),
    "staircase": (led_fast.staircase, reference.staircase, (*STEPS, 1.0), 3),
    "staircase_inverse": (led_fast.staircase_inverse, reference.staircase_inverse, (*STEPS, 1.0), 3),
}


def contenders_of(name: str, shape: tuple[int, ...], direction: str) -> dict[str, Callable[[], object]]:
    *functions, values, with_steps = OPERATORS[name]
    shapes = [(shape[1], 4) if i < with_steps else (shape[1],) for i in range(len(values))]
    parameters = [torch.full(size, value, device=DEVICE) for size, value in zip(shapes, values, strict=True)]
    leaves = [torch.randn(shape, device=DEVICE), *parameters]
    gradients = [torch.randn(shape, device=DEVICE), torch.randn(shape[0], device=DEVICE)]
    backward = direction == "forward+backward"
    for leaf in leaves:
        leaf.requires_grad_(backward)

    def run(function: Callable) -> tuple[Tensor, ...]:
        outputs = function(*leaves)
        return torch.autograd.grad(outputs, leaves, gradients) if backward else outputs

    return {key: lambda f=f: run(f) for key, f in zip(("led_fast", "reference"), functions, strict=True)}


def case_of(name: str, shape: tuple[int, ...], direction: str) -> dict[str, object]:
    return {"operator": name, "shape": "x".join(map(str, shape)), "pass": direction}


@pytest.mark.skipif(CUDA, reason="threads of the CPU")
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("name", OPERATORS)
def test_two_threads(compare, name, shape, direction) -> None:
    run, before = contenders_of(name, shape, direction)["led_fast"], torch.get_num_threads()

    def with_threads(count: int) -> None:
        torch.set_num_threads(count)
        run()

    try:
        contenders = {"led_fast": lambda: with_threads(2), "one thread": lambda: with_threads(1)}
        compare("elementwise_threads", case_of(name, shape, direction), contenders)
    finally:
        torch.set_num_threads(before)


@needs_counters
@pytest.mark.parametrize("threads", [1], indirect=True)
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize("name", OPERATORS)
def test_peak_memory(compare, measuring, name, direction, threads) -> None:
    if not measuring:
        pytest.skip("nothing to smoke-test")
    shape = SHAPES[0]
    contenders = contenders_of(name, shape, direction)
    peaks = {key: peak_memory(run) for key, run in contenders.items()}
    row = compare("elementwise_memory", case_of(name, shape, direction), contenders)
    row.figures |= {f"{key} MiB": peak / 2**20 for key, peak in peaks.items()}
    row.figures["% of reference"] = 100 * peaks["led_fast"] / peaks["reference"]
