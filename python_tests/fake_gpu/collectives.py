"""How processes on the fake GPU talk: as nccl does, a backend that takes tensors of the device and no others."""

import torch
import torch.distributed as dist

import fake_gpu

NAME = "fakeccl"


def register() -> None:
    """Makes the backend the device's, once in a process."""
    if NAME not in dist.Backend.backend_list:
        dist.Backend.register_backend(NAME, _create, devices=[fake_gpu.NAME])


class _Done(dist._Work):
    """An operation that is over: the device's memory is the host's, and gloo has waited."""

    def wait(self, timeout: object = None) -> bool:
        return True


class _OfTheDevice(dist.ProcessGroup):
    """Gloo on host copies."""

    def __init__(self, store: dist.Store, rank: int, size: int, timeout: object) -> None:
        super().__init__(rank, size)
        self._gloo = dist.ProcessGroupGloo(store, rank, size, timeout)

    @property
    def _device_types(self) -> list[torch.device]:  # where objects are put to be exchanged
        return [torch.device(fake_gpu.NAME)]

    def getBackendName(self) -> str:
        return NAME

    def allreduce(self, tensors: list[torch.Tensor], options: object) -> dist._Work:
        host = _on_host(tensors)
        self._gloo.allreduce(host, options).wait()
        _bring_back(tensors, host)
        return _Done()

    def allgather(
        self, outputs: list[list[torch.Tensor]], inputs: list[torch.Tensor], options: object = None
    ) -> dist._Work:
        host = [_on_host(part) for part in outputs]
        self._gloo.allgather(host, _on_host(inputs)).wait()
        for part, values in zip(outputs, host, strict=True):
            _bring_back(part, values)
        return _Done()


def _create(store: dist.Store, rank: int, size: int, timeout: object) -> dist.ProcessGroup:
    return _OfTheDevice(store, rank, size, timeout)


def _on_host(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    for tensor in tensors:
        if tensor.device.type != fake_gpu.NAME:  # what a group of nccl alone says
            raise RuntimeError(f"No backend type associated with device type {tensor.device.type}")
    return [tensor.cpu() for tensor in tensors]


def _bring_back(tensors: list[torch.Tensor], host: list[torch.Tensor]) -> None:
    for tensor, values in zip(tensors, host, strict=True):
        tensor.copy_(values)
