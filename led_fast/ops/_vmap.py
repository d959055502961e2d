"""What the vmap rules of operators share."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def flat(info: Any, tensor: Tensor, dim: int | None) -> Tensor:
    """The samples of all mapped calls as one batch: (B, ...), mapped over `dim`, to (calls * B, ...)."""
    tensor = tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return tensor.flatten(0, 1)


def unflat(info: Any, tensor: Tensor, like: Tensor, dim: int | None) -> Tensor:
    """The way back: (calls * B, ...) to (calls, B, ...), B that of `like`, which is mapped over `dim`."""
    return tensor.unflatten(0, (info.batch_size, like.shape[1 if dim == 0 else 0]))


def one_by_one(op: Any, info: Any, in_dims: Any, *args: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """A rule for an operator whose mapped calls have nothing in common that one call could share."""

    def call(of: Callable[[Tensor, int], Tensor]) -> tuple[Tensor, ...]:
        given = zip(args, in_dims, strict=True)
        return op(*(of(a, dim) if isinstance(a, Tensor) and dim is not None else a for a, dim in given))

    def number(i: int) -> Callable[[Tensor, int], Tensor]:
        return lambda a, dim: a.select(dim, i)

    if info.batch_size == 0:  # the shapes are those of a call with anything
        like = call(lambda a, dim: a.new_ones(a.shape[:dim] + a.shape[dim + 1 :]))
        outputs = tuple(o.new_empty((0, *o.shape)) for o in like)
    else:
        calls = [call(number(i)) for i in range(info.batch_size)]
        outputs = tuple(map(torch.stack, zip(*calls, strict=True)))
    return outputs, (0,) * len(outputs)
