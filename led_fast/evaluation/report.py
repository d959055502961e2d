"""The report of a density on the plane: quality, divergences, and how far the normaliser can be believed."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from led_fast.data import DataSource
from led_fast.density import DensityModel, QuadratureEstimate, eval_mode, kl_gate, summarize_log_weights
from led_fast.density.json_values import finite
from led_fast.evaluation.divergence import divergence_from, standard_error
from led_fast.evaluation.modes import bridge_percent, count_modes
from led_fast.evaluation.normalizer import (
    anneal,
    estimate_broadly,
    plane_verdict,
    quadrature_in_data_coordinates,
)
from led_fast.evaluation.schema import SCHEMA
from led_fast.random_state import seeded
from led_fast.surroundings import usual

QUALITY_SAMPLES = 2500  # as in the literature
_BATCHES, _BATCH = 20, 1000  # importance weights
_HELD_OUT = 50_000


@dataclass(frozen=True)
class Evaluation:
    """A report of JSON values, and the draws that it is about.

    Attributes:
        report: see `evaluate`.
        data: points of the data, (n, 2); all of these are on the CPU.
        samples: the generator's, (n, 2).
        refined: importance-resampled, (n, 2).
    """

    report: dict[str, Any]
    data: Tensor
    samples: Tensor
    refined: Tensor


@usual()
@torch.no_grad()
def evaluate(model: DensityModel, source: DataSource, seed: int) -> Evaluation:
    """Evaluates a model against its data, and against the truth where that is known.

    The report, see docs/report.md, holds, in nats unless a name says percent: `modes`, `modes_total`,
    `high_quality_percent` (2,500 draws within 3 standard deviations of the nearest center) with `…_refined` and
    `…_oracle` (true samples) beside it; `bridge_percent` (share of 20,000 draws beyond 3 standard deviations of
    every center);
    `kl_data_model` KL(p* ‖ p_θ) and `kl_generator_model` KL(q ‖ p_θ), an upper bound where the generator
    drops coordinates; `held_out_nll` beside the `entropy`, its least possible value; `log_normalizer`,
    the `Verdict` of `plane_verdict`; `kl_gate`. What needs the truth is None where it is unknown.

    Args:
        model: in the data's coordinates.
        source: its data.
        seed: of every draw made here.
    """
    device = model.log_normalizer.device
    with seeded(seed, device), eval_mode(model):
        held_out = source.held_out(_HELD_OUT).to(device)
        samples = model.sample(QUALITY_SAMPLES)
        refined = model.refined_sample(QUALITY_SAMPLES)
        drawn, log_weights = _weigh_generator(model)
        broad, annealed = estimate_broadly(model.critic, source), anneal(model.critic, source, refined.x)
        quadrature = _known_quadrature(model) or quadrature_in_data_coordinates(
            model.critic, source.shift, source.scale
        )
        log_prob = model.log_prob(held_out).double()
    held_out, samples, refined_points, drawn, log_prob = (
        x.cpu() for x in (held_out, samples, refined.x, drawn, log_prob)
    )
    gate = kl_gate(log_weights, quadrature.value, quadrature.error)
    verdict = plane_verdict(summarize_log_weights(log_weights), broad, annealed, quadrature)
    report = {
        "schema": SCHEMA,
        **_quality(samples, refined_points, drawn, held_out, source),
        "refinement_ess_fraction": refined.ess_fraction,
        **_divergence(log_prob, held_out, source),
        "kl_generator_model": gate.kl,
        "held_out_nll": -log_prob.mean().item(),
        "held_out_nll_standard_error": standard_error(log_prob),
        "held_out_points": len(held_out),
        "entropy": source.mixture.entropy if source.mixture else None,
        "log_normalizer": verdict.to_json(),
        "kl_gate": gate._asdict(),
    }
    return Evaluation(finite(report), held_out[:QUALITY_SAMPLES], samples, refined_points)


def _known_quadrature(model: DensityModel) -> QuadratureEstimate | None:
    """The quadrature that the model's log α is from; None where it is from elsewhere."""
    known = model.verdict and model.verdict.evidence.get("quadrature")
    return QuadratureEstimate.from_json(known) if known else None


def _weigh_generator(model: DensityModel) -> tuple[Tensor, Tensor]:
    """Draws of the generator, (n, 2), and their log-weights f - log q, (batches, n / batches)."""
    draws = [model.generator.rsample_and_log_prob(_BATCH) for _ in range(_BATCHES)]
    log_weights = torch.stack([model.unnormalized_log_prob(y) - log_q for y, log_q in draws])
    return torch.cat([y for y, _ in draws]), log_weights


def _quality(
    samples: Tensor, refined: Tensor, drawn: Tensor, data: Tensor, source: DataSource
) -> dict[str, Any]:
    if source.mixture is None:
        keys = (
            "modes",
            "modes_total",
            "modes_refined",
            "high_quality_percent",
            "high_quality_percent_refined",
        )
        return dict.fromkeys((*keys, "high_quality_percent_oracle", "bridge_percent"))
    raw, resampled, oracle = (
        count_modes(x[:QUALITY_SAMPLES], source.mixture) for x in (samples, refined, data)
    )
    return {
        "modes": raw.modes,
        "modes_total": len(source.mixture.centers),
        "modes_refined": resampled.modes,
        "high_quality_percent": raw.high_quality_percent,
        "high_quality_percent_refined": resampled.high_quality_percent,
        "high_quality_percent_oracle": oracle.high_quality_percent,
        "bridge_percent": bridge_percent(drawn, source.mixture),
    }


def _divergence(log_prob: Tensor, data: Tensor, source: DataSource) -> dict[str, Any]:
    if source.mixture is None:
        return {"kl_data_model": None, "kl_data_model_standard_error": None}
    return divergence_from(source.mixture, data, log_prob)
