"""What a program may have told torch to do by default, and how to compute as if it had not."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch


@contextmanager
def usual() -> Iterator[None]:
    """While it is open, or in a function that it decorates, new tensors are float32, on the CPU, and have gradients.

    So results do not depend on `set_default_dtype`, `set_default_device`, `no_grad` or `inference_mode` of whoever asks
    for them. The default dtype is that of the whole process: other threads see float32 meanwhile.
    """
    dtype, on_cpu = torch.get_default_dtype(), torch.get_default_device().type == "cpu"
    if dtype != torch.float32:
        torch.set_default_dtype(torch.float32)
    try:
        # A device that is set costs each operation some time, even the CPU.
        with (
            nullcontext() if on_cpu else torch.device("cpu"),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            yield
    finally:
        if dtype != torch.float32:
            torch.set_default_dtype(dtype)
