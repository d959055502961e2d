"""Results that are the same to the last bit at every number of threads."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def assert_same_bits_by_threads(
    results: Callable[[], Sequence[Tensor]], counts: Sequence[int] = (1, 2, 5)
) -> None:
    """Calls a function with so many threads each time, and compares what it returns."""
    before, found = torch.get_num_threads(), []
    try:
        for threads in counts:
            torch.set_num_threads(threads)
            found.append(results())
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def values_and_gradients(outputs: Sequence[Tensor], inputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """Outputs, then the gradients of their sum."""
    return [*outputs, *torch.autograd.grad(outputs, inputs, [torch.ones_like(o) for o in outputs])]
