"""What a result was made with."""

import platform
from pathlib import Path

import torch

from led_fast import __version__
from led_fast.gpu import gpu


def provenance() -> dict[str, str]:
    """Versions and kind of machine, the GPU included, for every result."""
    device = gpu()
    gpus = [] if device is None else [torch.get_device_module(device).get_device_name()]
    return {
        "version": __version__,
        "torch": torch.__version__,
        "machine": ", ".join([processor(), *gpus]),
    }


def processor() -> str:
    """The CPU's model where the system tells it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
