"""Settings that only points have: their networks, noise on the data, and proposals that cover the plane."""

from dataclasses import dataclass, field, replace

from led_fast import models
from led_fast.kinds.kind import Preset
from led_fast.models import PointsCriticConfig, PointsGeneratorConfig
from led_fast.ranges import Count, NotNegative, Positive, Share
from led_fast.training.settings import Batches, GeneratorLoss, Optimizer, Recipe


@dataclass(frozen=True)
class Coverage:
    """Proposals beside the generator's, so that all of the plane is covered (App. B.3).

    Attributes:
        share: of the proposals that cover the plane instead of coming from the generator.
        broad_share: share of a broad normal among those; the others are blurred data. All of them: App. B.3.
        broad_scale: standard deviation of that normal.
        blurred_points: data points that are blurred at a time.
        blur_widths: number of widths of the blur, in a geometric series from the data's spacing to 1.
        balanced: whether a classifier of the proposals shares the integral out between their two sources.
    """

    share: Share = 0.5
    broad_share: Share = 0.2
    broad_scale: Positive = 1.5
    blurred_points: Count = 128
    blur_widths: Count = 5
    balanced: bool = True


@dataclass(frozen=True)
class Noise:
    """Noise on the data, which falls geometrically.

    Attributes:
        start: standard deviation at first; 0: no noise.
        end: its last value, in units of the data's spacing.
        until: share of the run at which it has fallen.
    """

    start: NotNegative = 0.6
    end: NotNegative = 0.1
    until: Share = 0.7


@dataclass(frozen=True)
class Floor:
    """A floor under the generator's target, which falls geometrically.

    Attributes:
        start: ε of the floor at first; 0: none.
        end: its last value.
        begin: share of the run at which it starts to fall.
        until: share of the run at which it has fallen.
    """

    start: NotNegative = 0.01
    end: NotNegative = 0.002
    begin: Share = 0.75
    until: Share = 0.9


@dataclass(frozen=True)
class Sharpening:
    """A weight of the forward KL that falls linearly: the generator finds all modes first, and is sharp at last.

    Attributes:
        end: its last value; None: it stays as the recipe's `generator_loss.forward_weight` is.
        begin: share of the run at which it starts to fall.
        until: share of the run at which it has fallen.
    """

    end: Share | None = None
    begin: Share = 0.4
    until: Share = 0.95


@dataclass(frozen=True)
class PointsModel:
    """Networks for points, and settings of their training that no other kind has, in standardised coordinates.

    Attributes:
        dim: number of coordinates.
        columns: their names, where the data have any.
        generator: its networks.
        critic: its network.
        coverage: of the proposals.
        noise: on the data.
        floor: under the generator's target.
        sharpening: of the generator.
    """

    dim: Count = 2
    columns: tuple[str, ...] = ()
    generator: PointsGeneratorConfig = field(default_factory=PointsGeneratorConfig)
    critic: PointsCriticConfig = field(default_factory=PointsCriticConfig)
    coverage: Coverage = Coverage()
    noise: Noise = Noise()
    floor: Floor = Floor()
    sharpening: Sharpening = Sharpening()


_PAPER = Recipe(
    steps=5000,
    batches=Batches(generated=1024, generator_steps=1),
    optimizer=Optimizer(full_rate_inputs=8),
    generator_loss=GeneratorLoss(forward_weight=0.85),
)
_PRINTED = Recipe(
    ema=0.0,
    batches=Batches(integral_samples=256, generator_steps=1, shared=False),
    optimizer=Optimizer(generator_learning_rate=1e-3),
    generator_loss=GeneratorLoss(forward_weight=0.0),
)


def _preset(name: str) -> Preset:
    networks = models.PRESETS[name]
    model = PointsModel(generator=networks.generator, critic=networks.critic)
    if name == "paper":
        return Preset(replace(model, sharpening=Sharpening(end=0.3)), _PAPER)
    if name == "paper_printed":
        coverage = Coverage(share=0.1, broad_share=1.0, balanced=False)
        model = replace(model, coverage=coverage, noise=Noise(start=0.0), floor=Floor(start=0.0))
        return Preset(model, _PRINTED)
    return Preset(model, Recipe())


PRESETS: dict[str, Preset] = {name: _preset(name) for name in models.PRESETS}
"""A recipe for every pair of networks in `led_fast.models.PRESETS`, by the pair's name."""
