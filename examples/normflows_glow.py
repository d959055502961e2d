"""Glow of normflows with circular convolutions for its 1x1 ones, on pictures of discs: `python normflows_glow.py`."""

import argparse
from pathlib import Path

import normflows
import torch
from matplotlib.figure import Figure
from rich.progress import track
from torch import Tensor

from led_fast.nn import CircularConv2d

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=700)
parser.add_argument("--out", type=Path, default=Path("glow.png"))
options = parser.parse_args()
torch.manual_seed(0)


def discs(n: int, size: int = 16) -> Tensor:
    """Pictures of one disc each on a gradient, with noise: (n, 1, size, size)."""
    x, y, radius, slope_x, slope_y = torch.rand(5, n, 1, 1)
    columns, rows = torch.linspace(0, 1, size), torch.linspace(0, 1, size)[:, None]
    distance = ((columns - 0.2 - 0.6 * x).square() + (rows - 0.2 - 0.6 * y).square()).sqrt()
    disc = torch.sigmoid(40 * (0.1 + 0.2 * radius - distance))
    background = (slope_x - 0.5) * columns + (slope_y - 0.5) * rows
    return (disc + background + 0.05 * torch.randn(n, size, size))[:, None]


def glow(
    kernel_size: int | None, levels: int = 2, depth: int = 4, width: int = 24
) -> normflows.MultiscaleFlow:
    """Glow of 16x16 pictures; its own 1x1 convolutions stay where no size is given."""
    flows, bases = [], []
    for level in range(levels, 0, -1):  # normflows counts from the latent values to the picture
        channels = 2 ** (level + 1)
        blocks = [
            normflows.flows.GlowBlock(channels, width, scale_map="exp", use_lu=False) for _ in range(depth)
        ]
        if kernel_size is not None:
            for block in blocks:  # turned, so that likelihood runs the convolution and drawing solves for it
                block.flows[1] = normflows.flows.Reverse(CircularConv2d(channels, kernel_size))
        flows.append([*blocks, normflows.flows.Squeeze()])
        latent = channels if level == levels else channels // 2
        bases.append(normflows.distributions.DiagGaussian((latent, 16 >> level, 16 >> level)))
    merges = [normflows.flows.Merge() for _ in flows[1:]]
    return normflows.MultiscaleFlow(bases, flows, merges, class_cond=False)


train, test = discs(4000), discs(1000)
pictures = {"data": test[:20]}
for name, kernel_size in {"1x1 convolutions of normflows": None, "3x3 CircularConv2d": 3}.items():
    torch.manual_seed(1)
    model = glow(kernel_size)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    for _ in track(range(options.steps), description=name):
        loss = model.forward_kld(train[torch.randint(len(train), (64,))])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 50.0)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        print(f"{name}: held-out log-likelihood {model.log_prob(test, None).mean() / 256:.3f} nats a pixel")
        pictures[name] = model.sample(20)[0]

figure = Figure(figsize=(9, 3.2), layout="constrained")
for axes, (name, images) in zip(figure.subplots(1, 3), pictures.items(), strict=True):
    tiled = images.view(4, 5, 16, 16).transpose(1, 2).reshape(64, 80)
    axes.imshow(tiled.numpy(), cmap="gray", vmin=-0.5, vmax=1.5)
    axes.set_title(name, fontsize=10)
    axes.axis("off")
figure.savefig(options.out)
