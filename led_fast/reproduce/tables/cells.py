"""The cells of the comparison: a method on a data set with a seed, for likelihood or for anomalies."""

import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from led_fast.errors import InputError
from led_fast.evaluation.auroc import auroc
from led_fast.reproduce.cell import Cell
from led_fast.reproduce.tables.datasets import (
    ANOMALIES,
    NAMES,
    LabelledTable,
    available,
    open_dataset,
)
from led_fast.reproduce.tables.methods import METHODS
from led_fast.reproduce.tables.splits import anomaly_split, likelihood_split

LIKELIHOOD, ANOMALY = "likelihood", "anomaly"
TRUTH = "truth"
_QUICK_SECONDS, _QUICK_ROWS = 1.0, 1000


def cells(seeds: int, quick: bool, directory: str, seconds: float) -> list[Cell]:
    """Every method that is installed, on every data set that is there, for every seed.

    Args:
        seeds: how many; each has its own split, weights and noise.
        quick: a second on the first 1,000 rows.
        directory: of the files.
        seconds: of processor time that a method has.

    Raises:
        InputError: a file is missing or broken.
    """
    seconds, rows = (_QUICK_SECONDS, _QUICK_ROWS) if quick else (seconds, None)
    made = []
    for data in filter(available, NAMES):
        table = open_dataset(data, directory)
        found = {"directory": directory, "data": data, "fingerprint": table.fingerprint, "rows": rows}
        for seed in range(seeds):
            if table.truth is not None:
                made.append(
                    Cell(f"{LIKELIHOOD}-{data}-{TRUTH}-{seed}", measure_truth, found | {"seed": seed})
                )
            for task in (LIKELIHOOD, ANOMALY) if data in ANOMALIES else (LIKELIHOOD,):
                for name, method in METHODS.items():
                    if method.available and (method.density or task == ANOMALY):
                        settings = {**found, "task": task, "method": name, "seed": seed, "seconds": seconds}
                        made.append(Cell(f"{task}-{data}-{name}-{seed}", measure, settings))
    return made


def measure(
    folder: Path,
    directory: str,
    data: str,
    fingerprint: str,
    rows: int | None,
    task: str,
    method: str,
    seed: int,
    seconds: float,
) -> dict[str, Any]:
    """Fits a method and judges it by the test rows.

    Args:
        folder: of the cell.
        directory: of the files.
        data: name of the data set.
        fingerprint: that its values must have.
        rows: how many of its first ones to take; None for all.
        task: `likelihood` or `anomaly`.
        method: of `METHODS`.
        seed: of split, weights and noise.
        seconds: of processor time for fitting.

    Returns:
        Sizes, seconds taken, the model's own information and what `_judge` says of it; of LED's own flow the same
        under `generator`, and with the task `likelihood` the `gain` of the tilt over it, mean and standard error.
    """
    table = _table(directory, data, fingerprint, rows)
    split = (likelihood_split if task == LIKELIHOOD else anomaly_split)(table, seed)
    chosen = METHODS[method]
    if chosen.needs:
        import_module(chosen.needs)  # before the clock starts
    start = time.process_time()
    model = chosen.fit(split.train, split.validation, seconds, seed)
    taken = time.process_time() - start
    usual = model.log_prob(split.test)
    odd = None if split.odd is None else model.log_prob(split.odd)
    result = {
        "columns": split.test.shape[1],
        "train_rows": len(split.train.values),
        "test_rows": len(split.test),
        "training_seconds": taken,
        "info": model.info,
        **_judge(usual, odd),
    }
    if model.generator is not None:
        own = model.generator(split.test)
        result["generator"] = _judge(own, None if split.odd is None else model.generator(split.odd))
        if odd is None:
            result["gain"] = _mean(usual - own)
    return result


def measure_truth(
    folder: Path, directory: str, data: str, fingerprint: str, rows: int | None, seed: int
) -> dict[str, Any]:
    """What the density that the data were drawn from gives the test rows."""
    table = _table(directory, data, fingerprint, rows)
    if table.truth is None:
        raise ValueError(f"measure_truth: data must be of known density, got {data!r}")
    return _judge(table.truth.log_prob(likelihood_split(table, seed).test), None)


def _table(directory: str, data: str, fingerprint: str, rows: int | None) -> LabelledTable:
    table = open_dataset(data, directory)
    if table.fingerprint != fingerprint:
        raise InputError(
            f"{directory}: {data} has changed since these results were begun; choose a new --out"
        )
    return table if rows is None else table.first(rows)


def _judge(usual: np.ndarray, odd: np.ndarray | None) -> dict[str, Any]:
    """Mean log density of test rows, or how well it tells odd rows from them.

    A row whose log density is not a number counts as impossible, because a broken density must not win.
    """
    usual = np.where(np.isnan(usual), -np.inf, usual)
    if odd is None:
        return {"log_likelihood": _mean(usual), "not_finite": int((~np.isfinite(usual)).sum())}
    odd = np.where(np.isnan(odd), -np.inf, odd)
    return {"auroc": auroc(torch.from_numpy(usual), torch.from_numpy(odd))}


def _mean(values: np.ndarray) -> dict[str, float | None]:
    """Mean and its standard error; None where a value is not finite, which JSON cannot hold."""
    if not np.isfinite(values).all():
        return {"mean": None, "standard_error": None}
    return {"mean": float(values.mean()), "standard_error": float(values.std() / np.sqrt(len(values)))}
