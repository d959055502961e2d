"""What a GPU must not round to TensorFloat-32: a map whose log-determinant is of its weights as they are."""

import torch
from torch import Tensor
from torch.nn import functional as F

from led_fast.ops.autocast import autocast_is_on


def conv2d_without_tf32(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`torch.nn.functional.conv2d` without rounding on a GPU; its gradients go by torch's flag.

    PyTorch rounds the inputs of convolutions to ten bits by default (`torch.backends.cudnn.allow_tf32`). The flag is
    the whole process's, so it stays alone; the operator behind the function takes it as an argument. A compiled graph
    follows the flag, and autocast rounds to what it is asked for.
    """
    if x.device.type in ("cpu", "meta") or torch.compiler.is_compiling() or autocast_is_on(x):
        return F.conv2d(x, weight, bias)
    cudnn, ones, zeros = torch.backends.cudnn, [1, 1], [0, 0]
    deterministic = cudnn.deterministic or torch.are_deterministic_algorithms_enabled()
    flags = cudnn.benchmark, deterministic, cudnn.enabled
    return torch._convolution(x, weight, bias, ones, zeros, ones, False, zeros, 1, *flags, False)
