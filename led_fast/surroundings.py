"""What a program may have told torch to do by default, and how to compute as if it had not."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

_IMPORTED_BY = os.getpid()


@contextmanager
def usual() -> Iterator[None]:
    """While it is open, or in a function that it decorates, new tensors are float32, on the CPU, and have gradients.

    So results do not depend on `set_default_dtype`, `set_default_device`, `no_grad` or `inference_mode` of whoever asks
    for them. The default dtype is that of the whole process: other threads see float32 meanwhile.

    In a process that was forked there is one thread, because torch waits forever for OpenMP's threads if the parent has
    used them.
    """
    threads = torch.get_num_threads()
    forked = os.getpid() != _IMPORTED_BY and threads > 1
    if forked:
        warnings.warn(
            "led_fast computes by one thread in a forked process, where torch's others may be dead; processes that are "
            "spawned have all",
            stacklevel=4,
        )
        torch.set_num_threads(1)
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
        if forked:
            torch.set_num_threads(threads)
