"""The trained model, and its file."""

import contextlib
from pathlib import Path
from typing import NamedTuple

import torch

from led_fast.density import DensityModel, Verdict
from led_fast.errors import InputError
from led_fast.files import read_json
from led_fast.kinds import find_kind
from led_fast.random_state import isolated
from led_fast.training.checkpoint import load_state, save_state
from led_fast.training.config import TrainConfig
from led_fast.training.run import RunDirectory

_KIND = "model"


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


def read_model(path: Path) -> TrainedModel:
    """Reads what `write_model` wrote; InputError where the file is truncated or foreign."""
    state = load_state(path, _KIND)
    config = TrainConfig.from_json(state["config"], str(path))
    with isolated(torch.get_default_device()):  # from the draws of weights that are not kept
        model = find_kind(config.kind).untrained(config)
    try:
        model.load_state_dict(state["model"])
    except (RuntimeError, ValueError):
        raise InputError(
            f"{path}: does not fit the networks that this version of led_fast builds from its config"
        ) from None
    return TrainedModel(model.eval(), config, state["seconds"])


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
    with contextlib.suppress(InputError, AttributeError, KeyError, TypeError, ValueError):
        if (found := read_json(run.report).get("log_normalizer")) is None:
            return
        verdict = Verdict.from_json(found)
        if verdict.value == model.log_normalizer.item():
            model.set_verdict(verdict)


def load(run: str | Path) -> DensityModel:
    """Loads a finished run as a density in the data's own coordinates; of images, as pixels in [0, 1].

    Args:
        run: the folder that `led-fast train` wrote.

    Returns:
        A `DensityModel` in eval mode whose `log_prob(x)`, (B, D) or (B, C, H, W) -> (B,), in nats, is normalised.

    Raises:
        InputError: the folder holds no run, an unfinished one, or a damaged model.
    """
    return load_model(RunDirectory.open(Path(run))).model
