"""Everything that decides the result of a run, as a frozen dataclass that is saved as JSON."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeVar, get_args

from led_fast.errors import InputError
from led_fast.models import (
    IMAGE_PRESETS,
    ImageCriticConfig,
    ImageGeneratorConfig,
    ToyCriticConfig,
    ToyGeneratorConfig,
)
from led_fast.models import PRESETS as PLANE_PRESETS
from led_fast.training.precision import Precision
from led_fast.training.recipe import IMAGE_RECIPES, PRESETS, ObjectiveName, Recipe

_Config = TypeVar("_Config")

Ops = Literal["fast", "reference"]
CudaGraph = Literal["auto", "off"]


@dataclass(frozen=True)
class TrainConfig:
    """One run: the same config on the same CPU gives the same weights, bit for bit.

    Attributes:
        data: `ring`, `grid`, a file of points, or where the images are.
        data_fingerprint: of the data's content.
        preset: what networks and recipe were taken from; they decide, not their name.
        seed: of weights, data and noise.
        steps: critic steps of the whole run.
        minutes: what `steps` were computed from, where a duration was asked for.
        shape: of one data point: (2,), or (C, H, W).
        generator: its networks.
        critic: its network.
        recipe: settings of training.
        ops: what the operators run: their kernels, or for comparison `led_fast.reference`.
        cuda_graph: whether a GPU records training steps and replays them, where it can.
        precision: in which the critic's networks are trained; the model that comes of it computes in float32.
    """

    data: str
    data_fingerprint: str
    preset: str
    seed: int
    steps: int
    minutes: float | None
    shape: tuple[int, ...]
    generator: ToyGeneratorConfig | ImageGeneratorConfig
    critic: ToyCriticConfig | ImageCriticConfig
    recipe: Recipe
    ops: Ops = "fast"
    cuda_graph: CudaGraph = "auto"
    precision: Precision = "float32"

    @property
    def is_image(self) -> bool:
        """Whether the data are images, not points in the plane."""
        return isinstance(self.generator, ImageGeneratorConfig)

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
        cuda_graph: CudaGraph = "auto",
    ) -> "TrainConfig":
        """A run of a preset, a key of `PRESETS` or `IMAGE_RECIPES`, of its recipe's length where `steps` is None."""
        images = IMAGE_PRESETS.get(preset)
        networks = images or PLANE_PRESETS[preset]
        recipe = (IMAGE_RECIPES if images else PRESETS)[preset]
        return cls(
            data=data,
            data_fingerprint=data_fingerprint,
            preset=preset,
            seed=seed,
            steps=steps or recipe.steps,
            minutes=minutes,
            shape=images.shape if images else (2,),
            generator=networks.generator,
            critic=networks.critic,
            recipe=recipe,
            ops=ops,
            cuda_graph=cuda_graph,
        )

    def to_json(self) -> dict[str, Any]:
        """The config as nested JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any], where: str) -> "TrainConfig":
        """Reads what `to_json` wrote; InputError naming `where` if a field is missing or it or the preset unknown."""
        is_image = len(content.get("shape", ())) > 1
        generator = ImageGeneratorConfig if is_image else ToyGeneratorConfig
        critic = ImageCriticConfig if is_image else ToyCriticConfig
        parts = {
            "generator": _build(generator, content.get("generator", {}), where),
            "critic": _build(critic, content.get("critic", {}), where),
            "recipe": _build(Recipe, content.get("recipe", {}), where),
        }
        # Runs that are older than a choice recorded no step, and were trained in float32.
        older = {"cuda_graph": "off", "precision": "float32"}
        config = _build(cls, older | content | parts, where)
        choices = {
            "preset": (config.preset, tuple(IMAGE_PRESETS if is_image else PRESETS)),
            "objective": (config.recipe.objective, get_args(ObjectiveName)),
            "ops": (config.ops, get_args(Ops)),
            "cuda_graph": (config.cuda_graph, get_args(CudaGraph)),
            "precision": (config.precision, get_args(Precision)),
        }
        for name, (value, known) in choices.items():
            if value not in known:
                raise InputError(f"{where}: want {name} {', '.join(known)}, got {value!r}")
        return config


def _build(kind: type[_Config], values: dict[str, Any], where: str) -> _Config:
    """A dataclass from JSON, whose lists are tuples there."""
    if set(values) != (names := {field.name for field in fields(kind)}):  # type: ignore[arg-type]
        odd = ", ".join(sorted(set(values) ^ names))
        raise InputError(f"{where}: is not a config of this version of led_fast (fields: {odd})")
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
