# %% [markdown]
# # An operator's gradient and second derivative in a score model
#
# Score matching (Hyvärinen 2005) fits an energy without its normaliser: the loss holds the gradient of f *and*
# its Laplacian, and training differentiates both once more. So an operator must have derivatives of any order, in
# forward and reverse mode. Here f is a mixture of normals by `mixture_log_prob`, whose likelihood we know as
# well, to compare.

# %%
import os

import torch
from matplotlib import pyplot as plt
from torch.func import functional_call, grad, hessian, jvp, vmap

import led_fast

steps = 20 if "QUICK" in os.environ else 1500
torch.manual_seed(0)

angle = 6.2832 * torch.rand(4000)
data = torch.stack([2 * angle.cos(), 2 * angle.sin()], 1) + 0.25 * torch.randn(4000, 2)


class Energy(torch.nn.Module):
    """f(x), a mixture of K normals of the plane, up to a constant: (B, 2) -> (B,)."""

    def __init__(self, components):
        super().__init__()
        self.means = torch.nn.Parameter(data[:components].clone())
        self.log_scales = torch.nn.Parameter(torch.full((components, 2), -0.5))
        self.log_weights = torch.nn.Parameter(torch.zeros(components))

    def forward(self, x):
        return led_fast.mixture_log_prob(x, self.means, self.log_scales, self.log_weights)


energy = Energy(24)

# %% [markdown]
# ## Three ways to a derivative
#
# Reverse mode, `torch.func`, and where there is one the operator's own: they agree.

# %%
x = data[:5].clone().requires_grad_()
(by_autograd,) = torch.autograd.grad(energy(x).sum(), x)
parameters = dict(energy.named_parameters())


def f(parameters, point):  # of one point, for torch.func
    return functional_call(energy, parameters, (point[None],))[0]


by_func = vmap(grad(f, argnums=1), (None, 0))(parameters, x)
_, own = led_fast.mixture_log_prob_and_score(x, *energy.parameters())
print(
    "largest difference:", (by_autograd - by_func).abs().max().item(), (by_autograd - own).abs().max().item()
)

# %% [markdown]
# The Laplacian is the trace of the Hessian. In D dimensions forward mode over the gradient takes D directional
# derivatives, and no D×D matrix of each point is kept:


# %%
def score_and_laplacian(parameters, x):
    """∇f, (B, D), and the trace of its Jacobian, (B,)."""

    def score(points):
        return torch.func.vjp(lambda p: functional_call(energy, parameters, (p,)), points)[1](
            torch.ones(len(points))
        )[0]

    laplacian = 0.0
    for direction in torch.eye(x.shape[1]):
        value, change = jvp(score, (x,), (direction.expand_as(x),))
        laplacian = laplacian + change @ direction
    return value, laplacian


_, laplacian = score_and_laplacian(parameters, x.detach())
full = vmap(hessian(f, argnums=1), (None, 0))(parameters, x.detach())
print(
    "Laplacian:",
    laplacian.detach()[:3].numpy(),
    "trace of the Hessian:",
    full.diagonal(0, 1, 2).sum(1)[:3].detach().numpy(),
)

# %% [markdown]
# ## Training differentiates it once more
#
# The loss is `½ ‖∇f‖² + tr ∇²f` at the data; `backward` runs through both. Adding noise of a small width to the
# data keeps the loss from rewarding needles. Components start at data points: score matching cannot tell how much
# mass a lonely component should have, so that one far from all data would stay.

# %%
optimizer = torch.optim.Adam(energy.parameters(), lr=1e-2)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
history = []
for _ in range(steps):
    batch = data[torch.randint(len(data), (256,))]
    value, laplacian = score_and_laplacian(
        dict(energy.named_parameters()), batch + 0.1 * torch.randn_like(batch)
    )
    loss = (0.5 * value.square().sum(1) + laplacian).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    history.append(loss.item())
log_alpha = energy.log_weights.logsumexp(0)  # known for a mixture: otherwise see the tutorial on normalisers
with torch.no_grad():
    likelihood = (energy(data) - log_alpha).mean()
print(f"loss {history[0]:.2f} -> {history[-1]:.2f}; log likelihood {likelihood:.3f} nats a point")

# %%
axis = torch.linspace(-3.5, 3.5, 120)
grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), 2).view(-1, 2)
coarse = grid.view(120, 120, 2)[::8, ::8].reshape(-1, 2)
with torch.no_grad():
    density = (energy(grid) - log_alpha).exp().view(120, 120)
    _, arrows = led_fast.mixture_log_prob_and_score(coarse, *energy.parameters())
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
left.plot(history, linewidth=0.6)
left.set(xlabel="step", title="score-matching loss")
right.imshow(density, extent=(-3.5, 3.5, -3.5, 3.5), origin="lower", cmap="magma")
length = arrows.norm(dim=1, keepdim=True)
right.quiver(*coarse.T, *(arrows / length * length.clamp(max=4)).T, color="white", scale=60, width=0.003)
right.set_title("density, and its score")

# %% [markdown]
# [Transforms](../transforms.md) lists what works with every operator and layer; `with
# led_fast.ops.use_reference():` runs the same by plain PyTorch.
