"""The fake GPU itself: what raises on it and what does not is what does on CUDA, and it counts."""

import copy
import io

import fake_gpu
import pytest
import torch
from torch import nn


@pytest.fixture
def x():
    return torch.randn(3, 4, device=fake_gpu.NAME)


@pytest.fixture
def c():
    return torch.randn(3, 4)


RAISES = {
    "add": lambda x, c: x + c,
    "add to a CPU tensor": lambda x, c: c.add_(x),
    "cat": lambda x, c: torch.cat([x, c]),
    "stack of scalars": lambda x, c: torch.stack([x.sum(), c.sum()]),
    "matmul": lambda x, c: x @ c.T,
    "where": lambda x, c: torch.where(x > 0, x, c),
    "gather": lambda x, c: torch.gather(x, 1, torch.zeros(3, 1, dtype=torch.int64)),
    "indices of the device on a CPU tensor": lambda x, c: c[x[0].long()],
    "convolution": lambda x, c: nn.functional.conv1d(x[None], torch.randn(1, 3, 2)),
    "lerp": lambda x, c: torch.lerp(x, c, 0.5),
    "searchsorted": lambda x, c: torch.searchsorted(x[0], c),
    "numpy": lambda x, c: x.numpy(),
    "a generator of the CPU": lambda x, c: torch.randn(3, device=x.device, generator=torch.Generator()),
    "a generator of the device": lambda x, c: torch.randn(3, generator=torch.Generator(x.device)),
}


@pytest.mark.parametrize("name", RAISES)
def test_devices_do_not_mix(name, x, c):
    with pytest.raises((RuntimeError, TypeError), match=r"device|cpu"):
        RAISES[name](x, c)


ALLOWED = {
    "scalar": lambda x, c: x + c.sum(),
    "scalar in where": lambda x, c: torch.where(x > 0, x, c.sum()),
    "indices of the CPU": lambda x, c: x[torch.tensor([0, 1])],
    "assignment": lambda x, c: x.__setitem__(0, c[0]),
    "copy": lambda x, c: (x.copy_(c), c.copy_(x)),
    "its generator": lambda x, c: torch.randn(3, device=x.device, generator=torch.Generator(x.device)),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_devices_meet_where_they_do_on_cuda(name, x, c):
    ALLOWED[name](x, c)


def test_values_and_gradients_are_the_cpus():
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)
    )
    images = torch.randn(5, 1, 8, 8)
    found = []
    for device in ("cpu", fake_gpu.NAME):
        moved, at = copy.deepcopy(network).to(device), images.to(device).requires_grad_()
        (gradient,) = torch.autograd.grad(moved(at).sum(), at, create_graph=True)
        gradient.square().sum().backward()
        assert moved[0].weight.grad.device.type == device
        found.append(
            [gradient.detach().cpu(), *(p.grad.cpu() for p in moved.parameters() if p.grad is not None)]
        )
    torch.testing.assert_close(found[0], found[1])


def test_views_share_memory_and_inference_mode_makes_them(x):
    zeros = torch.zeros(6, device=x.device)
    zeros.view(2, 3)[1] = 1
    zeros[1:4].mul_(5).add_(2)
    assert zeros.tolist() == [0, 2, 2, 7, 1, 1]
    conjugate = torch.fft.fft(x).conj()
    torch.testing.assert_close((conjugate * 2).cpu(), 2 * torch.fft.fft(x.cpu()).conj())
    with torch.inference_mode():
        assert nn.Linear(4, 3).to(x.device)(x).T.shape == (3, 3)


def test_its_generator_is_one_of_its_own():
    module = torch.get_device_module(fake_gpu.NAME)
    torch.manual_seed(0)
    first = torch.rand(2, device=fake_gpu.NAME).cpu()
    state = module.get_rng_state()
    torch.rand(2)
    assert torch.equal(state, module.get_rng_state())
    torch.rand(2, device=fake_gpu.NAME)
    assert not torch.equal(state, module.get_rng_state())
    torch.manual_seed(0)
    assert torch.equal(torch.rand(2, device=fake_gpu.NAME).cpu(), first)


def test_tensors_can_be_saved(x):
    file = io.BytesIO()
    torch.save(x, file)
    file.seek(0)
    assert torch.equal(torch.load(file), x)


def test_it_counts_launches_waits_and_copies(x):
    with fake_gpu.Count() as count:
        y = (x + 1).T @ x
        y[0, 0].item()
        y.cpu()
        torch.ones(2).to(x.device)
        y[y > 0]
    assert count.launches == 5  # add, matmul, compare, and two that select
    assert count.waits == 3  # item, cpu, select
    assert count.total["h2d"] == 1


def test_a_capture_forbids_what_waits(x):
    with fake_gpu.Capture():
        (x + 1).relu_()
    for wait in (lambda: x.sum().item(), x.cpu, lambda: torch.ones(2).to(x.device), lambda: x[x > 0]):
        with pytest.raises(RuntimeError, match="capturing"), fake_gpu.Capture():
            wait()
    x.sum().item()  # over


def test_autocast_follows_cudas_lists(x):
    with torch.autocast(fake_gpu.NAME, torch.bfloat16):
        assert (x @ x.T).dtype == torch.bfloat16 and x.exp().dtype == torch.float32
