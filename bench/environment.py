"""What the figures of a benchmark depend on."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import torch

import led_fast
from led_fast.provenance import processor


def environment() -> dict[str, str]:
    return {
        "led_fast": led_fast.__version__,
        "commit": output("git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": f"{processor()}, {led_fast._C.build_info()['cpu_instruction_set']}",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def output(*command: str) -> str:
    """What a program prints, nothing where it is not there."""
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()
