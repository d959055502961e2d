"""Importance weights of a generator's images, without what float32 would make of their log densities."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from led_fast.density import DensityModel
from led_fast.density.latent import latent_bijection
from led_fast.flows import OneWayFlow
from led_fast.models import ImageCritic

Critic = Callable[[Tensor], Tensor]


def own_tilt(model: DensityModel) -> Critic | None:
    """The critic's net, where what it tilts is the density of the generator as it is; else None.

    After a calibration it is. The net is then the log-weight of the generator's images: the difference of both log
    densities says the same, but not where an image lies so far out that they are beyond 10⁸ nats. There rounding alone
    makes a wild weight.
    """
    critic = model.critic
    if not isinstance(critic, ImageCritic) or critic.tilted is None:
        return None
    theirs, ours = critic.tilted.state_dict(), model.generator.state_dict()
    same = theirs.keys() == ours.keys() and all(torch.equal(theirs[name], ours[name]) for name in ours)
    return critic.discriminate if same else None


class TiltedNoise(nn.Module):
    """`net(g(z)) + log N(z)`: a critic that tilts its own generator g, pulled back to the noise z that g draws.

    Args:
        net: see `own_tilt`.
        flow: g as a bijection, see `led_fast.density.latent.latent_bijection`.

    Shape:
        z: (B, D). Output: (B,), in nats.
    """

    def __init__(self, net: Critic, flow: OneWayFlow) -> None:
        super().__init__()
        self.net, self.flow = net, flow
        self.noise = OneWayFlow(flow.base, [])

    def forward(self, z: Tensor) -> Tensor:
        """Returns the log density at z, times α: the images' own, and log |det ∂g/∂z|."""
        return self.net(self.images(z)) + self.noise.log_prob(z)

    def images(self, z: Tensor) -> Tensor:
        """Returns g(z), (B, C, H, W)."""
        return self.flow(z)[0]


def tilted_noise(model: DensityModel) -> TiltedNoise | None:
    """A model in the coordinates of the noise; None without `own_tilt`, or where the generator drops coordinates."""
    net = own_tilt(model)
    flow = None if net is None else latent_bijection(model.generator)
    return None if net is None or flow is None else TiltedNoise(net, flow)


class OwnMeasure:
    """A flow as a proposal whose density counts as 1, for what a critic has besides that density."""

    def __init__(self, flow: OneWayFlow) -> None:
        self.flow = flow

    def rsample_and_log_prob(self, n: int) -> tuple[Tensor, Tensor]:
        """Draws n images, (n, C, H, W), with zeros, (n,)."""
        y = self.flow.sample(n)
        return y, y.new_zeros(n)


class StoredImages:
    """A flow as a proposal of images, with its density at what float32 has made of them.

    Close to white, float32 is coarse: there the density at the number that is stored, which a critic sees, may
    differ by nats from that at the number that was drawn. Weights of the one over the other would be a few wild
    ones among many good ones. A flow that cannot be inverted keeps what was drawn.

    The stored image may be far less dense than the drawn one, where other pixels were drawn by the one that was
    rounded. A critic that tilts the same flow, or one close to it, has lost as much there, and the weight is right;
    one that knows nothing of it makes a wild weight, and an estimate that is not reliable.
    """

    def __init__(self, flow: OneWayFlow) -> None:
        self.flow = flow

    def rsample_and_log_prob(self, n: int) -> tuple[Tensor, Tensor]:
        """Draws n images, (n, C, H, W), with their log densities, (n,)."""
        y, log_q = self.flow.rsample_and_log_prob(n)
        return y, self.flow.log_prob(y) if self.flow.invertible else log_q
