"""A one-way flow of your own, trained with LED's objectives on points along a spiral: `python custom_flow.py`."""

import argparse
from pathlib import Path

import torch
from rich.progress import track

from led_fast import density, figures, flows, models

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=1500)
parser.add_argument("--out", type=Path, default=Path("spiral.png"))
options = parser.parse_args()
torch.manual_seed(0)

radius = 2 * torch.rand(2000, 1).sqrt()
data = radius * torch.cat([(3 * radius).cos(), (3 * radius).sin()], dim=1) + 0.1 * torch.randn(2000, 2)

base = flows.MixtureBase(2, components=32, scale=0.3)
blocks = [layer for _ in range(3) for layer in (flows.Linear(2), flows.Staircase(2), flows.SoftReLU())]
generator = flows.OneWayFlow(base, [*blocks, flows.Linear(2)])
critic = models.points_critic(models.PointsCriticConfig(width=64, directions=64, highest=8.0))
broad = flows.DiagonalNormal(torch.zeros(2), 1.5)  # so that the integral covers the plane (App. B.3)
proposal = density.CoveringProposal(generator, broad, epsilon=0.3, balance=models.points_balance())

critic_optimizer = torch.optim.Adam([*critic.parameters(), *proposal.balance.parameters()], lr=1e-3)
generator_optimizer = torch.optim.Adam(generator.parameters(), lr=3e-3)


def descend(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


for _ in track(range(options.steps), description="training"):
    x, draw = data[torch.randint(len(data), (256,))], proposal.propose(256)
    likelihood = density.critic_loss(critic(x), critic(draw.y), draw.log_q)  # Eq. 3
    descend(likelihood + draw.balance_loss, critic_optimizer)
    sample = generator.rsample_with_score(256)
    descend(density.mixed_kl_loss(critic(sample.y), sample), generator_optimizer)  # Eq. 5, both ways

log_alpha = density.estimate_log_normalizer(critic, generator)
print(f"log α = {log_alpha.value:.3f}, 95 % interval {log_alpha.ci95[0]:.3f} to {log_alpha.ci95[1]:.3f}")
print("reliable" if log_alpha.reliable else f"not reliable: {log_alpha.reason}")
model = density.DensityModel(critic, generator)
model.set_log_normalizer(log_alpha.value)
draws = {"generator": model.sample(2000), "refined": model.sample(2000, refine=True)}
figures.density_figure(options.out, model.log_prob, None, data, draws)
