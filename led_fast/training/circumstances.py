"""What decides rounding, and so the last digits of weights, besides a run's config."""

from collections.abc import Sequence

import torch

import led_fast
from led_fast.provenance import provenance

Circumstances = dict[str, str]


def circumstances() -> Circumstances:
    """Versions, machine, and how this process computes on it."""
    made_with = provenance()
    return {
        "led_fast": made_with.pop("version"),
        **made_with,
        "instruction set": f"{torch.backends.cpu.get_cpu_capability()}, "
        f"{led_fast._C.build_info()['cpu_instruction_set']}",
        "number of threads": str(torch.get_num_threads()),
        "precision of matrix products": torch.get_float32_matmul_precision(),
    }


def differences(then: Sequence[Circumstances] | None, now: Sequence[Circumstances]) -> str:
    """In what the processes of a run, each by its circumstances, are not as they were; empty where they are.

    Args:
        then: when a checkpoint was written; None where that was not noted yet, as by version 0.1.0.
        now: as many.
    """
    if then is None:
        return "was begun by a version of led_fast that did not note by what"
    changed = {
        f"{name} {before.get(name, 'unknown')}, now {value}"
        for before, after in zip(then, now, strict=True)
        for name, value in after.items()
        if before.get(name) != value
    }
    return f"was begun with {'; '.join(sorted(changed))}" if changed else ""
