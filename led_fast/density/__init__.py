"""Densities from critics: objectives, normalisers, and how far to believe them."""

from led_fast.density.annealed import AnnealedBracket, AnnealedEstimate, annealed_log_normalizer
from led_fast.density.annealing import AnnealingError
from led_fast.density.bits import bits_per_dim
from led_fast.density.bounded import (
    BoundedEstimate,
    betting_interval,
    estimate_bounded_log_normalizer,
    summarize_bounded_log_weights,
)
from led_fast.density.diagnostics import effective_sample_size, max_weight_share, pareto_k
from led_fast.density.latent import LatentAscent, ascend, far_latents, interpolate
from led_fast.density.micro_batch import in_micro_batches
from led_fast.density.mode import eval_mode
from led_fast.density.model import DensityModel
from led_fast.density.normalizer import (
    KLGate,
    NormalizerEstimate,
    estimate_log_normalizer,
    kl_gate,
    summarize_log_weights,
)
from led_fast.density.objectives import (
    critic_loss,
    floored_target,
    forward_kl_loss,
    log_mean_exp,
    mixed_kl_loss,
    reverse_kl_loss,
)
from led_fast.density.penalty import squared_gradient
from led_fast.density.proposals import CoveringProposal, KernelProposal, Proposal, ProposalDraw
from led_fast.density.quadrature import QuadratureEstimate, quadrature_log_normalizer
from led_fast.density.refinement import RefinedSample
from led_fast.density.verdict import (
    UnreliableNormalizerWarning,
    Verdict,
    Witness,
    by_quadrature,
    exactly,
    judge,
)

__all__ = [
    "AnnealedBracket",
    "AnnealedEstimate",
    "AnnealingError",
    "BoundedEstimate",
    "CoveringProposal",
    "DensityModel",
    "KLGate",
    "KernelProposal",
    "LatentAscent",
    "NormalizerEstimate",
    "Proposal",
    "ProposalDraw",
    "QuadratureEstimate",
    "RefinedSample",
    "UnreliableNormalizerWarning",
    "Verdict",
    "Witness",
    "annealed_log_normalizer",
    "ascend",
    "betting_interval",
    "bits_per_dim",
    "by_quadrature",
    "critic_loss",
    "effective_sample_size",
    "estimate_bounded_log_normalizer",
    "estimate_log_normalizer",
    "eval_mode",
    "exactly",
    "far_latents",
    "floored_target",
    "forward_kl_loss",
    "in_micro_batches",
    "interpolate",
    "judge",
    "kl_gate",
    "log_mean_exp",
    "max_weight_share",
    "mixed_kl_loss",
    "pareto_k",
    "quadrature_log_normalizer",
    "reverse_kl_loss",
    "squared_gradient",
    "summarize_bounded_log_weights",
    "summarize_log_weights",
]
