"""Configs of version 0.1.0, which had one flat recipe and two kinds of data that only their shape told apart."""

from typing import Any

from led_fast.errors import InputError

_RECIPE = {
    "batch_size": "batches.data",
    "integral_samples": "batches.integral_samples",
    "integrals": "batches.integrals",
    "generator_batch": "batches.generated",
    "generator_steps": "batches.generator_steps",
    "micro_batch": "batches.micro_batch",
    "critic_learning_rate": "optimizer.critic_learning_rate",
    "generator_learning_rate": "optimizer.generator_learning_rate",
    "betas": "optimizer.betas",
    "critic_betas": "optimizer.critic_betas",
    "decay_from": "optimizer.decay_from",
    "decay_to": "optimizer.decay_to",
    "gradient_clip": "optimizer.gradient_clip",
    "gradient_penalty": "penalty.weight",
    "penalty_interval": "penalty.interval",
    "likelihood_weight": "generator_loss.likelihood_weight",
    "forward_weight": "generator_loss.forward_weight",
    "entropy_weight": "generator_loss.entropy_weight",
    "max_weight": "generator_loss.max_weight",
    "calibrate_from": "calibration.begin",
    "calibration_samples": "calibration.samples",
    "calibration_learning_rate": "calibration.learning_rate",
    "calibration_ess": "calibration.ess",
}
_POINTS = {
    "covering_share": "coverage.share",
    "broad_share": "coverage.broad_share",
    "broad_scale": "coverage.broad_scale",
    "blurred_points": "coverage.blurred_points",
    "blur_widths": "coverage.blur_widths",
    "balanced": "coverage.balanced",
    "noise_start": "noise.start",
    "noise_end": "noise.end",
    "noise_until": "noise.until",
    "floor_start": "floor.start",
    "floor_end": "floor.end",
    "floor_from": "floor.begin",
    "floor_until": "floor.until",
}


def from_format_1(content: dict[str, Any], where: str) -> dict[str, Any]:
    """The same settings in format 2; InputError naming `where` if recipe and shape cannot be settings of 0.1.0."""
    content = dict(content)
    flat = content.pop("recipe", {})
    shape = content.pop("shape", [])
    if not isinstance(flat, dict) or not isinstance(shape, list):
        raise InputError(
            f"{where}: want an object as recipe and an array as shape, got {flat!r} and {shape!r}"
        )
    model: dict[str, Any] = {name: content.pop(name, {}) for name in ("generator", "critic")}
    if len(shape) > 1:
        model["shape"] = shape
    else:
        _move(flat, _POINTS, model)
    recipe: dict[str, Any] = {}
    _move(flat, _RECIPE, recipe)
    # Its critic and generator steps shared samples of images, where they wanted as many.
    batches = recipe.setdefault("batches", {})
    integrals, samples, generated = (batches.get(n) for n in ("integrals", "integral_samples", "generated"))
    counts = all(isinstance(number, int) for number in (integrals, samples, generated))
    as_many = counts and integrals * samples == generated
    batches["shared"] = len(shape) > 1 and flat.get("objective") != "gan" and as_many
    # 0.1.0 recorded no step, and trained in float32.
    older = {"format": 2, "kind": "images" if len(shape) > 1 else "points", "cuda_graph": "off"}
    unmoved = {key: value for key, value in flat.items() if key not in _RECIPE and key not in _POINTS}
    return {**older, **content, "recipe": {**recipe, **unmoved}, "model": model}


def _move(flat: dict[str, Any], names: dict[str, str], nested: dict[str, Any]) -> None:
    for old, new in names.items():
        if old in flat:
            group, _, leaf = new.partition(".")
            nested.setdefault(group, {})[leaf] = flat[old]
