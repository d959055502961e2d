"""Numbers of a training step that stay on the device until its end, and are then read in one go."""

from typing import NamedTuple

import torch
from torch import Tensor

from led_fast.training.descent import check_finite


class _Label(NamedTuple):
    kind: str  # "metric", or of a descent "loss" or "gradient"
    name: str
    descent: int


class Readings:
    """Collects what a step has to tell: 0-d tensors of float32 or float64, all on one device."""

    def __init__(self) -> None:
        self._values: list[tuple[_Label, Tensor]] = []
        self._descents = 0

    def add_metrics(self, metrics: dict[str, Tensor]) -> None:
        """Adds metrics by name, in place of earlier ones of the same name."""
        self._values += [(_Label("metric", name, 0), value) for name, value in metrics.items()]

    def add_descent(self, name: str, loss: Tensor, norm: Tensor) -> None:
        """Adds the loss of a network, and the norm of its gradient."""
        self._descents += 1
        for kind, value in (("loss", loss), ("gradient", norm)):
            self._values.append((_Label(kind, name, self._descents), value))

    def pack(self) -> "PackedReadings":
        """All of them in one tensor."""
        # A stack for each dtype, because one of mixed dtypes takes a kernel for each value.
        wide = [v.dtype == torch.float64 for _, v in self._values]
        parts = [
            [pair for pair, is_wide in zip(self._values, wide, strict=True) if is_wide == kind]
            for kind in (False, True)
        ]
        stacks = [torch.stack([value.detach() for _, value in part]).double() for part in parts if part]
        values = torch.cat(stacks) if len(stacks) > 1 else stacks[0]
        return PackedReadings([label for part in parts for label, _ in part], values)


class PackedReadings(NamedTuple):
    """What each value is, and all values, (n,) float64."""

    labels: list[_Label]
    values: Tensor

    def read(self) -> dict[str, float]:
        """The metrics by name; this waits for the device.

        Raises:
            DivergenceError: a loss or a gradient is not finite.
        """
        read = list(zip(self.labels, self.values.tolist(), strict=True))
        descents: dict[tuple[int, str], dict[str, float]] = {}
        for label, value in read:
            if label.kind != "metric":
                descents.setdefault((label.descent, label.name), {})[label.kind] = value
        check_finite((name, v["loss"], v["gradient"]) for (_, name), v in sorted(descents.items()))
        return {label.name: value for label, value in read if label.kind == "metric"}
