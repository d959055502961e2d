"""How critic and generator are trained: nested settings, which every kind of data shares.

Schedules go by the share of a run's steps that is done, from 0 to 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeVar

from led_fast.ranges import Count, Natural, NotNegative, Positive, Share, ShareBelowOne

ObjectiveName = Literal["led", "gan"]

_Settings = TypeVar("_Settings")


CALIBRATION = "calibration"  # the name of that stage


class Stage(NamedTuple):
    """A part of a run whose steps are of one kind, between two shares of the steps."""

    name: str
    begin: float
    end: float


@dataclass(frozen=True)
class Batches:
    """What a step draws.

    Attributes:
        data: data points of a critic step.
        integral_samples: S of Eq. 3, proposals of one estimate of the integral.
        integrals: estimates a critic step, each from proposals of its own; the loss is their mean.
        generated: samples of a generator step.
        generator_steps: generator steps a critic step.
        shared: whether the critic's step takes samples of the generator step that follows, where it wants no more;
            their graph is kept meanwhile.
        micro_batch: samples that the critic has in memory at a time; None: a whole step's.
    """

    data: Count = 256
    integral_samples: Count = 384
    integrals: Count = 1
    generated: Count = 256
    generator_steps: Count = 2
    shared: bool = True
    micro_batch: Count | None = None


@dataclass(frozen=True)
class Optimizer:
    """Adam, with a learning rate that decays.

    Attributes:
        critic_learning_rate: before decay.
        generator_learning_rate: before decay.
        betas: of both.
        critic_betas: of the critic's, where they differ.
        full_rate_inputs: inputs that a matrix or convolution of the generator may have at the full rate; with more, its
            rate is lower in proportion, as wide layers want it of Adam (maximal-update parametrisation, Yang et al.
            2021). None: one rate for all.
        weight_decay: of both, decoupled from the gradient (AdamW).
        rise: steps at the beginning of a stage in which the rates rise to their height.
        decay_from: share of the run after which both rates follow a half cosine, of which a calibration cuts off
            what lies beyond its beginning.
        decay_until: share of the run at which that cosine ends.
        decay_to: what would be left of the rates there.
        gradient_clip: largest norm of either network's gradient.
    """

    critic_learning_rate: NotNegative = 1e-3
    generator_learning_rate: NotNegative = 3e-3
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.99)
    critic_betas: tuple[ShareBelowOne, ShareBelowOne] | None = None
    full_rate_inputs: Count | None = None
    weight_decay: NotNegative = 0.0
    rise: Natural = 0
    decay_from: Share = 0.3
    decay_until: Share = 1.0
    decay_to: Share = 0.02
    gradient_clip: Positive = 10.0


@dataclass(frozen=True)
class Penalty:
    """A gradient penalty of the critic (R1).

    Attributes:
        weight: γ of γ/2 ‖∇f‖² at the data; 0: none.
        interval: it is taken at every so many steps, that many times as heavy.
    """

    weight: NotNegative = 0.0
    interval: Count = 1


@dataclass(frozen=True)
class GeneratorLoss:
    """What the generator minimises.

    Attributes:
        likelihood_weight: weight of its own -log q at the data; what follows has the rest. For generators that can
            be inverted, and of a bound of it for those that drop by a Gaussian r (Eq. 8).
        forward_weight: weight of the forward KL to the critic; the reverse KL has the rest.
        entropy_weight: k of Eq. 5.
        max_weight: clip of an importance weight in the forward KL, in units of the mean weight.
    """

    likelihood_weight: Share = 0.0
    forward_weight: Share = 0.5
    entropy_weight: NotNegative = 1.0
    max_weight: Positive = 20.0


@dataclass(frozen=True)
class Calibration:
    """The last stage of critics that tilt a generator, which rests while they learn, so that log α can be estimated.

    Attributes:
        begin: share of the steps after which it begins; 1: there is none.
        samples: of the generator in a step.
        learning_rate: of the critic.
        ess: effective share of the importance weights from which on the critic rests as well; 0: it never does.
        held_ess: effective share that the loss holds: below it, it costs what its logarithm lacks, in nats. So the
            critic learns on at the edge of what can be normalised; 0: it costs nothing.
    """

    begin: Share = 1.0
    samples: Count = 64
    learning_rate: NotNegative = 2e-4
    ess: Share = 0.5
    held_ess: Share = 0.0


@dataclass(frozen=True)
class Selection:
    """Which of a stage's running averages is kept, by a score on validation data, for kinds that have one.

    Attributes:
        checks: of a stage, evenly over its steps, besides one at its beginning; 0: the last averages are kept.
        patience: checks without a better score after which the rest of the stage is left out; None: never.
    """

    checks: Natural = 0
    patience: Count | None = None


@dataclass(frozen=True)
class Recipe:
    """Settings of training that all kinds of data share, in the coordinates in which the networks are trained.

    Attributes:
        steps: default length of a run.
        objective: "led", or "gan": the same networks as a plain GAN, which has no use for proposals and target.
        base: what a critic that tilts a generator tilts in joint training: the generator as it was when that began
            ("first"), or as it is at every step ("current"), which wants a generator that can be inverted, a
            calibration, and k = 1. A calibration tilts the last generator either way.
        warm_up: share of the steps at first in which the generator learns by its likelihood alone, and the critic
            rests.
        ema: decay of the running averages of the weights, which make the model; 0 makes it of the last ones.
        batches: what a step draws.
        optimizer: Adam.
        penalty: of the critic.
        generator_loss: what the generator minimises.
        calibration: the last stage.
        selection: which averages are kept.
    """

    steps: Count = 2000
    objective: ObjectiveName = "led"
    base: Literal["first", "current"] = "first"
    warm_up: Share = 0.0
    ema: ShareBelowOne = 0.995
    batches: Batches = Batches()
    optimizer: Optimizer = Optimizer()
    penalty: Penalty = Penalty()
    generator_loss: GeneratorLoss = GeneratorLoss()
    calibration: Calibration = Calibration()
    selection: Selection = Selection()

    @property
    def has_density(self) -> bool:
        """Whether the critic is a density, and not the classifier of a plain GAN."""
        return self.objective != "gan"

    @property
    def integrates(self) -> bool:
        """Whether critic and generator train jointly, the critic by estimates of Eq. 3's integral."""
        return self.has_density and self.warm_up < self.calibration.begin

    @property
    def warm_up_in_use(self) -> float:
        """`warm_up`; a plain GAN has none."""
        return self.warm_up if self.has_density else 0.0

    def likelihood_weight_at(self, at: float) -> float:
        """The weight of data's likelihood in the generator's loss when a share of the steps is done."""
        return 1.0 if at < self.warm_up else self.generator_loss.likelihood_weight

    @property
    def calibrate_from_in_use(self) -> float:
        """`calibration.begin`; a plain GAN does not calibrate, nor does a generator that learns alone."""
        return self.calibration.begin if self.has_density and self.warm_up < 1 else 1.0

    @property
    def stages(self) -> list[Stage]:
        """The stages that a run has, in their order."""
        warm_up, calibration = self.warm_up_in_use, self.calibrate_from_in_use
        stages = [
            Stage("warm-up", 0.0, warm_up),
            Stage("joint training", warm_up, calibration),
            Stage(CALIBRATION, calibration, 1.0),
        ]
        return [stage for stage in stages if stage.begin < stage.end]

    def stage(self, at: float) -> Stage:
        """The stage in which a run is when a share of its steps is done."""
        return [stage for stage in self.stages if stage.begin <= at][-1]


def changed(settings: _Settings, changes: Mapping[str, Any]) -> _Settings:
    """A copy of nested settings with some of them changed.

    Example:
        >>> changed(Recipe(), {"ema": 0.9, "optimizer.betas": (0.0, 0.99)}).optimizer.betas
        (0.0, 0.99)

    Args:
        settings: a dataclass.
        changes: new values by dotted names.

    Raises:
        TypeError: there is no such setting.
    """
    direct: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        first, _, rest = name.partition(".")
        if rest:
            nested.setdefault(first, {})[rest] = value
        else:
            direct[first] = value
    inner = {name: changed(getattr(settings, name), values) for name, values in nested.items()}
    return replace(settings, **direct, **inner)  # type: ignore[type-var]
