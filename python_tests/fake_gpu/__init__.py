"""A GPU that is not there, for tests: see README.md.

`register()` adds the device to torch and has led_fast compute on it. Neither can be undone, so tests on the device
are in files test_fake_gpu*.py, which `fake_gpu.isolation` runs in a process of their own.
"""

import importlib.util
import sys
import types
from collections import Counter
from contextlib import nullcontext

import torch

from fake_gpu import build

NAME = "fakegpu"
_extension: types.ModuleType | None = None


def register() -> None:
    """Adds the device to torch, once; `torch.device(NAME)` is one, and led_fast's GPU, from now on.

    It must come before the first backward pass, because autograd then makes its threads, one for each device.
    """
    global _extension
    if _extension is not None:
        return
    spec = importlib.util.spec_from_file_location(build.NAME, build.library())
    assert spec is not None and spec.loader is not None
    _extension = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(_extension)
    torch.utils.rename_privateuse1_backend(NAME)
    torch._register_device_module(NAME, _device_module(_extension.default_generator()))
    torch.utils.generate_methods_for_privateuse1_backend()

    import led_fast.gpu

    led_fast.gpu.KIND = NAME


def _device_module(generator: torch.Generator) -> types.ModuleType:
    """`torch.fakegpu`, with what led_fast and torch itself ask of `torch.cuda`."""
    module = types.ModuleType(f"torch.{NAME}")
    module.is_available = module.is_initialized = lambda: True
    module._is_in_bad_fork = lambda: False
    module.device_count = lambda: 1
    module.current_device = lambda: 0
    module.set_device = module.synchronize = lambda *_: None
    module.device = lambda *_: nullcontext()
    module.manual_seed = module.manual_seed_all = lambda seed: generator.manual_seed(seed)
    module.get_rng_state = lambda device=0: generator.get_state()
    module.set_rng_state = lambda state, device=0: generator.set_state(state)
    module.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
    module.get_device_capability = lambda *_: (9, 0)
    module.get_device_name = lambda *_: "a GPU that is not there"
    return module


class Count:
    """While open, counts what the device is asked to do.

    Attributes:
        total: by kind: "launch" (an operator that computes), "view" (one that does not), "sync" (the host waits
            for a number), "d2h" (it waits for a tensor) and "h2d" (copies to the device).
        lines: by kind, operator and line of led_fast; "backward" where autograd's thread calls.
    """

    def __enter__(self) -> "Count":
        self.total: Counter = Counter()
        self.lines: Counter = Counter()
        _observe(self._see)
        return self

    def __exit__(self, *_: object) -> None:
        _observe(None)

    @property
    def launches(self) -> int:
        """Operators that compute, each of which is one kernel at least."""
        return self.total["launch"]

    @property
    def waits(self) -> int:
        """How often the host waits for the device."""
        return self.total["sync"] + self.total["d2h"]

    def waiting_lines(self) -> dict[str, int]:
        """How often each line of led_fast waits."""
        found: Counter = Counter()
        for (kind, operator, line), times in self.lines.items():
            if kind in ("sync", "d2h"):
                found[f"{line} {operator}"] += times
        return dict(found.most_common())

    def _see(self, kind: str, operator: str) -> None:
        self.total[kind] += 1
        if kind != "view":
            self.lines[kind, operator, _line_of_led_fast()] += 1


class Capture:
    """While open, what a CUDA graph's capture forbids raises: to wait for the device, and to copy from the CPU."""

    def __enter__(self) -> "Capture":
        _observe(self._see)
        return self

    def __exit__(self, *_: object) -> None:
        _observe(None)

    def _see(self, kind: str, operator: str) -> None:
        if kind in ("sync", "d2h", "h2d"):
            raise RuntimeError(
                f"operation not permitted when stream is capturing: {kind} {operator} at {_line_of_led_fast()}"
            )


def _observe(function: object) -> None:
    assert _extension is not None, "fake_gpu.register() comes first"
    _extension.observe(function)


def _line_of_led_fast() -> str:
    frame = sys._getframe()
    while frame is not None and "/led_fast/" not in frame.f_code.co_filename:
        frame = frame.f_back
    if frame is None:
        return "backward"
    return f"{frame.f_code.co_filename.rpartition('/led_fast/')[2]}:{frame.f_lineno}"
