"""Integral samples: from the generator, made to cover all space by a broad second component (App. B.3)."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from led_fast.flows import DiagonalNormal, OneWayFlow, ScoredSample
from led_fast.ops import mixture_log_prob


class Proposal(Protocol):
    """Anything that draws samples and knows their density, e.g. a `OneWayFlow` or a base distribution."""

    def rsample_and_log_prob(self, n: int) -> tuple[Tensor, Tensor]:
        """Draws n samples: (y of shape (n, ...), log_q of shape (n,))."""
        ...


class OwnMeasure:
    """A flow as a proposal whose density counts as 1: for what a critic has besides that density.

    Args:
        flow: draws samples.
    """

    def __init__(self, flow: OneWayFlow) -> None:
        self.flow = flow

    def rsample_and_log_prob(self, n: int) -> tuple[Tensor, Tensor]:
        """Draws n samples, (n, ...), with zeros, (n,)."""
        y = self.flow.sample(n)
        return y, y.new_zeros(n)


class ProposalDraw(NamedTuple):
    """Proposals y, (n, ...), log_q, (n,), with `E[mean N(y) / exp(log_q)] = α`, and the balance's loss."""

    y: Tensor
    log_q: Tensor
    balance_loss: Tensor | None


class KernelProposal(nn.Module):
    """Data points blurred by normal kernels of several widths, mixed with a broad density.

    It finds the data's modes before the generator does, at every scale that the widths span. Built anew from
    each data batch (`proposal.broad = KernelProposal(...)`); its density is that of the batch's mixture,
    exactly.

    Args:
        points: data, (m, D).
        widths: standard deviations of the kernels, (w,), equally likely.
        broad: density with support everywhere.
        broad_share: its probability.

    Example:
        >>> import torch
        >>> from led_fast import density, flows
        >>> broad = flows.DiagonalNormal(torch.zeros(2), 3.0)
        >>> proposal = density.KernelProposal(torch.randn(100, 2), torch.tensor([0.1, 0.3]), broad)
        >>> y, log_q = proposal.rsample_and_log_prob(64)
    """

    points: Tensor
    widths: Tensor

    def __init__(
        self, points: Tensor, widths: Tensor, broad: DiagonalNormal, broad_share: float = 0.2
    ) -> None:
        if not 0 < broad_share < 1:
            raise ValueError(f"KernelProposal: broad_share must lie in (0, 1), got {broad_share}")
        super().__init__()
        self.register_buffer("points", points, persistent=False)
        self.register_buffer("widths", widths, persistent=False)
        self.broad = broad
        self.broad_share = broad_share

    def rsample_and_log_prob(self, n: int) -> tuple[Tensor, Tensor]:
        """Draws n samples: (y of shape (n, D), log_q of shape (n,))."""
        device = self.points.device
        point = self.points[torch.randint(len(self.points), (n,), device=device)]
        width = self.widths[torch.randint(len(self.widths), (n, 1), device=device)]
        blurred = point + width * torch.randn_like(point)
        from_broad = torch.rand(n, 1, device=device) < self.broad_share
        y = torch.where(from_broad, self.broad.rsample(n), blurred)
        return y, self.log_prob(y)

    def log_prob(self, y: Tensor) -> Tensor:
        """Log density at y of shape (n, D): (n,)."""
        kernels, dim = len(self.points) * len(self.widths), y.shape[1]
        widths = self.widths[:, None, None].expand(-1, len(self.points), dim).reshape(kernels, dim)
        means = torch.cat([self.points.repeat(len(self.widths), 1), self.broad.mean[None]])
        scales = torch.cat([widths, self.broad.scale[None]])
        log_weights = means.new_full((kernels + 1,), math.log1p(-self.broad_share) - math.log(kernels))
        log_weights[-1] = math.log(self.broad_share)
        return mixture_log_prob(y, means, scales.log(), log_weights)


class CoveringProposal(nn.Module):
    """Generator samples, a share ε of them replaced by draws from a broad density (App. B.3).

    The density of the mixture at the broad draws would take an inverse of the generator, which need not have one.
    So each component keeps its own density and a balance π_q(y) + π_b(y) = 1 splits the integral between the
    two,

        α = E_q[π_q(y) N(y) / q(y)] + E_b[π_b(y) N(y) / b(y)],

    which holds for any π that depends on y alone. With none given, π_b = ε everywhere: each sample is
    weighted by its own component's density. A classifier trained to tell the components apart
    (`balance_loss`) approaches the balance heuristic, `π_q ∝ (1 - ε) q(y)`: it silences the generator's vote
    where the generator hardly samples.

    Args:
        generator: proposal that learns; drawn without gradients here.
        broad: proposal with support everywhere, e.g. `led_fast.flows.DiagonalNormal`.
        epsilon: ε in (0, 1), the expected share of broad draws.
        balance: module `y -> logit of π_q(y)`, (n, ...) -> (n,). None: the constant balance.

    Example:
        >>> import torch
        >>> from led_fast import density, flows
        >>> generator = flows.OneWayFlow(flows.StandardNormal(2), [flows.Linear(2)])
        >>> broad = flows.DiagonalNormal(torch.zeros(2), 3.0)
        >>> draw = density.CoveringProposal(generator, broad, epsilon=0.3).propose(64)
        >>> draw.y.shape, draw.log_q.shape
        (torch.Size([64, 2]), torch.Size([64]))
    """

    def __init__(
        self, generator: Proposal, broad: Proposal, epsilon: float, balance: nn.Module | None = None
    ) -> None:
        super().__init__()
        if not 0 < epsilon < 1:
            raise ValueError(f"CoveringProposal: epsilon must lie in (0, 1), got {epsilon}")
        self.generator = generator
        self.broad = broad
        self.epsilon = epsilon
        self.balance = balance

    def propose(self, n: int, drawn: ScoredSample | None = None) -> ProposalDraw:
        """Draws n proposals; only `balance_loss` carries gradients, to the balance's parameters.

        Args:
            n: how many.
            drawn: samples of the generator to take instead of fresh ones, at least `most_generated(n)`.
        """
        # ε n rounded up or down at random: the mean is exact for any n, n = 1 included.
        from_broad = min(n, int(self.epsilon * n + torch.rand((), device="cpu").item()))
        generated = n - from_broad
        with torch.no_grad():
            if drawn is None:
                of_generator = self.generator.rsample_and_log_prob(generated)
            else:
                of_generator = drawn.y[:generated].detach(), drawn.log_q[:generated].detach()
            parts = [of_generator, self.broad.rsample_and_log_prob(from_broad)]
        y, log_q = (torch.cat(pair) for pair in zip(*parts, strict=True))
        if self.balance is None:
            return ProposalDraw(y, log_q, None)
        logits = self.balance(y)
        broad_label = torch.arange(n, device=y.device) >= generated
        loss = F.binary_cross_entropy_with_logits(logits, (~broad_label).to(logits.dtype))
        # The share of proposals from y's component, over the component's share of the integral at y.
        own_logit = torch.where(broad_label, -logits, logits).detach()
        share = torch.where(broad_label, self.epsilon, 1 - self.epsilon).to(log_q.dtype)
        return ProposalDraw(y, log_q + share.log() - F.logsigmoid(own_logit), loss)

    def most_generated(self, n: int) -> int:
        """How many of n proposals the generator draws at most."""
        return n - int(self.epsilon * n)

    def rsample_and_log_prob(self, n: int) -> tuple[Tensor, Tensor]:
        """Draws n proposals without gradients: (y, log_q)."""
        draw = self.propose(n)
        return draw.y, draw.log_q
