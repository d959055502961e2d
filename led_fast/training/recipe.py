"""How critic and generator are trained, by preset."""

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

ObjectiveName = Literal["led", "gan"]


class Stage(NamedTuple):
    """A part of a run whose steps are of one kind, between two shares of the steps."""

    name: str
    begin: float
    end: float


@dataclass(frozen=True)
class Recipe:
    """Settings of training, in standardised coordinates. Schedules go by the share of the steps that is done.

    Attributes:
        steps: default length of a run.
        objective: "led", or "gan": the same networks as a plain GAN, which has no use for proposals, target and
            their settings.
        batch_size: data points a critic step.
        integral_samples: S of Eq. 3, proposals of one estimate of the integral.
        integrals: estimates a critic step, each from proposals of its own; the loss is their mean.
        covering_share: share of the proposals that cover the plane instead of coming from the generator.
        broad_share: share of a broad normal among those; the others are blurred data. All of them: App. B.3.
        broad_scale: standard deviation of that normal.
        blurred_points: data points that are blurred at a time.
        blur_widths: number of widths of the blur, in a geometric series from the data's spacing to 1.
        balanced: whether a classifier of the proposals shares the integral out between their two sources.
        generator_batch: samples a generator step.
        generator_steps: generator steps a critic step.
        critic_learning_rate: of Adam, before decay.
        generator_learning_rate: of Adam, before decay.
        betas: of Adam.
        critic_betas: of the critic's Adam, where they differ.
        decay_from: share of the run after which both rates follow a half cosine to its end, of which a calibration
            cuts off the last part.
        decay_to: what would be left of the rates at the end.
        gradient_clip: largest norm of either network's gradient.
        gradient_penalty: weight γ of γ/2 ‖∇f‖² at the data (R1).
        penalty_interval: it is taken at every so many steps, that many times as heavy.
        micro_batch: samples that the critic has in memory at a time; None: a whole step's.
        likelihood_weight: weight, in the generator's loss, of its own -log q at the data; what follows has the
            rest. For generators that can be inverted.
        warm_up: share of the steps at first in which the generator learns by that alone, and the critic rests.
        calibrate_from: share of the steps after which the generator rests, and the critic, which tilts it anew, learns
            by large integrals, until the importance weights are as uneven as `calibration_ess`: so that log α can
            be estimated. For critics that tilt a generator.
        calibration_samples: S in that time.
        calibration_learning_rate: of the critic in that time.
        calibration_ess: effective share of the weights at which the critic rests as well.
        forward_weight: weight of the forward KL in the generator's loss; the reverse KL has the rest.
        entropy_weight: k of Eq. 5.
        max_weight: clip of an importance weight in the forward KL, in units of the mean weight.
        noise_start: standard deviation of the noise on the data at first; falls geometrically. 0: no noise.
        noise_end: its last value, in units of the data's spacing.
        noise_until: share of the run at which it has fallen.
        floor_start: ε of the floor under the generator's target, until `floor_from`. 0: none.
        floor_end: its value from `floor_until` on.
        floor_from: share of the run at which it starts to fall.
        floor_until: share of the run at which it has fallen.
        ema: decay of the running averages of the weights, which make the model; 0 makes it of the last ones.
    """

    steps: int = 2000
    objective: ObjectiveName = "led"
    batch_size: int = 256
    integral_samples: int = 384
    integrals: int = 1
    covering_share: float = 0.5
    broad_share: float = 0.2
    broad_scale: float = 1.5
    blurred_points: int = 128
    blur_widths: int = 5
    balanced: bool = True
    generator_batch: int = 256
    generator_steps: int = 2
    critic_learning_rate: float = 1e-3
    generator_learning_rate: float = 3e-3
    betas: tuple[float, float] = (0.9, 0.99)
    critic_betas: tuple[float, float] | None = None
    decay_from: float = 0.3
    decay_to: float = 0.02
    gradient_clip: float = 10.0
    gradient_penalty: float = 0.0
    penalty_interval: int = 1
    micro_batch: int | None = None
    likelihood_weight: float = 0.0
    warm_up: float = 0.0
    calibrate_from: float = 1.0
    calibration_samples: int = 64
    calibration_learning_rate: float = 2e-4
    calibration_ess: float = 0.5
    forward_weight: float = 0.5
    entropy_weight: float = 1.0
    max_weight: float = 20.0
    noise_start: float = 0.6
    noise_end: float = 0.1
    noise_until: float = 0.7
    floor_start: float = 0.01
    floor_end: float = 0.002
    floor_from: float = 0.75
    floor_until: float = 0.9
    ema: float = 0.995

    @property
    def warm_up_in_use(self) -> float:
        """`warm_up`; a plain GAN has none."""
        return self.warm_up if self.objective == "led" else 0.0

    @property
    def calibrate_from_in_use(self) -> float:
        """`calibrate_from`; a plain GAN does not calibrate, nor does a generator that learns alone."""
        return self.calibrate_from if self.objective == "led" and self.warm_up < 1 else 1.0

    @property
    def stages(self) -> list[Stage]:
        """The stages that a run has, in their order."""
        warm_up, calibration = self.warm_up_in_use, self.calibrate_from_in_use
        stages = [
            Stage("warm-up", 0.0, warm_up),
            Stage("joint training", warm_up, calibration),
            Stage("calibration", calibration, 1.0),
        ]
        return [stage for stage in stages if stage.begin < stage.end]

    def stage(self, at: float) -> Stage:
        """The stage in which a run is when a share of its steps is done."""
        return [stage for stage in self.stages if stage.begin <= at][-1]


