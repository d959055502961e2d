"""The processes that train one model together, as `torchrun` starts them; a single one without it.

Every process holds the whole model and draws its own share of a step's samples. Losses are written for the
joint batch: `World.gather` makes one vector of the per-sample values of all processes, through which a
gradient flows to this process's own part, so that any loss of it (log-mean-exp of all integral samples,
normalised weights, plain means) is the joint batch's. The gradients of all processes then add up to the
joint gradient.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from led_fast.errors import InputError, first_line
from led_fast.training.rendezvous import PeerLostError, meet, place

__all__ = ["PeerLostError", "World", "join_world"]


class World:
    """One process among `size`, of number `rank`; operations on a single one do nothing.

    Tensors that the processes exchange are on `device`.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device | str = "cpu") -> None:
        self.rank, self.size, self.device = rank, size, torch.device(device)

    def share(self, n: int, name: str) -> int:
        """This process's part of n samples; InputError naming them where they cannot be split evenly."""
        if n % self.size:
            raise InputError(f"{name}: {n} cannot be split evenly among {self.size} processes")
        return n // self.size

    def gather(self, values: Tensor) -> Tensor:
        """Joins the values (n, ...) of all processes, in order: (size n, ...). Gradients reach our own part."""
        if self.size == 1:
            return values
        parts = self._all_gather(values.detach())
        parts[self.rank] = values
        return torch.cat(parts)

    def gather_objects(self, value: Any) -> list[Any]:
        """Any picklable values of all processes, in order."""
        values: list[Any] = [value] * self.size
        if self.size > 1:
            with _peers_must_live():
                dist.all_gather_object(values, value)
        return values

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Adds up the gradients of all processes, in one message."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        self._reduce(gradients)

    @torch.no_grad()
    def average_buffers(self, module: nn.Module) -> None:
        """Makes the floating-point buffers (running statistics) of all processes their mean."""
        if self.size == 1:
            return
        buffers = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
        self._reduce(buffers)
        for buffer in buffers:
            buffer.div_(self.size)

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return bool(self.agree(float(flag)))

    def agree(self, value: float) -> float:
        """The largest of the processes' values."""
        if self.size == 1:
            return value
        largest = torch.tensor(value, dtype=torch.float64, device=self.device)
        with _peers_must_live():
            dist.all_reduce(largest, dist.ReduceOp.MAX)
            return largest.item()  # where nccl, which does not wait, tells of a lost connection

    def _all_gather(self, values: Tensor) -> list[Tensor]:
        values = values.contiguous()
        parts = [torch.empty_like(values) for _ in range(self.size)]
        with _peers_must_live():
            dist.all_gather(parts, values)
        return parts

    def _reduce(self, tensors: list[Tensor]) -> None:
        if not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with _peers_must_live():
            dist.all_reduce(flat)
        for tensor, total in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))


@contextmanager
def join_world(device: torch.device | str = "cpu", minutes: float = 10.0) -> Iterator[World]:
    """Joins the processes that `torchrun` has started, for as long as it is open.

    A program that has a process group of its own lends it, and keeps it.

    They talk by the backend of the device that their networks are on: gloo on the CPU; on a GPU, one for each process,
    nccl, which takes no tensors of the CPU.

    Args:
        device: the kind of device; each process takes the one of its number on this machine.
        minutes: how long to wait for the others to come.

    Raises:
        InputError: there are more processes than GPUs, or the environment, which says how many, makes no sense.
        PeerLostError: a process does not come, or goes while another one waits for it.

    Example:
        >>> from led_fast.training import join_world
        >>> with join_world() as world:  # by itself, where torchrun has started nothing
        ...     print(world.rank, world.size)
        0 1
    """
    device = torch.device(device)
    if dist.is_available() and dist.is_initialized():
        yield World(dist.get_rank(), dist.get_world_size(), device)
        return
    here = place()
    if here is None:
        yield World(device=device)
        return
    if device.type != "cpu":
        _take_own(device, here.local_rank)
    with _peers_must_live():
        backend = dist.get_default_backend_for_device(device)
        dist.init_process_group(backend, store=meet(here, minutes), rank=here.rank, world_size=here.size)
    yield World(here.rank, here.size, device)
    dist.destroy_process_group()  # not after an error, because nccl waits for the others there


def _take_own(device: torch.device, number: int | None) -> None:
    """Makes the GPU of this process's number the current one."""
    module = torch.get_device_module(device)
    if number is None:
        raise InputError("LOCAL_RANK: want the number of this process on its machine, which is its GPU's")
    if number >= module.device_count():
        raise InputError(
            f"torchrun started more than {number} processes on this machine, which has {module.device_count()} GPUs: "
            "each process wants one of its own"
        )
    module.set_device(number)


@contextmanager
def _peers_must_live() -> Iterator[None]:
    """Turns the errors of a lost connection, and no others, into a PeerLostError."""
    try:
        yield
    except RuntimeError as error:
        if not _is_of_connection(error):
            raise
        reason = first_line(error)
        raise PeerLostError(f"another process of this run has died or cannot be reached ({reason})") from None


def _is_of_connection(error: RuntimeError) -> bool:
    """Whether an error tells of another process, not of a call that was wrong.

    Gloo's transport raises plain RuntimeErrors with its source file in them, and "enforce fail" where a call was wrong;
    nccl tells calls that are wrong, and a GPU's own errors, from those of the other side by a code.
    """
    if isinstance(error, dist.DistBackendError):
        own = ("ncclInvalidArgument", "ncclInvalidUsage", "ncclUnhandledCudaError", "ncclInternalError")
        return not any(code in str(error) for code in own)
    gloo = "gloo/transport/" in str(error) and "enforce fail" not in str(error)
    return isinstance(error, dist.DistError) or gloo
