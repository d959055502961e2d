"""bfloat16 inside the networks: what it may move, what it must not, and that a run keeps to it."""

import copy
import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from coarse import coarsen
from command_line import run as run_led_fast
from precision_cases import (
    ALL,
    around,
    couplings,
    critics,
    measure,
    size,
    trained,
    trainer_of,
)
from torch import nn

from led_fast.data import open_source
from led_fast.density import squared_gradient
from led_fast.errors import InputError
from led_fast.flows import BatchNorm, Linear, OneWayFlow, StandardNormal
from led_fast.models import (
    IMAGE_PRESETS,
    ImageCriticConfig,
    image_critic,
    image_generator,
    points_critic,
)
from led_fast.models import PRESETS as POINTS_PRESETS
from led_fast.models.dcgan_critic import DCGANCritic
from led_fast.models.image_critic import ImageCritic
from led_fast.nn import MixedSequential, set_inner_dtype
from led_fast.training import TrainConfig, check_precision, load
from led_fast.training.precision import automatic_precision, use_precision

BOUND = 0.05  # nats
LARGE = ["color64", "paper_color32", "paper_color64"]
PRESETS = [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in ALL]
PENALISED = [name for name in IMAGE_PRESETS if name.startswith("paper")]
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@cache
def model_of(preset):
    return trained(preset, steps=12)


# ---- log densities against those in float32 ------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_a_run_in_bf16_has_the_log_densities_of_float32(preset):
    model, x = model_of(preset)
    found = measure(model, x, critics)
    assert (
        found["log q, same noise"].largest == 0
        and found.get("log q, data", found["log q, same noise"]).largest == 0
    )
    f, log_alpha = found["f, data"], found["log α"]
    assert f.largest > 0  # the net is in bfloat16 indeed
    if preset in PENALISED:  # which is why no run of them is trained in it
        assert f.largest < 0.01 * size(model, x)
        return
    assert abs(f.bias) < BOUND and log_alpha.largest < BOUND
    assert f.largest < max(BOUND, 0.01 * size(model, x))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_callers_autocast_leaves_log_q_alone(preset):
    model, x = model_of(preset)
    found = measure(model, x, around)
    for name in ("log q, same noise", "log q, data"):
        assert name not in found or found[name].largest == 0
    assert abs(found["f, data"].bias) < max(BOUND, 0.01 * size(model, x))


@pytest.mark.parametrize("preset", ["tiny", "mnist32", "color32"])
def test_networks_of_a_flow_in_bf16_make_another_density_that_is_exact(preset):
    model, x = model_of(preset)
    found = measure(model, x, couplings)
    assert found["log q, own samples"].largest > 0 and abs(found["log q, own samples"].bias) < BOUND


def test_a_callers_autocast_leaves_samples_and_scores_alone():
    model, _ = model_of("tiny")

    def found():
        torch.manual_seed(0)
        t = model.generator.base.rsample(4)
        y, ladj = model.generator(t)
        scored = *model.generator.rsample_with_score(4), model.generator.log_prob_before_last(y.logit(1e-6))
        return [
            model.sample(4),
            *scored,
            y,
            ladj,
            *model.generator.inverse(y),
            *model.generator.inverse(y.bfloat16()),
        ]

    wanted = found()
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(a, b) for a, b in zip(found(), wanted, strict=True))


def test_a_base_of_ones_own_is_out_of_reach_of_autocast():
    class Rotated(StandardNormal):
        def rsample_and_log_prob(self, n):
            z, log_q = super().rsample_and_log_prob(n)
            return z @ torch.ones(3, 3), log_q

        def log_prob(self, z):
            return super().log_prob(z @ torch.ones(3, 3))

    flow = OneWayFlow(Rotated(3), [])
    x = torch.randn(5, 3)
    torch.manual_seed(0)
    wanted = flow.rsample(5), flow.log_prob(x)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        found = flow.rsample(5), flow.log_prob(x)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@torch.no_grad()
def test_values_in_half_precision_are_taken_to_float32():
    model, x = model_of("tiny")
    x = x.bfloat16()
    model = copy.deepcopy(model)
    model.set_log_normalizer(123.456)
    for function in (model.log_prob, model.generator.log_prob, model.critic.discriminate):
        assert function(x).dtype == torch.float32
        assert torch.equal(function(x), function(x.float()))


def test_models_in_half_precision_compute_in_it():
    x = torch.rand(3, 1, 8, 8).bfloat16()
    generator, critic = image_generator("tiny").bfloat16().eval(), image_critic("tiny").bfloat16()
    assert generator.log_prob(x).isfinite().all() and generator.sample(2).dtype is torch.bfloat16
    assert critic(x).isfinite().all() and critic.discriminate(x).dtype is torch.bfloat16
    net = MixedSequential(nn.Linear(2, 4), nn.Linear(4, 1)).bfloat16()
    set_inner_dtype(net, torch.bfloat16)
    assert net(torch.ones(3, 2).bfloat16()).dtype is torch.bfloat16


