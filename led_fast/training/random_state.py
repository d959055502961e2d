"""Torch's global random generators: the CPU's, and the GPU's for what is trained there."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of the generators that training on a device uses, by kind of device."""
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state()} if device.type == "cuda" else state


def set_random_state(state: dict[str, Tensor]) -> None:
    """Goes back to what `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])


def isolated_randomness() -> AbstractContextManager[None]:
    """Leaves the generators as they were found."""
    return torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else [])
