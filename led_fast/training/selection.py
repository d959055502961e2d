"""Which running averages of a stage become the model: those that did best on validation data."""

import math
from collections.abc import Callable
from typing import Any

from torch import nn

from led_fast.flows import OneWayFlow
from led_fast.training.settings import Selection

Validate = Callable[[nn.Module, OneWayFlow, str], "float | None"]


class BestAverages:
    """Looks at averaged networks several times a stage, and keeps the best.

    Args:
        settings: how often, and when to give up.
        validate: (critic, generator, name of the stage) -> a score, higher is better, that draws no random numbers;
            None where it does not judge that stage.
        critic: the averaged one.
        generator: the averaged one.

    Attributes:
        exhausted: whether the rest of the stage can be left out.
    """

    def __init__(
        self, settings: Selection, validate: Validate, critic: nn.Module, generator: OneWayFlow
    ) -> None:
        self._settings, self._validate = settings, validate
        self._critic, self._generator = critic, generator
        self._networks: dict[str, nn.Module] = {"critic": critic, "generator": generator}
        self._best: dict[str, Any] | None = None
        self._score, self._waited = -math.inf, 0

    @property
    def exhausted(self) -> bool:
        """See the class."""
        patience = self._settings.patience
        return patience is not None and self._waited >= patience

    def begin(self, stage: str) -> None:
        """Judges the networks with which a stage begins."""
        self._best, self._score, self._waited = None, -math.inf, 0
        self._look(stage)

    def after_step(self, stage: str, done: int, of: int) -> dict[str, float]:
        """Judges the networks after some steps of a stage, if it is time; returns the score as a metric."""
        checks = self._settings.checks
        if not checks or done * checks // of == (done - 1) * checks // of:
            return {}
        return self._look(stage)

    def restore(self) -> None:
        """Puts the best averages of the stage in the place of the last ones."""
        if self._best is not None:
            for name, network in self._networks.items():
                network.load_state_dict(self._best[name])

    def state_dict(self) -> dict[str, Any]:
        """The best averages so far, their score, and for how many checks there were none."""
        return {
            "best": self._best,
            "score": self._score if math.isfinite(self._score) else None,
            "waited": self._waited,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state_dict`."""
        self._best, self._waited = state["best"], state["waited"]
        self._score = -math.inf if state["score"] is None else state["score"]

    def _look(self, stage: str) -> dict[str, float]:
        if not self._settings.checks:
            return {}
        score = self._validate(self._critic, self._generator, stage)
        if score is None:
            return {}
        self._waited += 1
        if not math.isfinite(score):  # is better than nothing, and than nothing else
            score = -math.inf
        if score > self._score or self._best is None:
            self._score, self._waited = score, 0
            self._best = {
                name: {key: value.clone() for key, value in network.state_dict().items()}
                for name, network in self._networks.items()
            }
        return {"validation": score}
