"""Convolutions that take every path of the perpendicular norm, and the dense matrix of each."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

REAL = [torch.float64, torch.float32]


def geometry(stride=1, padding=0, dilation=1, groups=1) -> dict:
    return dict(stride=stride, padding=padding, dilation=dilation, groups=groups)


def case(
    channels: int, size: tuple[int, int], outs: int, kernel: tuple[int, int], batch: int = 3, **arguments
):
    """x, weight and geometry of a convolution, in float64."""
    g = geometry(**arguments)
    x = torch.randn(batch, channels, *size, dtype=torch.float64)
    return x, torch.randn(outs, channels // g["groups"], *kernel, dtype=torch.float64), g


def dense_matrix(shape: torch.Size, weight: Tensor, g: dict) -> Tensor:
    """W of `t = W x` on flattened samples of the given shape."""
    n = shape[1:].numel()
    return F.conv2d(torch.eye(n, dtype=weight.dtype).view(n, *shape[1:]), weight, **g).flatten(1).T


def dense_perpendicular(x: Tensor, matrix: Tensor) -> Tensor:
    x = x.flatten(1)
    u = x @ matrix.T @ matrix
    return x - (u * x).sum(1, keepdim=True) / u.square().sum(1, keepdim=True) * u


# Every path: few channels (fused), kernels of DCGAN (many and few tiles), the library
CASES = {
    "image": lambda: case(3, (13, 11), 5, (4, 4), stride=2, padding=1),
    "dcgan, many tiles": lambda: case(8, (14, 15), 6, (4, 4), stride=2, padding=1),
    "dcgan, few tiles": lambda: case(8, (4, 5), 6, (4, 4), 1, stride=2, padding=1),
    "dcgan, few tiles and large": lambda: case(128, (5, 4), 132, (4, 4), 2, stride=2, padding=1),
    "dcgan, no padding": lambda: case(13, (16, 18), 3, (4, 4), stride=2),
    "dcgan, wide padding": lambda: case(5, (12, 13), 3, (4, 4), stride=2, padding=(3, 2)),
    "library": lambda: case(8, (9, 7), 6, (3, 3), padding=1),
    "grouped": lambda: case(6, (9, 8), 4, (3, 2), stride=(1, 2), padding=1, groups=2),
    "depthwise": lambda: case(4, (7, 6), 8, (3, 3), padding=1, groups=4),
    "dilated": lambda: case(2, (11, 12), 3, (3, 2), stride=(3, 2), padding=(2, 0), dilation=2),
    "one pixel": lambda: case(3, (1, 1), 2, (1, 1)),
    "many taps": lambda: case(2, (9, 12), 2, (7, 8)),
}
cases = pytest.mark.parametrize("name", CASES)
