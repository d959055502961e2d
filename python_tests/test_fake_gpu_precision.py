"""bfloat16 inside the networks on a GPU: as on the CPU, but for its lists of what autocast takes."""

import copy
import json
import types
from functools import cache

import fake_gpu
import numpy as np
import pytest
import torch
from command_line import run as run_led_fast
from fake_gpu import graphs
from precision_cases import around, couplings, critics, measure, trained, trainer_of
from torch import nn
from torch.overrides import TorchFunctionMode

from led_fast.density import squared_gradient
from led_fast.models import DCGANCritic
from led_fast.nn import CircularConv2d
from led_fast.training import graph
from led_fast.training.precision import use_precision

BOUND = 0.05  # nats


@pytest.fixture(scope="module")
def models():
    return cache(lambda preset: trained(preset, 6))


@pytest.fixture(params=["tiny", pytest.param("mnist32", marks=pytest.mark.slow), "perpendicular", "inflated"])
def model_and_data(request, models):
    model, x = models(request.param)
    return copy.deepcopy(model).to(fake_gpu.NAME), x.to(fake_gpu.NAME)


def test_log_densities_are_those_of_float32(model_and_data):
    found = measure(*model_and_data, critics)
    assert (
        found["log q, same noise"].largest == 0
        and found.get("log q, data", found["log q, same noise"]).largest == 0
    )
    assert found["f, data"].largest > 0 and abs(found["f, data"].bias) < BOUND
    assert found["log α"].largest < BOUND


def test_a_callers_autocast_leaves_log_q_alone(model_and_data):
    found = measure(*model_and_data, around)
    for name in ("log q, same noise", "log q, data"):
        assert name not in found or found[name].largest == 0
    assert abs(found["f, data"].bias) < BOUND


def test_networks_of_a_flow_can_be_told(models):
    model, x = models("tiny")
    found = measure(copy.deepcopy(model).to(fake_gpu.NAME), x.to(fake_gpu.NAME), couplings)
    assert found["log q, own samples"].largest > 0 and abs(found["log q, own samples"].bias) < BOUND


@pytest.mark.parametrize("penalty", ["off", "direction", "exact"])
def test_the_gradient_penalty_has_gradients(penalty):
    torch.manual_seed(0)
    critic, x = DCGANCritic(8, 1, 8, penalty).to(fake_gpu.NAME), torch.rand(4, 1, 8, 8).to(fake_gpu.NAME)
    found = []
    for precision in ("float32", "bf16"):
        use_precision(precision, critic)
        critic.zero_grad()
        value = squared_gradient(critic, x).mean()
        value.backward()
        found.append([value.detach(), *(p.grad for p in critic.parameters() if p.grad is not None)])
    assert not torch.equal(*(values[0] for values in found))
    for full, half in zip(*found, strict=True):
        assert half.dtype == torch.float32 and (half - full).norm() <= 0.1 * full.norm() + 1e-6


def test_training_in_bf16_has_the_metrics_of_float32():
    found = []
    for precision in ("float32", "bf16"):
        trainer = trainer_of("tiny", 6, precision=precision)
        assert trainer.task.device.type == fake_gpu.NAME
        found.append([trainer.step() for _ in range(6)])
    assert found[0] != found[1]
    for full, half in zip(*found, strict=True):
        assert full == pytest.approx(half, rel=2e-2, abs=0.1)


def test_a_recorded_step_in_bf16_is_the_eager_one(monkeypatch):
    stub = graphs.cuda()
    monkeypatch.setattr(graph, "torch", types.SimpleNamespace(cuda=stub))
    monkeypatch.setattr(graph, "_WARM_UP", 1)
    found = []
    for mode in ("off", "auto"):
        trainer = trainer_of("tiny", 16, precision="bf16", cuda_graph=mode)
        found.append([trainer.step() for _ in range(16)])
    assert found[0] == found[1]
    assert sum(made.replays for made in stub.made) > 4


def test_auto_is_bf16_on_a_gpu_that_has_it(tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).integers(0, 256, (120, 8, 8), dtype=np.uint8))
    monkeypatch.setattr("led_fast.cli.train.write_report", lambda *_: None)
    for name in ("train", "load_model"):
        monkeypatch.setattr(f"led_fast.cli.train.{name}", lambda *_, **__: None)
    module = torch.get_device_module(fake_gpu.NAME)
    for capability, wanted in (((9, 0), "bf16"), ((7, 5), "float32")):
        monkeypatch.setattr(module, "get_device_capability", lambda *_, c=capability: c)
        out = tmp_path / wanted
        options = [tmp_path / "noise.npy", "--preset", "tiny", "--out", out, "--precision", "auto"]
        assert run_led_fast("train", *options) == 0
        assert (
            f"precision: {wanted}, on a GPU that is not there (compute capability " in capsys.readouterr().out
        )
        assert json.loads((out / "config.json").read_text())["precision"] == wanted
    options[-1] = "bf16"
    options[4] = tmp_path / "refused"
    assert run_led_fast("train", *options) == 2
    assert "bf16 wants a GPU of compute capability 8.0" in capsys.readouterr().err


class TF32(TorchFunctionMode):
    """Convolutions as on a GPU from compute capability 8.0: by the flag, their inputs are rounded to ten bits."""

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        if function is torch.conv2d or (function is torch._convolution and arguments[-1]):
            arguments = (*map(self.rounded, arguments[:2]), *arguments[2:])
        return function(*arguments, **(keywords or {}))

    def rounded(self, x):
        return ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def test_a_circular_convolution_is_not_rounded_to_tf32():
    layer = CircularConv2d(3, 3).to(fake_gpu.NAME)
    plain = nn.Conv2d(3, 3, 3).to(fake_gpu.NAME)
    x = torch.randn(2, 3, 8, 8).to(fake_gpu.NAME)
    wanted = layer(x)[0], plain(x)
    with TF32():
        found = layer(x)[0], plain(x)
    assert torch.equal(found[0], wanted[0])
    assert not torch.equal(found[1], wanted[1])  # other convolutions go by the flag
