"""The report of a table's density: likelihood, what the tilt adds, log α, samples, anomalies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from led_fast.data.tables import Column, TableSource
from led_fast.density import (
    DensityModel,
    Verdict,
    Witness,
    estimate_bounded_log_normalizer,
    eval_mode,
    judge,
    kl_gate,
)
from led_fast.density.json_values import finite
from led_fast.errors import InputError
from led_fast.evaluation.auroc import auroc
from led_fast.evaluation.cells import POINTS_AT_A_TIME, Cells, LogDensity, check_log_density
from led_fast.evaluation.divergence import standard_error
from led_fast.evaluation.schema import SCHEMA
from led_fast.evaluation.table_quality import correlation_difference, kolmogorov_smirnov
from led_fast.random_state import seeded
from led_fast.surroundings import usual

_TEST_ROWS, _TRAIN_ROWS = 100_000, 20_000  # at most
_NOISE_DRAWS = 4  # a discrete row
_COMPARED = 10_000  # rows beside samples, at most
_GATE_DRAWS = 20_000


@dataclass(frozen=True)
class LabelledRows:
    """Rows to tell apart by their density, as in the file.

    Attributes:
        column: the label's.
        value: that the odd rows have in it.
        odd: (m, D) float64.
        others: (n, D) float64; rows that the model has not seen.
    """

    column: str
    value: str
    odd: Tensor
    others: Tensor


def labelled_rows(source: TableSource, column: str, value: str) -> LabelledRows:
    """Test rows, at most 100,000, by a column of labels.

    Raises:
        InputError: no such column was ignored, or no test row has the value in it, or all have.
    """
    rows, odd = source.rows("test", _TEST_ROWS), source.has_label(column, value, "test", _TEST_ROWS)
    if not 0 < int(odd.sum()) < len(odd):
        raise InputError(
            f"{source.name}: {int(odd.sum())} of {len(odd)} test rows have {column} = {value}; want some and not all"
        )
    return LabelledRows(column, value, rows[odd], rows[~odd])


@dataclass(frozen=True)
class TableEvaluation:
    """A report of JSON values, and what its figures show.

    Attributes:
        report: see `evaluate_table`.
        data: test rows, (n, D); all of these are float64 on the CPU, discrete columns on their lattices.
        samples: the generator's, (n, D).
        refined: importance-resampled, (n, D).
    """

    report: dict[str, Any]
    data: Tensor
    samples: Tensor
    refined: Tensor


@usual()
@torch.no_grad()
def evaluate_table(
    model: DensityModel,
    source: TableSource,
    seed: int,
    cap: float,
    anomaly: LabelledRows | None = None,
    draws: int = 100_000,
) -> TableEvaluation:
    """Evaluates a model on rows that it has not seen.

    Likelihoods are means over rows in nats, in the data's own units, of dequantised rows: a discrete column counts
    per unit of its noise. The report holds

    - `test_log_likelihood` with `…_standard_error`, `…_reason` (why it is None, else empty), `test_rows`;
      `generator_log_likelihood` of the same rows, `gain` of the tilt and `gain_standard_error`, paired by row,
      without the error of log α, which moves all rows alike and is the width of its interval;
      `train_log_likelihood` of `train_rows` rows, to see what was learned by heart;
    - `log_normalizer`: a `Verdict` on the model's log α by `draws` fresh draws of the generator; `kl_gate` by others;
    - `columns`: for each its `kind` ("continuous" or "discrete"), the fields of `Column`, and Kolmogorov-Smirnov
      distances to test rows: `ks_samples` of the generator's draws, `ks_refined` of resampled ones, `ks_train` of as
      many training rows, which no model can be asked to beat; `constants`, `name` and `value` of columns that are not
      modelled; `notes`, what was done to the table;
    - `correlation_samples`, `correlation_refined`, `correlation_train`: root mean square differences of rank
      correlations from those of test rows; `compared_rows` of each; `refinement_ess_fraction`;
    - `anomaly`, None without labels: `column`, `value`, `odd_rows`, `other_rows`, `auroc` and `auroc_generator`, the
      share of pairs in which the odd row is less dense. Log α moves neither.

    Args:
        model: in the data's coordinates.
        source: its data.
        seed: of every draw made here.
        cap: bound of the model's log-weights f - log q, in nats.
        anomaly: rows by label.
        draws: of the generator, for log α.

    Raises:
        InputError: a row's log density is NaN or +inf; names the first such row. Where it is -inf, a density of 0,
            likelihoods are reported as None.
    """
    device, columns = model.log_normalizer.device, source.columns
    with seeded(seed, device), eval_mode(model.critic, model.generator):
        test, train = source.rows("test", _TEST_ROWS), source.rows("train", _TRAIN_ROWS)
        ours, generators = _log_densities(model, source, test, "test row")
        learned, _ = _log_densities(model, source, train, "training row")
        verdict = _verdict(model, cap, draws)
        gate = _gate(model, verdict)
        compared = min(len(test), len(train), _COMPARED)
        samples = model.sample(compared).double().cpu()
        refined = model.refined_sample(compared)
        anomalies = None if anomaly is None else _anomaly(model, anomaly, columns)
    cells = Cells(columns)
    data, samples, refined_rows = (cells.centres(x) for x in (test[:compared], samples, refined.x.cpu()))
    others = {"samples": samples, "refined": refined_rows, "train": train[:compared]}
    report = {
        "schema": SCHEMA,
        "test_log_likelihood": ours.mean().item(),
        "test_log_likelihood_standard_error": standard_error(ours),
        "test_log_likelihood_reason": _why_infinite(ours),
        "test_rows": len(test),
        "generator_log_likelihood": generators.mean().item(),
        "gain": (ours - generators).mean().item(),
        "gain_standard_error": standard_error(ours - generators),
        "train_log_likelihood": learned.mean().item(),
        "train_rows": len(train),
        "log_normalizer": verdict.to_json(),
        "kl_gate": gate,
        "columns": _columns(columns, data, others),
        "constants": [{"name": constant.name, "value": constant.value} for constant in source.constants],
        "notes": list(source.notes),
        **{f"correlation_{name}": correlation_difference(rows, data) for name, rows in others.items()},
        "compared_rows": compared,
        "refinement_ess_fraction": refined.ess_fraction,
        "anomaly": anomalies,
    }
    return TableEvaluation(finite(report), data, samples, refined_rows)


def _log_densities(
    model: DensityModel, source: TableSource, rows: Tensor, what: str
) -> tuple[Tensor, Tensor]:
    """Log density of the model and of its generator, each the mean over dequantised copies of a row: (n,), (n,)."""
    draws = _NOISE_DRAWS if any(column.discrete for column in source.columns) else 1
    device = model.log_normalizer.device
    sums = torch.zeros(2, len(rows), dtype=torch.float64, device="cpu")
    for _ in range(draws):
        points = source.dequantize(rows)
        for i, log_prob in enumerate((model.log_prob, model.generator.log_prob)):
            values = [log_prob(part.to(device)).double().cpu() for part in points.split(POINTS_AT_A_TIME)]
            sums[i] += torch.cat(values) / draws
    for values in sums:
        check_log_density(values, rows, what)
    return sums[0], sums[1]


def _verdict(model: DensityModel, cap: float, draws: int) -> Verdict:
    """On the model's own log α, by fresh draws of the generator; the interval holds theirs and the model's own."""
    estimate = estimate_bounded_log_normalizer(model.critic, model.generator, cap, draws)
    witness = Witness(estimate, "nothing: the generator reaches everywhere", "bounded")
    own_error = 0.0 if model.verdict is None else _half_width(model.verdict)
    value = model.log_normalizer.item()
    low, high = (value, value) if model.verdict is None else model.verdict.interval
    verdict = judge(
        value,
        {"generator": witness},
        (min(low, estimate.ci95[0]), max(high, estimate.ci95[1])),
        own_error if math.isfinite(own_error) else 0.0,
    )
    return verdict if estimate.reliable else replace(verdict, reason=f"{verdict.reason}: {estimate.reason}")


def _half_width(verdict: Verdict) -> float:
    low, high = verdict.interval
    return (high - low) / 2


def _gate(model: DensityModel, verdict: Verdict) -> dict[str, Any]:
    batches = [model.generator.rsample_and_log_prob(_GATE_DRAWS // 10) for _ in range(10)]
    log_weights = torch.cat([model.critic(y) - log_q for y, log_q in batches])
    return kl_gate(log_weights, verdict.value, _half_width(verdict))._asdict()


def _columns(columns: Sequence[Column], data: Tensor, others: dict[str, Tensor]) -> list[dict[str, Any]]:
    distances = {f"ks_{name}": kolmogorov_smirnov(rows, data).tolist() for name, rows in others.items()}
    return [
        {
            "kind": "discrete" if column.discrete else "continuous",
            **asdict(column),
            **{name: values[j] for name, values in distances.items()},
        }
        for j, column in enumerate(columns)
    ]


def _anomaly(model: DensityModel, rows: LabelledRows, columns: Sequence[Column]) -> dict[str, Any]:
    cells, device = Cells(columns), model.log_normalizer.device

    def by(log_prob: LogDensity) -> float:
        others, odd = (cells.log_density(log_prob, part, device) for part in (rows.others, rows.odd))
        return auroc(others, odd)

    return {
        "column": rows.column,
        "value": rows.value,
        "odd_rows": len(rows.odd),
        "other_rows": len(rows.others),
        "auroc": by(model.log_prob),
        "auroc_generator": by(model.generator.log_prob),
    }


def _why_infinite(log_density: Tensor) -> str:
    impossible = int((log_density == -math.inf).sum())
    return f"the density of {impossible} of {len(log_density)} test rows is 0" if impossible else ""
