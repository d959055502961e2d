# %% [markdown]
# # Normalisers that can be trusted
#
# What fools importance sampling, seen. `α = ∫ exp f` of a critic f is estimated by the mean of weights `exp(f(y)
# - log q(y))` at draws y of a density q. Each critic here is a density whose log α we know to be 0, so that every
# error shows.

# %%
import math
import os

import torch
from matplotlib import pyplot as plt
from torch.distributions import Normal

from led_fast import density, flows

repeats = 20 if "QUICK" in os.environ else 2000
torch.manual_seed(0)


def humps(*centers):
    """The log density of normal humps along x, of equal mass: (n, 2) -> (n,)."""

    def log_prob(y):
        parts = [Normal(torch.tensor([c, 0.0]), 1.0).log_prob(y).sum(1) for c in centers]
        return torch.stack(parts).logsumexp(0) - math.log(len(centers))

    return log_prob


def normal(scale, x=0.0):
    return flows.DiagonalNormal(torch.tensor([x, 0.0]), torch.full((2,), scale))


def log_weights(critic, proposal, n):
    with torch.no_grad():
        y, log_q = proposal.rsample_and_log_prob(n)
        return critic(y) - log_q


# %% [markdown]
# ## 1. The estimate is too small on average, and flatters
#
# The mean weight has no bias, but its *logarithm* has: rare large weights are missed more often than met. The
# likelihood `f - log α` then looks better than it is. The bias goes with the weights' variance over S.

# %%
sizes = [4, 16, 64, 256, 1024, 4096]
figure, panel = plt.subplots(figsize=(5, 3), layout="constrained")
for scale in (4.0, 2.0, 0.6):
    estimates = [
        [density.log_mean_exp(log_weights(humps(0.0), normal(scale), s)).item() for _ in range(repeats)]
        for s in sizes
    ]
    mean = torch.tensor(estimates).mean(1)
    panel.semilogx(sizes, mean, "o-", label=f"proposal {scale} times as wide")
    print(
        f"proposal {scale} times as wide as the critic: "
        f"mean estimate {mean[0]:+.3f} from 4 draws, {mean[-1]:+.3f} from 4096"
    )
panel.axhline(0, color="black", linewidth=0.8)
panel.set(xlabel="draws S", ylabel="mean estimate of log α / nats", title="truth: 0")
panel.legend(fontsize=8)

# %% [markdown]
# ## 2. A narrow proposal has weights without a variance
#
# Where q is narrower than the critic, weights have a heavy tail. Its shape k̂ tells: above 0.5 the variance is
# infinite, above 0.7 no practical number of draws will do. The spread of the batches, by itself, looks harmless.

# %%
for scale in (1.2, 0.9, 0.6, 0.45):
    estimate = density.estimate_log_normalizer(humps(0.0), normal(scale), samples=20_000)
    low, high = estimate.ci95
    print(
        f"{scale} times as wide: {estimate.value:+.3f}, interval {low:+.3f} to {high:+.3f}, "
        f"k̂ {estimate.pareto_k:+.2f}, {'reliable' if estimate.reliable else estimate.reason}"
    )

# %% [markdown]
# ## 3. A dropped mode leaves no trace in the weights
#
# The critic has two humps, the proposal draws one of them. Half of α is missing, and every diagnostic is
# spotless. This is what a generator with mode collapse does to an importance-sampled likelihood.

# %%
two = humps(-4.0, 4.0)
blind, broad = normal(1.1, x=-4.0), normal(5.0)
witnesses = {
    "the generator": density.Witness(density.estimate_log_normalizer(two, blind), "where it never draws"),
    "a broad proposal": density.Witness(density.estimate_log_normalizer(two, broad), "far away"),
    "quadrature": density.exactly(density.quadrature_log_normalizer(two, (-12.0, -12.0), (12.0, 12.0))),
}
for name, witness in witnesses.items():
    estimate = witness.estimate
    print(f"{name:17} {estimate.value:+.3f}  reliable by its own diagnostics: {estimate.reliable}")

figure, panels = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for panel, (name, proposal) in zip(panels, {"draws one hump": blind, "broad": broad}.items(), strict=True):
    weights = log_weights(two, proposal, 20_000)
    panel.hist(weights.clamp(min=-12), 60, density=True)
    panel.axvline(0, color="black", linewidth=0.8)
    panel.set(xlabel="log weight", title=f"{name}: log α = {density.log_mean_exp(weights):+.2f}")

# %% [markdown]
# The weights on the left are the tidier ones, and wrong by log 2.
#
# ## 4. So one estimate never decides
#
# `judge` takes a claim and its witnesses. It believes the claim where two kinds of estimate agree that do not
# share a blind spot, or an exact one.

# %%
alone = density.judge("the generator", {"the generator": witnesses["the generator"]})
print("alone:", alone.reliable, "-", alone.reason)
together = density.judge("the generator", {n: w for n, w in witnesses.items() if n != "quadrature"})
print("with a broad proposal:", together.reliable, "-", together.reason)

# %% [markdown]
# ## 5. Two more, where there is no quadrature
#
# **Annealing** walks from the proposal to the critic, and back from samples of the critic: a stochastic lower and
# upper bound. From the blind proposal few chains ever reach the other hump, or none: the interval may be as
# blind. **Bounded weights** hide nothing: if `f - log q` cannot exceed a cap, an interval holds for *any* weights
# below it.

# %%
for name, proposal in {"the one hump": blind, "the broad one": broad}.items():
    flow = flows.OneWayFlow(proposal, [])
    bracket = density.annealed_log_normalizer(two, flow, temperatures=50, chains=400)
    print(f"annealed from {name}: {bracket.forward.value:+.3f} ± {2 * bracket.forward.standard_error:.3f}")

cap = log_weights(two, broad, 200_000).max().item() + 0.1  # here we see it; a capped network guarantees it
bounded = density.estimate_bounded_log_normalizer(two, broad, cap=cap)
print(
    f"bounded: {bounded.value:+.3f}, "
    f"between {bounded.bound95[0]:+.3f} and {bounded.bound95[1]:+.3f} whatever the weights"
)

# %% [markdown]
# ## What to take along
#
# 1. An importance-sampled likelihood without its effective sample size, k̂ and a second kind of estimate is no
#    likelihood.
# 2. Small variance is no evidence of a small error.
# 3. `led-fast evaluate` does all of this, and says UNRELIABLE where it must: [Believe a
#    likelihood](../tours/believe.md). [Figure 7](../results.md) shows number 3 in a training run, with k̂ =
#    0.31 and an error of 17 nats.
