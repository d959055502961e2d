"""Torch's global random generators: the CPU's, and that of the device in use; those of other devices stay untouched.

`torch.manual_seed` and `torch.random.fork_rng` take either all devices or the ones that are listed: what seeds all and
restores some leaves the others reseeded, and what lists none lets a GPU's numbers depend on what ran before.
"""

import os
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

Device = torch.device | str

_inside: Counter[int] = Counter()  # the threads that are in `isolated`, and how deep
os.register_at_fork(after_in_child=_inside.clear)  # where the others are gone


def random_state(device: Device) -> dict[str, Tensor]:
    """The states of the generators that computing on a device uses, by kind of device."""
    state, device = {"cpu": torch.get_rng_state()}, torch.device(device)
    if device.type != "cpu":
        state[device.type] = torch.get_device_module(device).get_rng_state(device)
    return state


def set_random_state(state: dict[str, Tensor], device: Device) -> None:
    """Goes back to what `random_state` returned of that device."""
    torch.set_rng_state(state["cpu"])
    device = torch.device(device)
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(state[device.type], device)


def set_seed(seed: int, device: Device) -> None:
    """Seeds the generators that computing on a device uses."""
    torch.default_generator.manual_seed(seed)
    device = torch.device(device)
    if device.type != "cpu":
        module = torch.get_device_module(device)
        with module.device(device) if hasattr(module, "device") else nullcontext():  # MPS is one device
            module.manual_seed(seed)


@contextmanager
def isolated(device: Device) -> Iterator[None]:
    """Leaves the generators that computing on a device uses as they were found.

    They are the whole process's, so two threads at a time disturb each other; the second is warned.
    """
    me = threading.get_ident()
    if any(thread != me for thread in list(_inside)):
        warnings.warn(
            "two threads draw torch's random numbers at a time: what either learns or draws does not follow its seed; "
            "processes of their own do not disturb each other",
            stacklevel=3,
        )
    _inside[me] += 1
    state = random_state(device)
    try:
        yield
    finally:
        set_random_state(state, device)
        _inside[me] -= 1
        if _inside[me] <= 0:
            del _inside[me]


@contextmanager
def seeded(seed: int, device: Device = "cpu") -> Iterator[None]:
    """Computes on a device with random numbers of a seed, and leaves the generators as they were found."""
    with isolated(device):
        set_seed(seed, device)
        yield
