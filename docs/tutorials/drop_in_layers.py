# %% [markdown]
# # Drop-in layers in normflows and zuko
#
# Two flows by other libraries, each with a layer of ours where one of theirs was, on the same points of the
# plane. [Other libraries' flows](../interop.md) has the table of which way is forward, and larger examples.

# %%
import os

import normflows
import torch
import zuko
from matplotlib import pyplot as plt

from led_fast import flows
from led_fast.flows.adapters import to_zuko
from led_fast.nn import SoftReLU

steps = 20 if "QUICK" in os.environ else 1500
torch.manual_seed(0)


def crescent(n):
    """Points on a bent band, (n, 2)."""
    x = torch.randn(n)
    return torch.stack([x, x.square() - 1 + 0.3 * torch.randn(n)], 1)


data, held_out = crescent(4000), crescent(4000)


def train(parameters, log_prob, lr=5e-3):
    """Maximum likelihood; returns that of held-out points, in nats."""
    optimizer = torch.optim.Adam(parameters, lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        loss = -log_prob(data[torch.randint(len(data), (256,))]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return log_prob(held_out).mean().item()


# %% [markdown]
# ## normflows takes our layers as they are
#
# A layer of normflows has `forward` and `inverse`, each with the log-determinant of that way; so have ours.
# normflows counts from latent values to data. A learned `SoftReLU` is cheap in its `forward`, so `Reverse` turns
# it: then the likelihood runs `forward`, and drawing its inverse.


# %%
def in_normflows(bend):
    layers = []
    for _ in range(8):
        layers += [flows.Linear(2)]
        if bend:
            layers += [normflows.flows.Reverse(SoftReLU(features=2, learned=True))]
    base = normflows.distributions.DiagGaussian(2)
    return normflows.NormalizingFlow(base, [*layers, flows.Linear(2)])


found = {}
for name, bend in {"normflows: linear maps": False, "normflows: with SoftReLU": True}.items():
    torch.manual_seed(1)
    model = in_normflows(bend)
    found[name] = model, train(model.parameters(), model.log_prob)
    print(f"{name:26} {found[name][1]:.3f} nats a point")

# %% [markdown]
# ## zuko, through one call
#
# zuko's transforms lead from data to latent values, and work on any batch dimensions: `to_zuko` wraps a layer.


# %%
def in_zuko(layers):
    base = zuko.lazy.UnconditionalDistribution(
        zuko.distributions.DiagNormal, torch.zeros(2), torch.ones(2), buffer=True
    )
    return zuko.flows.Flow([to_zuko(layer) for layer in layers], base)


bends = [layer for _ in range(8) for layer in (SoftReLU(features=2, learned=True), flows.Linear(2))]
for name, make in {
    "zuko: its masked flow": lambda: zuko.flows.MAF(2, transforms=3),
    "zuko: with SoftReLU": lambda: in_zuko([flows.ActNorm(2), flows.Linear(2), *bends]),
}.items():
    torch.manual_seed(1)
    model = make()
    found[name] = model, train(model.parameters(), lambda x, flow=model: flow().log_prob(x))
    count = sum(p.numel() for p in model.parameters())
    print(f"{name:26} {found[name][1]:.3f} nats a point, {count} parameters")

# %% [markdown]
# ## What they learned

# %%
axis = torch.linspace(-4, 4, 120)
grid = torch.stack(torch.meshgrid(axis, axis + 1, indexing="xy"), 2).view(-1, 2)
figure, panels = plt.subplots(1, 4, figsize=(10, 2.8), sharex=True, sharey=True, layout="constrained")
for panel, (name, (model, value)) in zip(panels, found.items(), strict=True):
    with torch.no_grad():
        log_prob = model.log_prob(grid) if "normflows" in name else model().log_prob(grid)
    panel.imshow(log_prob.exp().view(120, 120), extent=(-4, 4, -3, 5), origin="lower", cmap="magma")
    panel.plot(*held_out[:300].T, ",", color="white")
    panel.set(xlim=(-4, 4), ylim=(-3, 5))
    panel.set_title(f"{name}\n{value:.2f} nats", fontsize=9)

# %% [markdown]
# The same layers would go into `nflows` by `to_nflows`, and layers of normflows and nflows run in a
# `flows.OneWayFlow` as they are.
