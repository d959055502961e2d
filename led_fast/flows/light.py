"""The last map of images that are mostly white."""

from __future__ import annotations

import torch
from torch import Tensor

from led_fast.flows.contract import log_dtype, next_number
from led_fast.flows.dark import KNEE, LEVEL, DarkMap
from led_fast.flows.elementwise import LastMap, at_least


class LightMap(LastMap):
    """Into the box (0, 1) of image data, with a normal distribution's bulk on the lightest of 256 grey levels.

    `x = 1 - DarkMap(t)`, for drawings and cut-out pictures on white. Below 1 the numbers of float32 lie 6e-8 apart:
    of a t below -4.2, one normal draw in 70,000, little is left in an image that is stored, and below -5.1 nothing.

    Args:
        learned: see `DarkMap`.

    Shape:
        t: (B, ...). Output: the same and ladj (B,), of the slope's magnitude: white is where t is small.

    Example:
        >>> import torch
        >>> from led_fast import flows
        >>> x, ladj = flows.LightMap()(torch.tensor([[-1.0, 0.0, 2.5, 6.0]]))
        >>> x[0, :2] > 255 / 256
        tensor([True, True])
    """

    centre = DarkMap.centre

    def __init__(self, learned: bool = True) -> None:
        super().__init__()
        self.dark = DarkMap(learned)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (x, Σ log |dx/dt|)."""
        x, ladj = self.dark(t)
        return _negative(x, t), ladj

    def forward_with_score(self, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Layer`: the Jacobian is diagonal."""
        x, ladj, carried = self.dark.forward_with_score(t, score)
        return _negative(x, t), ladj, -carried

    def by_elements(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `LastMap`; the log of |dx/dt|."""
        rest = at_least(1 - x, 0.5 * torch.finfo(x.dtype).eps)
        last = next_number(LEVEL, 0.0, x.dtype)  # of white: 1 - x is LEVEL where x is 1 - LEVEL
        return self.dark.by_elements(torch.where(x >= 1 - LEVEL, rest.clamp(max=last), rest))


def _negative(x: Tensor, t: Tensor) -> Tensor:
    """1 - x, on the side of the lightest level's edge on which t is."""
    negative = 1 - x
    last = next_number(1 - LEVEL, 0.0, x.dtype)  # of grey
    beyond = torch.where(t.to(log_dtype(t)) < KNEE, 0.0, (negative - last).clamp(min=0))
    return negative - beyond.detach()
