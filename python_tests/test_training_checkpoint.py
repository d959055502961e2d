import os

import pytest
import torch
from safetensors.torch import save_file

from led_fast.errors import InputError
from led_fast.files import write_atomically
from led_fast.training.checkpoint import load_state, save_state


def assert_same(got, want):
    if isinstance(want, torch.Tensor):
        assert got.dtype == want.dtype and torch.equal(got, want)
    elif isinstance(want, dict):
        assert list(got) == list(want)
        for key in want:
            assert_same(got[key], want[key])
    elif isinstance(want, list | tuple):
        assert len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            assert_same(a, b)
    else:
        assert got == want


def example_state():
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(5, 2)).sum().backward()
    optimizer.step()
    return {
        "net": dict(net.state_dict()),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "step": 3,
        "loss": 0.1,
        "none": None,
        "empty": torch.zeros(0, 2),
        "nested": [{"a": [torch.ones(2).half(), "text"]}, []],
    }


def test_round_trip_is_exact(tmp_path):
    state = example_state()
    save_state(tmp_path / "c.safetensors", "checkpoint", state)
    assert_same(load_state(tmp_path / "c.safetensors", "checkpoint"), state)


def test_an_optimizer_takes_its_state_back(tmp_path):
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([parameter], betas=(0.5, 0.9))
    parameter.grad = torch.ones(3)
    optimizer.step()
    save_state(tmp_path / "c", "checkpoint", {"optimizer": optimizer.state_dict()})
    fresh = torch.optim.Adam([parameter], betas=(0.1, 0.2))
    fresh.load_state_dict(load_state(tmp_path / "c", "checkpoint")["optimizer"])
    assert_same(fresh.state_dict(), optimizer.state_dict())
    fresh.step()


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_truncated(tmp_path, keep):
    path = tmp_path / "c.safetensors"
    save_state(path, "checkpoint", example_state())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"c.safetensors: truncated or not a safetensors file"):
        load_state(path, "checkpoint")


def test_foreign_and_wrong_kind(tmp_path):
    path = tmp_path / "c.safetensors"
    with pytest.raises(InputError, match=r"c.safetensors: no such file"):
        load_state(path, "checkpoint")
    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(InputError, match="not one that led_fast wrote"):
        load_state(path, "checkpoint")
    save_state(path, "model", {})
    with pytest.raises(InputError, match="want a checkpoint of format 1, got a model of format 1"):
        load_state(path, "checkpoint")


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "c"
    write_atomically(path, b"old")

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
