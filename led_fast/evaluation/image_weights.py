"""Importance weights of a generator's images, without what float32 would make of their log densities."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from led_fast.density import DensityModel
from led_fast.density.latent import latent_bijection
from led_fast.evaluation.in_parts import drawn_in_parts
from led_fast.flows import OneWayFlow
from led_fast.models import ImageCritic

Critic = Callable[[Tensor], Tensor]


class TiltedNoise(nn.Module):
    """`net(g(z)) + log N(z)`: a critic that tilts its own generator g, pulled back to the noise z that g draws.

    Args:
        net: see `DensityModel.own_tilt`.
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
    """A model in the coordinates of the noise; None without its own tilt, or where the generator drops coordinates."""
    net = model.own_tilt()
    flow = None if net is None else latent_bijection(model.generator)
    return None if net is None or flow is None else TiltedNoise(net, flow)


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
        return y, stored_log_prob(self.flow, y, log_q)


def stored_log_prob(flow: OneWayFlow, y: Tensor, log_q: Tensor) -> Tensor:
    """Log density of images y as they are stored, (n,); where the flow cannot be inverted, log_q as it was drawn."""
    return flow.log_prob(y) if flow.invertible else log_q


def log_q_error(model: DensityModel, samples: int) -> float | None:
    """Median over samples of log q as it is computed of a given image, less log q as it was drawn, in nats.

    Where weights are of the net alone, nothing else tells of an inverse that is wrong, and the likelihood is as wrong.
    The median is of the inverse rather than of float32, which rounds some images by nats, see `StoredImages`.

    Args:
        model: where its critic tilts a flow, the worse of two medians is taken: that flow's by the critic's log q,
            and the generator's by its own.
        samples: of each.

    Returns:
        None where neither can be inverted.
    """
    critic, medians = model.critic, []
    if isinstance(critic, ImageCritic) and (tilted := critic.tilted) is not None and tilted.invertible:
        medians.append(_median_error(tilted, _log_q_within(critic), samples))
    if model.generator.invertible:
        medians.append(_median_error(model.generator, model.generator.log_prob, samples))
    return max(medians, key=abs, default=None)


def _log_q_within(critic: ImageCritic) -> Critic:
    return lambda y: critic(y).double() - critic.discriminate(y)


def _median_error(flow: OneWayFlow, log_prob: Critic, samples: int) -> float:
    def errors(n: int) -> Tensor:
        y, drawn = flow.rsample_and_log_prob(n)
        return log_prob(y).double() - drawn

    return drawn_in_parts(errors, samples).nanmedian().item()
