"""How far bfloat16 inside the networks moves log q, f and log α, preset by preset.

`python precision_cases.py [--how critics|couplings|around] [PRESET …]` prints a table of docs/precision.md.
"""

import argparse
import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from led_fast.data import DataSource, open_source
from led_fast.data.images import ImageCollection, ImageSet, ImageSource
from led_fast.density import DensityModel, log_mean_exp
from led_fast.flows import OneWayFlow
from led_fast.kinds import images
from led_fast.kinds.images import task
from led_fast.kinds.points import PRESETS
from led_fast.models import IMAGE_PRESETS
from led_fast.nn import MixedSequential, set_inner_dtype
from led_fast.training import TrainConfig, Trainer
from led_fast.training.precision import use_precision

ALL = [*PRESETS, *IMAGE_PRESETS]
BATCH = 8
TILT = 5.0  # nats


@dataclass(frozen=True)
class Shift:
    """Mean, and largest size, of what bfloat16 adds to a value in nats."""

    bias: float
    largest: float

    @classmethod
    def of(cls, half: Tensor, full: Tensor) -> "Shift":
        error = half.double() - full.double()
        return cls(error.mean().item(), error.abs().max().item())


def blobs(shape: tuple[int, int, int], count: int = 128) -> ImageSource:
    """Smooth images of any shape."""
    generator = torch.Generator().manual_seed(0)
    coarse = 240 * torch.rand(count, shape[0], 4, 4, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=shape[1:], mode="bilinear").to(torch.uint8)
    return ImageSource("blobs", ImageCollection(ImageSet(images)))


def trainer_of(
    preset: str, steps: int, objective: str = "led", precision: str = "float32", cuda_graph: str = "off"
) -> Trainer:
    """A trainer of small batches, at its first step; of images without the calibration, which starts the net from 0."""
    changes = {"recipe.objective": objective, "precision": precision, "cuda_graph": cuda_graph}
    if preset in PRESETS:
        source: DataSource | ImageSource = open_source("ring")
    else:
        source, recipe = blobs(IMAGE_PRESETS[preset].shape), images.PRESETS[preset].recipe
        changes |= {
            "recipe.batches.data": BATCH,
            "recipe.batches.integral_samples": min(recipe.batches.integral_samples, BATCH),
            "recipe.batches.integrals": min(recipe.batches.integrals, BATCH),
            "recipe.batches.generated": BATCH,
            "recipe.warm_up": 0.5 * (recipe.warm_up > 0),
            "recipe.base": "first",
            "recipe.calibration.begin": 1.0,
        }
    return Trainer(TrainConfig.of(source, preset, steps=steps, changes=changes), source)


def trained(preset: str, steps: int) -> tuple[DensityModel, Tensor]:
    """Networks after a few steps of every stage, in float32, and data."""
    standardized, task._STANDARDIZED_BY = task._STANDARDIZED_BY, 128
    trainer = trainer_of(preset, steps)
    task._STANDARDIZED_BY = standardized
    for _ in range(steps):
        trainer.step()
    generator, critic = trainer.generator.eval(), trainer.critic.eval()
    model, x = DensityModel(critic, generator), trainer.task.data(32, 1.0)
    if trainer.task.tilts:  # whose net is as good as 0 so early
        with torch.no_grad():
            critic.net.net[-1].weight.mul_(TILT / critic.discriminate(x).abs().mean())
    return model, x


def critics(model: DensityModel) -> AbstractContextManager:
    """What `--precision bf16` trains with."""
    use_precision("bf16", model)
    return nullcontext()


def couplings(model: DensityModel) -> AbstractContextManager:
    """The networks inside flows as well."""
    set_inner_dtype(model, torch.bfloat16)
    return nullcontext()


def around(model: DensityModel) -> AbstractContextManager:
    """A caller's own autocast around everything."""
    return torch.autocast(next(model.parameters()).device.type, torch.bfloat16)


WAYS = {way.__name__: way for way in (critics, couplings, around)}


@torch.no_grad()
def measure(
    model: DensityModel, x: Tensor, how: Callable[[DensityModel], AbstractContextManager], n: int = 64
) -> dict[str, Shift]:
    """What a way to compute in bfloat16 does to each log density."""
    half = copy.deepcopy(model)

    def values(model: DensityModel) -> dict[str, Tensor]:
        torch.manual_seed(7)
        y, log_q = model.generator.rsample_and_log_prob(n)
        found = {"log q, same noise": log_q, "f, data": model.critic(x)}
        if model.generator.invertible:
            found["log q, data"] = model.generator.log_prob(x)
        found["log α"] = log_mean_exp(model.critic(y) - log_q)[None]
        return found

    full = values(model)
    with how(half):
        bf16 = values(half)
        own = bent(half.generator) if half.generator.invertible else None
        if own is not None:
            t, log_q = own.rsample_and_log_prob(n)
    found = {name: Shift.of(bf16[name], full[name]) for name in full}
    if own is not None:  # at its own samples the mean is the divergence of the two densities
        found["log q, own samples"] = Shift.of(log_q, bent(model.generator).log_prob(t))
    return found


@torch.no_grad()
def size(model: DensityModel, x: Tensor) -> float:
    """Mean of what a critic's network adds up at data, in nats: the size of its output, and its penalty."""
    found = []
    body = next(part for part in model.critic.modules() if isinstance(part, MixedSequential))
    hook = body.register_forward_hook(lambda *of: found.append(of[2]))
    model.critic(x)
    hook.remove()
    value, penalty = found[0] if isinstance(found[0], tuple) else (found[0], 0.0)
    return (value.flatten().abs() + penalty).mean().item()


def bent(flow: OneWayFlow) -> OneWayFlow:
    """A flow short of the last layer, a sigmoid, of whose values near 1 float32 has few."""
    layers = list(flow.layers)
    return OneWayFlow(flow.base, layers[:-1] if type(layers[-1]).__name__ == "Sigmoid" else layers)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("presets", nargs="*", default=ALL)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--how", choices=list(WAYS), default="critics")
    arguments = parser.parse_args()
    columns = ["log q, data", "log q, own samples", "log q, same noise", "f, data", "log α"]
    print("| preset | net |", " | ".join(columns), "|\n|---|" + "---|" * (len(columns) + 1))
    for preset in arguments.presets:
        model, x = trained(preset, arguments.steps)
        found = measure(model, x, WAYS[arguments.how])
        cells = [f"{s.bias:+.4f}, {s.largest:.4f}" if (s := found.get(name)) else "–" for name in columns]
        print(f"| {preset} | {size(model, x):.0f} |", " | ".join(cells), "|", flush=True)