def test_moments_are_those_of_float32():
    def moved():
        torch.manual_seed(0)
        flow = OneWayFlow(StandardNormal(3), [Linear(3), BatchNorm(3), Linear(3), BatchNorm(3)]).train()
        flow.sample(9)
        return flow.state_dict()

    wanted = moved()
    with torch.autocast("cpu", torch.bfloat16):
        found = moved()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


# ---- networks ------------------------------------------------------------------------------------------------


def image_of(penalty, squared=False, base="pixels"):
    config = ImageCriticConfig(width=8, penalty=penalty, squared=squared, base=base)
    return ImageCritic(config, (1, 8, 8), image_generator("tiny") if base == "generator" else None)


def plane_of(preset, **changes):
    config = POINTS_PRESETS[preset].critic
    return points_critic(replace(config, **changes))


CRITICS = {
    "images": (lambda: image_of("off"), (1, 8, 8)),
    "images, tilting": (lambda: image_of("off", base="generator"), (1, 8, 8)),
    "images, direction": (lambda: image_of("direction"), (1, 8, 8)),
    "images, exact": (lambda: image_of("exact"), (1, 8, 8)),
    "images, squared": (lambda: image_of("direction", squared=True), (1, 8, 8)),
    "DCGAN": (lambda: DCGANCritic(16, 3, 8), (3, 16, 16)),
    "points": (lambda: plane_of("default"), (2,)),
    "points, direction": (lambda: plane_of("perpendicular"), (2,)),
    "points, exact": (lambda: plane_of("perpendicular_exact"), (2,)),
    "points, paper": (lambda: plane_of("paper"), (2,)),
}