PRESETS = {
    "default": Recipe(),
    "inflated": Recipe(),
    "perpendicular": Recipe(),
    "perpendicular_exact": Recipe(),
    "paper": Recipe(
        integral_samples=256,
        covering_share=0.1,
        broad_share=1.0,
        balanced=False,
        generator_steps=1,
        generator_learning_rate=1e-3,
        forward_weight=0.0,
        noise_start=0.0,
        floor_start=0.0,
        ema=0.0,
    ),
}
"""A recipe for every pair of networks in `led_fast.models`, by the pair's name."""

_IMAGES = Recipe(
    steps=8000,
    batch_size=64,
    integral_samples=1,
    integrals=64,
    generator_batch=64,
    generator_steps=1,
    critic_learning_rate=1e-3,
    generator_learning_rate=2e-3,
    betas=(0.5, 0.99),
    critic_betas=(0.0, 0.99),
    decay_from=0.6,
    gradient_clip=200.0,
    gradient_penalty=0.02,
    penalty_interval=4,
    likelihood_weight=0.25,
    warm_up=0.7,
    calibrate_from=0.9,
    forward_weight=0.0,
    ema=0.998,
)
_PAPER_IMAGES = replace(
    _IMAGES,
    integral_samples=64,
    integrals=1,
    generator_learning_rate=1e-3,
    critic_betas=None,
    gradient_penalty=0.0,
    likelihood_weight=0.0,  # what a generator drops cannot be inverted
    warm_up=0.0,
    calibrate_from=1.0,
    ema=0.0,
)

IMAGE_RECIPES = {
    "tiny": _IMAGES,
    "mnist32": _IMAGES,
    "color32": _IMAGES,
    "color64": _IMAGES,
    "paper_mnist32": _PAPER_IMAGES,
    "paper_color32": _PAPER_IMAGES,
    "paper_color64": _PAPER_IMAGES,
}
"""A recipe for every pair of networks in `led_fast.models.IMAGE_PRESETS`."""

IMAGE_GAN: dict[str, Any] = {
    "objective": "gan",
    "critic_learning_rate": 5e-4,
    "betas": (0.0, 0.99),
    "gradient_penalty": 0.1,
}
"""What a recipe for images changes to train a plain GAN."""
