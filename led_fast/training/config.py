"""Everything that decides the result of a run, as a frozen dataclass that is saved as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar

import msgspec

from led_fast.errors import InputError
from led_fast.kinds import find_kind
from led_fast.training.compiled import Compile
from led_fast.training.format_1 import from_format_1
from led_fast.training.precision import Precision
from led_fast.training.settings import Recipe, changed
from led_fast.training.task import Source

_Settings = TypeVar("_Settings")

Ops = Literal["fast", "reference"]
CudaGraph = Literal["auto", "off"]

FORMAT = 2


@dataclass(frozen=True)
class Reading:
    """How data are read, where there is a choice.

    Attributes:
        strict: stop at an item that cannot be used, instead of passing it over.
        ignore: columns of a table that are not data, such as labels.
        drop_missing: pass over rows with missing values, instead of refusing them.
    """

    strict: bool = False
    ignore: tuple[str, ...] = ()
    drop_missing: bool = False


@dataclass(frozen=True)
class TrainConfig:
    """One run: the same config on the same CPU gives the same weights, bit for bit.

    Attributes:
        kind: of the data, see `led_fast.kinds`.
        data: `ring`, `grid`, or where the data are.
        data_fingerprint: of the data's content.
        preset: what networks and recipe were taken from; they decide, not their name.
        seed: of weights, data and noise.
        steps: of the whole run.
        minutes: what `steps` were computed from, where a duration was asked for.
        recipe: settings of training.
        model: networks and settings of the data's kind, a frozen dataclass of its `model_type`.
        reading: how the data are read.
        ops: what the operators run: their kernels, or for comparison `led_fast.reference`.
        cuda_graph: whether a GPU records training steps and replays them, where it can.
        precision: in which the critic's networks are trained; the model that comes of it computes in float32.
        compile: whether torch.compile compiles the networks that are trained.
    """

    kind: str
    data: str
    data_fingerprint: str
    preset: str
    seed: int
    steps: int
    minutes: float | None
    recipe: Recipe
    model: Any
    reading: Reading = Reading()
    ops: Ops = "fast"
    cuda_graph: CudaGraph = "auto"
    precision: Precision = "float32"
    compile: Compile = "off"

    @classmethod
    def of(
        cls,
        source: Source,
        preset: str | None = None,
        seed: int = 0,
        steps: int | None = None,
        minutes: float | None = None,
        changes: Mapping[str, Any] | None = None,
        reading: Reading = Reading(),
    ) -> TrainConfig:
        """A run on data by a preset of their kind.

        Example:
            >>> from led_fast.data import open_source
            >>> config = TrainConfig.of(open_source("ring"), changes={"recipe.ema": 0.9, "model.noise.start": 0.0})

        Args:
            source: the data.
            preset: None: the one that suits them.
            seed: of weights, data and noise.
            steps: None: as many as its recipe has.
            minutes: for the record.
            changes: to any setting, by dotted names.
            reading: how the data were read.

        Raises:
            InputError: the data's kind has no such preset, or a change makes no sense.
        """
        name, (model, recipe) = find_kind(source.kind).configure(source, preset)
        config = cls(
            kind=source.kind,
            data=source.name,
            data_fingerprint=source.fingerprint,
            preset=name,
            seed=seed,
            steps=recipe.steps if steps is None else steps,
            minutes=minutes,
            recipe=recipe,
            model=model,
            reading=replace(reading, strict=False),  # which changes nothing that is read
        )
        return config.changed(changes or {})

    def changed(self, changes: Mapping[str, Any]) -> TrainConfig:
        """A copy with some settings changed, by dotted names: `config.changed({"recipe.batches.data": 64})`.

        Raises:
            TypeError: there is no such setting.
            InputError: a value is of a wrong type, or makes no sense.
        """
        made = changed(self, changes)
        for part in ("recipe", "model"):
            value = getattr(made, part)
            _build(type(value), asdict(value), "the config as changed", f"{part}.")
        return made

    def to_json(self) -> dict[str, Any]:
        """The config as nested JSON values."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, content: dict[str, Any], where: str) -> TrainConfig:
        """Reads what `to_json` wrote, or what version 0.1.0 did; settings that are missing take their defaults.

        Raises:
            InputError: naming `where`, if it is of a newer format, or something in it is unknown or of a wrong type.
        """
        if not isinstance(content, dict):
            raise InputError(f"{where}: want a JSON object, got {type(content).__name__}")
        content = from_format_1(content, where) if "format" not in content else dict(content)
        if (form := content.pop("format")) != FORMAT:
            raise InputError(f"{where}: is of format {form!r}, which this version of led_fast cannot read")
        config = _build(cls, content, where)
        for name, value, least in (("steps", config.steps, 1), ("seed", config.seed, 0)):
            if not least <= value < 2**63:
                raise InputError(f"{where}: {name}: want a number from {least} to 2^63 - 1, got {value}")
        try:
            kind = find_kind(config.kind)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        if config.preset not in kind.presets:
            raise InputError(f"{where}: want preset {', '.join(kind.presets)}, got {config.preset!r}")
        return replace(config, model=_build(kind.model_type, content["model"], where, "model."))


def _build(kind: type[_Settings], values: Any, where: str, path: str = "") -> _Settings:
    """Nested dataclasses from JSON values, which are the part `path` of a config."""
    try:
        built = msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        what, _, at = str(error).partition(" - at `$")
        name = (path + at.lstrip(".").rstrip("`")).rstrip(".")
        named = f"{name}: {what}" if name else what
        raise InputError(f"{where}: is not a config of this version of led_fast ({named})") from None
    if unknown := sorted(_unknown(values, built, path)):
        raise InputError(
            f"{where}: is not a config of this version of led_fast (unknown: {', '.join(unknown)})"
        )
    return built


def _unknown(values: Any, built: Any, path: str = "") -> list[str]:
    """Names in nested JSON objects that no dataclass has taken: a newer version may mean something by them."""
    if isinstance(values, list) and isinstance(built, tuple):
        return [name for v, b in zip(values, built, strict=False) for name in _unknown(v, b, path)]
    if not (isinstance(values, dict) and is_dataclass(built)):
        return []
    known = {field.name for field in fields(built)}
    inner = [_unknown(values[key], getattr(built, key), f"{path}{key}.") for key in known & set(values)]
    return [f"{path}{key}" for key in set(values) - known] + [name for names in inner for name in names]
