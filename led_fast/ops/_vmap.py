"""What the vmap rules of operators share."""

from typing import Any

import torch
from torch import Tensor


def flat(info: Any, tensor: Tensor, dim: int | None) -> Tensor:
    """The samples of all mapped calls as one batch: (B, ...), mapped over `dim`, to (calls * B, ...)."""
    tensor = tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return tensor.flatten(0, 1)


def one_by_one(op: Any, info: Any, in_dims: Any, *args: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """A rule for an operator whose mapped calls have nothing in common that one call could share."""

    def of_call(i: int) -> list[Any]:
        return [
            a.select(dim, i) if isinstance(a, Tensor) and dim is not None else a
            for a, dim in zip(args, in_dims, strict=True)
        ]

    calls = [op(*of_call(i)) for i in range(info.batch_size)]
    outputs = tuple(map(torch.stack, zip(*calls, strict=True)))
    return outputs, (0,) * len(outputs)
