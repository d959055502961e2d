"""LED itself, on the rows that its rivals get."""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from led_fast.data.tables import TableSource, table_of
from led_fast.reproduce.tables.model import LogProb, Model
from led_fast.reproduce.tables.splits import Rows
from led_fast.training import TrainConfig, fit, steps_in

_AT_A_TIME = 5000  # rows
_TRAINING_SHARE = 0.95  # of the time; the rest goes to log α


def fit_led(train: Rows, validation: Rows, seconds: float, seed: int) -> Model:
    """Flow, then tilt, in the time that a rival has; both densities are kept.

    Args:
        train: rows to fit; `steps` says which columns are discrete.
        validation: rows to stop by.
        seconds: of this process, for both parts together, and to find out how many steps they have.
        seed: of weights, noise and order.
    """
    began = time.process_time()
    # The very rows that the split's steps are told from, so the source finds the same ones.
    table = table_of(np.concatenate([train.values, validation.values]))
    numbers = np.arange(len(table))
    splits = {"train": numbers[: len(train.values)], "validation": numbers[len(train.values) :]}
    source = TableSource("rows", table, fewest=1, splits={**splits, "test": numbers[:0]})
    config = TrainConfig.of(source, seed=seed)
    steps = steps_in(_TRAINING_SHARE * seconds / 60, config, source, clock=time.process_time)
    left = 1 - (time.process_time() - began) / seconds
    config = replace(config, steps=max(1, round(left * steps)))
    model = fit(config, source, Console(quiet=True)).model
    verdict = model.verdict
    assert verdict is not None
    info = {"steps": config.steps, "log_normalizer": verdict.value, "reliable": verdict.reliable}
    return Model(_of_rows(model.log_prob), _of_rows(model.generator.log_prob), info)


def _of_rows(log_prob: Callable[[Tensor], Tensor]) -> LogProb:
    @torch.no_grad()
    def of_rows(x: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(np.ascontiguousarray(x)).split(_AT_A_TIME)
        return torch.cat([log_prob(part).double() for part in parts]).numpy()

    return of_rows
