"""How data comes from the host to the device of a training step."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class Feed:
    """Draws batches on the host and copies them to a device, without waiting for it.

    A recorded step cannot draw: it always looks at the same memory. So a step's batches can be noted down, filled
    anew, and given to it instead.

    Args:
        draw: n -> a batch of n, on the host; pinned, if the copy is not to be waited for.
        device: where to.
    """

    def __init__(self, draw: Callable[[int], Tensor], device: torch.device) -> None:
        self._draw, self._device = draw, device
        self._noted: list[Tensor] | None = None
        self._given: Iterator[Tensor] | None = None

    def __call__(self, n: int) -> Tensor:
        """The next batch, (n, ...)."""
        if self._given is not None:
            return next(self._given)
        batch = self._draw(n).to(self._device, non_blocking=True)
        if self._noted is not None:
            self._noted.append(batch)
        return batch

    @contextmanager
    def noting(self) -> Iterator[list[Tensor]]:
        """The batches that are drawn while this is open."""
        self._noted = []
        try:
            yield self._noted
        finally:
            self._noted = None

    @contextmanager
    def giving(self, batches: Sequence[Tensor]) -> Iterator[None]:
        """While this is open, those batches are the next ones."""
        self._given = iter(batches)
        try:
            yield
        finally:
            self._given = None

    def refill(self, batches: Sequence[Tensor]) -> None:
        """Draws other data into the memory of batches."""
        for batch in batches:
            batch.copy_(self._draw(len(batch)), non_blocking=True)
