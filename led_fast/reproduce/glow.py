"""Glow (Kingma and Dhariwal 2018), built from the layers of normflows, as a density of images."""

from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from led_fast.models.image_generator import LastMapName, build_last_map

_LARGEST_LOG_SCALE = 2.0


def available() -> bool:
    """Whether normflows, which has Glow's layers, is installed (`pip install "led_fast[flow]"`)."""
    return find_spec("normflows") is not None


@dataclass(frozen=True)
class GlowConfig:
    """One run of Glow by maximum likelihood.

    Attributes:
        data: where the images are.
        data_fingerprint: of their content.
        seed: of weights, data and noise.
        steps: of Adam.
        minutes: what the steps are to be counted from, where a duration is asked for.
        shape: of an image, (C, H, W); `levels` squeezes halve H and W.
        levels: of the multi-scale architecture; after each but the last one half of the channels is split off.
        depth: flow steps (activation norm, 1x1 convolution, affine coupling) of each level.
        width: channels of the two hidden layers of the network in a coupling.
        batch_size: images a step.
        learning_rate: of Adam, before it decays.
        decay_from: share of the run after which the rate follows a half cosine to its end.
        decay_to: what is left of it there.
        gradient_clip: largest norm of the gradient.
        ema: decay of the running average of the weights, which makes the model.
        last_map: into the box, as our generators have it.
    """

    data: str
    data_fingerprint: str
    seed: int
    steps: int
    minutes: float | None
    shape: tuple[int, ...]
    levels: int = 3
    depth: int = 4
    width: int = 32
    batch_size: int = 64
    learning_rate: float = 1e-2
    decay_from: float = 0.3
    decay_to: float = 0.02
    gradient_clip: float = 100.0
    ema: float = 0.995
    last_map: LastMapName = "sigmoid"

    def to_json(self) -> dict[str, Any]:
        """The config as JSON values."""
        return asdict(self)


class Glow(nn.Module):
    """A density of images in the box [0, 1], which all of its samples lie in.

    Glow itself is on logits of pixels, or on what another last map makes of them, without the squash towards ½
    that some put before logits: dequantised images have no pixel at 0 or 1, and black ones would be squashed
    into a spike. Two things differ from the paper. A coupling's scale is exp of a bounded value, where the
    paper has a sigmoid, by which one divides to draw: some samples would overflow. What is split off is normal
    with a mean and a deviation for each of its coordinates, as normflows has it; in the paper these depend on
    what is not split off.

    Args:
        config: `shape` and the sizes are used.
    """

    def __init__(self, config: GlowConfig) -> None:
        super().__init__()
        from normflows import MultiscaleFlow
        from normflows.distributions import DiagGaussian
        from normflows.flows import Merge, Squeeze

        channels, height, width = config.shape
        bases, levels = [], []
        for level in range(config.levels, 0, -1):  # normflows counts from the latent values to the image
            squeezed = channels * 2 ** (level + 1)
            levels.append([*(_block(squeezed, config.width) for _ in range(config.depth)), Squeeze()])
            latent = squeezed if level == config.levels else squeezed // 2
            bases.append(DiagGaussian((latent, height >> level, width >> level)))
        merges = [Merge() for _ in bases[1:]]
        self.flow = MultiscaleFlow(bases, levels, merges, class_cond=False)
        self.to_box = build_last_map(config.last_map)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density of images, (B, C, H, W) -> (B,), in nats; the first batch starts the activation norms."""
        t, ladj = self.to_box.inverse(x)
        return self.flow.log_prob(t, None) + ladj

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """Draws n images, (n, C, H, W)."""
        return self.to_box(self.flow.sample(n)[0])[0]


class _BoundedScale(nn.Module):
    """The network of a coupling, whose odd channels are logs of scales: these within ±2."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        shift, log_scale = self.network(x).unflatten(1, (-1, 2)).unbind(2)
        bounded = _LARGEST_LOG_SCALE * torch.tanh(log_scale / _LARGEST_LOG_SCALE)
        return torch.stack([shift, bounded], 2).flatten(1, 2)


def _block(channels: int, width: int) -> nn.Module:
    """A flow step; its 1x1 convolution is a plain matrix, since normflows factorises by what torch is to drop."""
    from normflows.flows import GlowBlock

    block = GlowBlock(channels, width, scale_map="exp", use_lu=False)
    coupling = block.flows[0].flows[1]
    coupling.param_map = _BoundedScale(coupling.param_map)
    return block
