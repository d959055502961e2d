"""The trained model, and its file."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from led_fast.density import DensityModel, Verdict
from led_fast.errors import InputError
from led_fast.files import read_json
from led_fast.kinds import find_kind
from led_fast.random_state import isolated
from led_fast.surroundings import usual
from led_fast.training.checkpoint import load_state, save_state
from led_fast.training.config import TrainConfig
from led_fast.training.run import RunDirectory

_KIND = "model"
_SLACK = 1 << 22  # parameters that networks may have beyond those of the file while they are built
# What building them from numbers that make no sense together can raise, and loading what is not theirs.
_ERRORS_OF_NETWORKS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,  # RecursionError is one
    TypeError,
    ValueError,
)


class TrainedModel(NamedTuple):
    """A model in eval mode, the config that it was trained by, and how many seconds that took."""

    model: DensityModel
    config: TrainConfig
    seconds: float


def write_model(path: Path, trained: TrainedModel) -> None:
    """Writes a model, with its config, to one file."""
    model, config, seconds = trained
    state = {"config": config.to_json(), "seconds": seconds, "model": dict(model.state_dict())}
    save_state(path, _KIND, state)


@usual()
def read_model(path: Path) -> TrainedModel:
    """Reads what `write_model` wrote; InputError where the file is truncated or foreign."""
    state = load_state(path, _KIND)
    try:
        content, weights, seconds = state["config"], dict(state["model"]), float(state["seconds"])
        stored = sum(weight.numel() for weight in weights.values())
    except (LookupError, TypeError, ValueError, AttributeError):
        raise InputError(f"{path}: its header is damaged") from None
    config = TrainConfig.from_json(content, str(path))
    try:
        # Apart from the draws of weights that are not kept.
        with isolated(torch.get_default_device()), _at_most(_SLACK + 4 * stored):
            model = find_kind(config.kind).untrained(config)
        model.load_state_dict(weights)
    except _ERRORS_OF_NETWORKS:
        raise InputError(
            f"{path}: does not fit the networks that this version of led_fast builds from its config"
        ) from None
    return TrainedModel(model.eval(), config, seconds)


@contextlib.contextmanager
def _at_most(numbers: int) -> Iterator[None]:
    """Raises MemoryError where modules get more parameters: a damaged config may ask for more than there is memory."""
    left = numbers

    def count(_: nn.Module, __: str, parameter: nn.Parameter | None) -> None:
        nonlocal left
        left -= 0 if parameter is None else parameter.numel()
        if left < 0:
            raise MemoryError

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def load_model(run: RunDirectory) -> TrainedModel:
    """Reads the model of a run.

    Raises:
        InputError: the run is not finished, or the file is truncated or foreign.
    """
    if not run.model.is_file():
        raise InputError(f"{run.path}: the run is not finished; go on with led-fast train … --resume")
    trained = read_model(run.model)
    _adopt_last_verdict(run, trained.model)
    return trained


def _adopt_last_verdict(run: RunDirectory, model: DensityModel) -> None:
    """A report that judges the log α in use knows more than the end of training did; a broken one nothing."""
    with contextlib.suppress(InputError, AttributeError, LookupError, OverflowError, TypeError, ValueError):
        if (found := read_json(run.report).get("log_normalizer")) is None:
            return
        verdict = Verdict.from_json(found)
        if verdict.value == model.log_normalizer.item():
            model.set_verdict(verdict)


def load(run: str | Path) -> DensityModel:
    """Loads a finished run as a density in the data's own coordinates; of images, as pixels within (0, 1).

    Bytes get there by `led_fast.data.images.dequantize`. Divided by 255, the darkest and the lightest lie on the edges,
    where log densities say nothing.

    Args:
        run: the folder that `led-fast train` wrote.

    Returns:
        A `DensityModel` in eval mode whose `log_prob(x)`, (B, D) or (B, C, H, W) -> (B,), in nats, is normalised.

    Raises:
        InputError: the folder holds no run, an unfinished one, or a damaged model.
    """
    return load_model(RunDirectory.open(Path(run))).model
