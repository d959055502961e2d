"""Everything that decides the result of a run, as frozen dataclasses that are saved as JSON."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeVar, get_args

from led_fast.errors import InputError
from led_fast.models import PRESETS as NETWORKS
from led_fast.models import ToyCriticConfig, ToyGeneratorConfig

_Config = TypeVar("_Config")

Ops = Literal["fast", "reference"]
ObjectiveName = Literal["led", "gan"]


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
        decay_from: share of the run after which both rates follow a half cosine.
        decay_to: what is left of the rates at the end.
        gradient_clip: largest norm of either network's gradient.
        gradient_penalty: weight γ of γ/2 ‖∇f‖² at the data (R1).
        penalty_interval: it is taken at every so many steps, that many times as heavy.
        micro_batch: samples that the critic has in memory at a time; None: a whole step's.
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


@dataclass(frozen=True)
class TrainConfig:
    """One run: the same config on the same machine gives the same weights, bit for bit.

    Attributes:
        data: `ring`, `grid` or a file.
        data_fingerprint: of the data's content.
        preset: what networks and recipe were taken from; they decide, not their name.
        seed: of weights, data and noise.
        steps: critic steps of the whole run.
        minutes: what `steps` were computed from, where a duration was asked for.
        generator: its networks.
        critic: its network.
        recipe: settings of training.
        ops: what the operators run: their kernels, or for comparison `led_fast.reference`.
    """

    data: str
    data_fingerprint: str
    preset: str
    seed: int
    steps: int
    minutes: float | None
    generator: ToyGeneratorConfig
    critic: ToyCriticConfig
    recipe: Recipe
    ops: Ops = "fast"

    @classmethod
    def from_preset(
        cls,
        data: str,
        data_fingerprint: str,
        preset: str = "default",
        seed: int = 0,
        steps: int | None = None,
        minutes: float | None = None,
        ops: Ops = "fast",
    ) -> "TrainConfig":
        """A run of a preset (a key of `PRESETS`), of its recipe's length where `steps` is None."""
        networks, recipe = NETWORKS[preset], PRESETS[preset]
        return cls(
            data=data,
            data_fingerprint=data_fingerprint,
            preset=preset,
            seed=seed,
            steps=steps or recipe.steps,
            minutes=minutes,
            generator=networks.generator,
            critic=networks.critic,
            recipe=recipe,
            ops=ops,
        )

    def to_json(self) -> dict[str, Any]:
        """The config as nested JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any], where: str) -> "TrainConfig":
        """Reads what `to_json` wrote; InputError naming `where` if a field is missing or it or the preset unknown."""
        parts = {
            "generator": _build(ToyGeneratorConfig, content.get("generator", {}), where),
            "critic": _build(ToyCriticConfig, content.get("critic", {}), where),
            "recipe": _build(Recipe, content.get("recipe", {}), where),
        }
        config = _build(cls, content | parts, where)
        if config.preset not in PRESETS:
            raise InputError(f"{where}: want preset {', '.join(PRESETS)}, got {config.preset!r}")
        if config.recipe.objective not in get_args(ObjectiveName):
            wanted = " or ".join(get_args(ObjectiveName))
            raise InputError(f"{where}: want objective {wanted}, got {config.recipe.objective!r}")
        if config.ops not in get_args(Ops):
            raise InputError(f"{where}: want ops {' or '.join(get_args(Ops))}, got {config.ops!r}")
        return config


def _build(kind: type[_Config], values: dict[str, Any], where: str) -> _Config:
    """A dataclass from JSON, whose lists are tuples there."""
    if set(values) != (names := {field.name for field in fields(kind)}):  # type: ignore[arg-type]
        odd = ", ".join(sorted(set(values) ^ names))
        raise InputError(f"{where}: is not a config of this version of led_fast (fields: {odd})")
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