@pytest.mark.parametrize("name", CRITICS)
def test_every_critic_has_value_gradient_and_penalty_in_bf16(name):
    torch.manual_seed(0)
    build, shape = CRITICS[name]
    critic = build()
    x = torch.rand(6, *shape)

    def found(critic):
        f = critic(x)
        penalty = squared_gradient(critic, x)
        (f.mean() + penalty.mean()).backward()
        return (
            f.detach(),
            penalty.detach(),
            {n: p.grad for n, p in critic.named_parameters() if p.grad is not None},
        )

    half = copy.deepcopy(critic)
    use_precision("bf16", half)
    (f, penalty, gradients), (f16, penalty16, gradients16) = found(critic), found(half)
    assert f16.dtype == penalty16.dtype == torch.float32 and not torch.equal(f, f16)
    torch.testing.assert_close(f16, f, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(penalty16, penalty, rtol=0.1, atol=0.05 * penalty.max().item())
    assert gradients.keys() == gradients16.keys()
    for key, gradient in gradients.items():
        error = (gradients16[key] - gradient).norm() / (gradient.norm() + 1e-6 * f.abs().mean())
        assert gradients16[key].dtype == torch.float32 and error < 0.1, (key, error)


def test_the_inside_is_in_bf16_and_the_output_is_not():
    net = MixedSequential(nn.Linear(3, 5), nn.SiLU(), nn.Linear(5, 1), nn.Flatten(0))
    seen = []
    for layer in net:
        layer.register_forward_hook(lambda *of: seen.append(of[2].dtype))
    x = torch.randn(7, 3)
    plain = net(x)
    assert torch.equal(plain, nn.Sequential(*net)(x))
    set_inner_dtype(net, torch.bfloat16)
    seen.clear()
    half = net(x)
    assert seen == [torch.bfloat16] * 2 + [torch.float32] * 2
    assert not torch.equal(half.bfloat16().float(), half)
    assert torch.equal(copy.deepcopy(net)(x), half) and list(net.state_dict()) == list(
        nn.Sequential(*net).state_dict()
    )
    set_inner_dtype(net, None)
    assert torch.equal(net(x), plain)
    with torch.autocast("cpu", torch.bfloat16):
        assert net(x).dtype == torch.float32 and torch.equal(net(x), half)
    assert net.double()(x.double()).dtype == torch.float64


def test_float16_is_refused():
    with pytest.raises(ValueError, match=r"dtype must be torch.bfloat16 or None, got torch.float16"):
        set_inner_dtype(nn.Linear(1, 1), torch.float16)


def test_flows_inside_a_critic_stay_in_float32():
    critic, x = image_critic("tiny"), torch.rand(5, 1, 8, 8)
    half = copy.deepcopy(critic)
    use_precision("bf16", half)
    assert torch.equal(half.base(x), critic.base(x)) and not torch.equal(
        half.discriminate(x), critic.discriminate(x)
    )

    generator = image_generator("tiny").eval()
    half.adopt(generator)
    for told in (half.base, generator):  # the weights of one are buffers
        set_inner_dtype(told, torch.bfloat16)
    assert torch.equal(half.base(x), generator.log_prob(x))


# ---- runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["default", "tiny"])
@pytest.mark.parametrize("objective", ["led", "gan"])
def test_training_in_bf16_has_the_metrics_of_float32(preset, objective):
    found = []
    for precision in ("float32", "bf16"):
        trainer = trainer_of(preset, 8, objective, precision)
        found.append([trainer.step() for _ in range(8)])
        x = trainer.task.data(4, 1.0)
        averages = [trainer.average_critic(x), *trainer.average_generator.state_dict().values()]
        assert all(torch.isfinite(value).all() for value in averages)
        assert all(getattr(part, "inner_dtype", None) is None for part in trainer.average_critic.modules())
    assert found[0] != found[1]
    for full, half in zip(*found, strict=True):
        assert full == pytest.approx(half, rel=2e-2, abs=0.1)


def test_training_goes_on_bit_for_bit_in_bf16():
    whole, parts = (trainer_of("tiny", 8, precision="bf16") for _ in range(2))
    for _ in range(4):
        whole.step()
    state = copy.deepcopy(whole.state_dict())
    wanted = [whole.step() for _ in range(4)]
    parts.load_state_dict(state)
    assert [parts.step() for _ in range(4)] == wanted
    for a, b in zip(whole.critic.parameters(), parts.critic.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "noise.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (120, 8, 8), dtype=np.uint8))
    return path


@pytest.fixture(scope="module")
def begin(images, tmp_path_factory):
    """Trains tiny for three steps, with some options: its folder."""
    with pytest.MonkeyPatch.context() as patch:
        coarsen(patch.setattr)
        patch.setattr("led_fast.cli.train.write_report", lambda *_: None)

        def run(*options):
            folder = tmp_path_factory.mktemp("runs") / "run"
            arguments = ["train", images, "--preset", "tiny", "--steps", 3, "--out", folder, *options]
            assert run_led_fast(*arguments) == 0
            return folder

        yield run


@pytest.fixture(scope="module")
def bf16_run(begin):
    return begin("--precision", "bf16")


def test_a_run_keeps_its_precision(bf16_run, images, refuse):
    folder = bf16_run
    assert json.loads((folder / "config.json").read_text())["precision"] == "bf16"
    assert all(getattr(part, "inner_dtype", None) is None for part in load(folder).modules())
    again = ["train", images, "--preset", "tiny", "--out", folder, "--resume"]
    for options in ([], ["--precision", "auto"], ["--precision", "bf16"]):
        assert run_led_fast(*again, *options) == 0
    assert "was started with precision bf16, not float32" in refuse(*again, "--precision", "float32")


def test_auto_says_what_it_chose(begin, capsys):
    folder = begin("--precision", "auto")
    assert "precision: float32, on the CPU" in capsys.readouterr().out
    assert json.loads((folder / "config.json").read_text())["precision"] == "float32"


def test_penalties_on_images_are_not_trained_in_bf16(tmp_path, refuse):
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).integers(0, 256, (120, 32, 32), dtype=np.uint8))
    out = tmp_path / "run"
    arguments = ["train", tmp_path / "noise.npy", "--preset", "paper_mnist32", "--out", out, "--precision"]
    assert "a critic with a penalty" in refuse(*arguments, "bf16")
    assert not out.exists()


def test_configs_without_a_precision_are_of_float32():
    content = TrainConfig.of(open_source("ring")).to_json()
    del content["precision"]
    assert TrainConfig.from_json(content, "old").precision == "float32"
    with pytest.raises(InputError, match=r"old: .*\(precision: Invalid enum value 'fp8'\)"):
        TrainConfig.from_json(content | {"precision": "fp8"}, "old")


class Device:
    def __init__(self, *capability):
        self.capability = capability

    def get_device_capability(self, _):
        return self.capability

    def get_device_name(self, _):
        return "Tesla"


def test_what_a_gpu_is_good_for(monkeypatch):
    for capability, wanted in (((7, 5), "float32"), ((8, 0), "bf16"), ((12, 0), "bf16")):
        monkeypatch.setattr(torch, "get_device_module", lambda _, c=capability: Device(*c))
        assert automatic_precision(GPU, float32_only="") == wanted
        assert (
            automatic_precision(GPU, float32_only="a critic")
            == automatic_precision(CPU, float32_only="")
            == "float32"
        )
        check_precision(wanted, GPU, float32_only="")
        check_precision("bf16", CPU, float32_only="")
    monkeypatch.setattr(torch, "get_device_module", lambda _: Device(7, 5))
    with pytest.raises(InputError, match=r"8.0, got Tesla \(compute capability 7.5\)"):
        check_precision("bf16", GPU, float32_only="")
