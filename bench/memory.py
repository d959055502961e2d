"""How much memory a call takes at its peak."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

CUDA = torch.cuda.is_available()
_COUNTERS = Path("/proc/self/clear_refs")

needs_counters = pytest.mark.skipif(not CUDA and not _COUNTERS.exists(), reason="needs Linux's counters")


def peak_memory(run: Callable[[], object]) -> int:
    """Bytes by which the process's resident set (on a GPU: the allocator) grows above its size before."""
    if CUDA:
        run()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    run()
    ctypes.CDLL(None).malloc_trim(0)
    _COUNTERS.write_text("5")
    before = _resident("VmRSS")
    run()
    return _resident("VmHWM") - before


def _resident(counter: str) -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{counter}:")[1].split()[0])
