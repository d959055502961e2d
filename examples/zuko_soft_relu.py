"""A zuko flow that bends by soft-ReLUs alone, on points along a wave: `python zuko_soft_relu.py`."""

import argparse
from pathlib import Path

import torch
import zuko
from matplotlib.figure import Figure
from rich.progress import track
from torch import Tensor

from led_fast import flows
from led_fast.flows.adapters import to_zuko

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=1500)
parser.add_argument("--out", type=Path, default=Path("soft_relu.png"))
options = parser.parse_args()
torch.manual_seed(0)


def wave(n: int) -> Tensor:
    """Points along a sine, with noise, (n, 2)."""
    x = 2.2 * (2 * torch.rand(n) - 1)
    return torch.stack([x, (2 * x).sin()], dim=1) + 0.1 * torch.randn(n, 2)


def flow(blocks: int) -> zuko.flows.Flow:
    """Linear maps with a soft-ReLU after each. They lead from data to latent values, as all transforms of zuko do."""
    layers = [flows.ActNorm(2), flows.Linear(2)]
    for _ in range(blocks):
        layers += [flows.SoftReLU(), flows.ActNorm(2), flows.Linear(2)]
    base = zuko.lazy.UnconditionalDistribution(
        zuko.distributions.DiagNormal, torch.zeros(2), torch.ones(2), buffer=True
    )
    return zuko.flows.Flow([to_zuko(layer) for layer in layers], base)


def train_and_test(name: str, model: zuko.flows.Flow, points: Tensor, held_out: Tensor) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    for _ in track(range(options.steps), description=name):
        loss = -model().log_prob(points[torch.randint(len(points), (256,))]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        likelihood = model().log_prob(held_out).mean()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{name}, {parameters} parameters: held-out log-likelihood {likelihood:.2f} nats a point")


constructors = {
    "linear maps alone": lambda: flow(0),
    "MAF of zuko": lambda: zuko.flows.MAF(2, transforms=3),
    "linear maps and soft-ReLUs": lambda: flow(16),
}
data, held_out, models = wave(4000), wave(4000), {}
for name, constructor in constructors.items():
    torch.manual_seed(1)
    models[name] = constructor()
    train_and_test(name, models[name], data, held_out)

axis = torch.linspace(-3, 3, 160)
grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=2)  # a transform takes any batch dimensions
figure = Figure(figsize=(9, 2.6), layout="constrained")
first, *others = figure.subplots(1, 4, sharex=True, sharey=True)
first.plot(*held_out[:1000].T.numpy(), ",", color="black")
first.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
first.set_title("data", fontsize=9)
for axes, (name, model) in zip(others, models.items(), strict=True):
    with torch.no_grad():
        axes.imshow(model().log_prob(grid).exp().numpy(), extent=(-3, 3, -3, 3), origin="lower", cmap="magma")
        axes.plot(*model().sample((300,)).T.numpy(), ",", color="white")
    axes.set_title(name, fontsize=9)
figure.savefig(options.out)
