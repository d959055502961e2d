"""DensityModel: log densities and refined samples."""

import copy
import warnings
from pathlib import Path

import pytest
import torch
from flow_oracles import gaussian_mixture
from safetensors.torch import load_file, save_file

from led_fast.density import (
    DensityModel,
    QuadratureEstimate,
    UnreliableNormalizerWarning,
    by_quadrature,
    quadrature_log_normalizer,
)
from led_fast.density.refinement import _systematic
from led_fast.flows import BatchNorm, Linear, OneWayFlow, StandardNormal
from led_fast.models import points_critic, points_generator
from led_fast.training.checkpoint import load_state, save_state

QUADRATURE = QuadratureEstimate(-3.25, 1e-5, 1e-7, 1000)
DOUBTFUL = by_quadrature(QuadratureEstimate(-3.25, 1.0, 1e-7, 1000))
MEANS = torch.tensor([[1.0, 0.0], [-1.0, 0.5]])


class Mixture(torch.nn.Module):
    def forward(self, x):
        return 1.7 + gaussian_mixture(MEANS, 0.3)(x)


@pytest.fixture
def model():
    torch.manual_seed(0)
    generator = OneWayFlow(StandardNormal(2), [Linear(2)])
    return DensityModel(Mixture(), generator)


def test_log_prob_needs_a_normalizer_and_then_integrates_to_one(model):
    x = torch.randn(5, 2)
    with pytest.raises(RuntimeError, match="log_normalizer is not set"):
        model.log_prob(x)
    model.set_log_normalizer(quadrature_log_normalizer(model.unnormalized_log_prob, (-5, -5), (5, 5)).value)
    torch.testing.assert_close(model.log_prob(x), gaussian_mixture(MEANS, 0.3)(x), atol=2e-4, rtol=0)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_refinement_refuses_weights_that_are_not_finite(broken):
    log_weights = torch.zeros(10)
    log_weights[3] = broken
    with pytest.raises(ValueError, match="not finite"):
        _systematic(log_weights, 4)
    with pytest.raises(ValueError, match="all are zero"):
        _systematic(torch.full((10,), -float("inf")), 4)


def test_refinement_of_nothing_is_refused(model):
    with pytest.raises(ValueError, match="n must be positive, got 0"):
        model.sample(0, refine=True)


def test_refined_samples_follow_the_density(model):
    refined = model.refined_sample(4000, draws_per_sample=20)
    near = torch.cdist(refined.x, MEANS) < 3 * 0.3
    assert near.any(dim=1).float().mean() > 0.97  # .989 by theory
    assert near[:, 0].float().mean().item() == pytest.approx(0.4945, abs=0.04)
    raw = torch.cdist(model.sample(4000), MEANS) < 3 * 0.3
    assert raw.any(dim=1).float().mean() < 0.7
    # Between the two: the ESS that theory gives for these weights, 1 / ∫ p²/q, by quadrature.
    expected = -quadrature_log_normalizer(
        lambda x: 2 * (model.critic(x) - 1.7) - StandardNormal(2).log_prob(x), (-5, -5), (5, 5)
    ).value
    assert refined.ess_fraction == pytest.approx(torch.tensor(expected).exp().item(), rel=0.05)


def test_resampling_is_unbiased_and_shuffled():
    weights = torch.tensor([0.5, 0.3, 0.15, 0.05])
    counts = torch.stack([torch.bincount(_systematic(weights.log(), 3), minlength=4) for _ in range(4000)])
    assert (counts.double().mean(0) / 3 - weights).abs().max() < 0.01
    assert set(counts[:, 0].tolist()) == {1, 2}  # 3 x 0.5, rounded up or down
    first = torch.stack([_systematic(weights.log(), 3)[0] for _ in range(1000)])
    assert (first == 0).double().mean().item() == pytest.approx(0.5, abs=0.08)


def test_refining_draws_of_the_density_itself_changes_nothing():
    torch.manual_seed(0)
    generator = OneWayFlow(StandardNormal(2), [Linear(2)])
    model = DensityModel(torch.nn.Module(), generator)
    model.critic.forward = StandardNormal(2).log_prob
    assert model.refined_sample(500).ess_fraction == pytest.approx(1.0, abs=1e-5)
    assert (
        len(model.sample(500, refine=True).unique(dim=0)) > 490
    )  # systematic resampling repeats nothing needlessly


def test_sampling_leaves_modes_and_statistics_alone():
    generator = OneWayFlow(StandardNormal(2), [BatchNorm(2)])
    model = DensityModel(points_critic(), generator)
    model.sample(10)
    model.sample(10, refine=True)
    assert generator.training and not generator.layers[0].initialized


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_normalizer_is_not_rounded_where_networks_are(model, dtype):
    value = -1783.37
    model.set_log_normalizer(value)
    model.to(dtype)
    assert model.log_normalizer.item() == value and model.generator.layers[0].weight.dtype == dtype
    assert "log_normalizer" in model.state_dict()
    assert model.to("meta").log_normalizer.is_meta


def test_state_dict_carries_the_normalizer():
    torch.manual_seed(0)
    model = DensityModel(points_critic(), points_generator())
    model.set_verdict(by_quadrature(QUADRATURE))
    other = DensityModel(points_critic(), points_generator())
    other.load_state_dict(model.state_dict())
    assert other.verdict == model.verdict == copy.deepcopy(model).verdict == copy.deepcopy(other).verdict
    assert model.double().verdict.reliable and model.float().log_normalizer == -3.25
    x = torch.randn(4, 2)
    torch.testing.assert_close(other.log_prob(x), model.log_prob(x), rtol=0, atol=0)
    torch.testing.assert_close(copy.deepcopy(model).log_prob(x), model.log_prob(x), rtol=0, atol=0)
    other.load_state_dict(DensityModel(points_critic(), points_generator()).state_dict())
    assert other.verdict is None and other.log_normalizer.isnan()


@pytest.mark.parametrize("verdict", [None, by_quadrature(QUADRATURE), DOUBTFUL])
def test_files_carry_the_verdict(model, verdict, tmp_path):
    model.set_log_normalizer(1.0) if verdict is None else model.set_verdict(verdict)
    save_state(tmp_path / "model.safetensors", "model", {"model": dict(model.state_dict())})
    torch.save(model.state_dict(), tmp_path / "model.pt")
    save_file(
        {key: value.clone() for key, value in model.state_dict().items()}, tmp_path / "plain.safetensors"
    )
    for state in (
        load_file(tmp_path / "plain.safetensors"),
        load_state(tmp_path / "model.safetensors", "model")["model"],
        torch.load(tmp_path / "model.pt", weights_only=True),
    ):
        other = DensityModel(Mixture(), OneWayFlow(StandardNormal(2), [Linear(2)]))
        other.load_state_dict(state)
        assert other.verdict == verdict and other.log_normalizer == model.log_normalizer


@pytest.mark.parametrize("parts", [(-3.25, 1e-5, 1e-7, 1000.0), (-3.25, 0.0, 0.0, 0.0)])
@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_state_of_version_0_1_is_read(model, parts, prefix):
    state = model.state_dict()
    del state["_extra_state"]
    state["log_normalizer"].fill_(parts[0])
    state["_quadrature"] = torch.tensor(parts, dtype=torch.float64)
    state = {prefix + key: value for key, value in state.items()}
    root = torch.nn.ModuleDict({"model": model}) if prefix else model
    root.load_state_dict(state, strict=True)
    assert model.log_normalizer == -3.25 and f"{prefix}_quadrature" in state
    assert model.verdict == (by_quadrature(QuadratureEstimate(*parts[:3], 1000)) if parts[3] else None)


def test_a_value_that_nobody_judged_has_no_verdict(model):
    model.set_verdict(DOUBTFUL)
    model.set_log_normalizer(2.0)
    assert model.verdict is None and model.log_normalizer == 2.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.log_prob(torch.zeros(1, 2))
        model.set_verdict(by_quadrature(QUADRATURE))
        model.log_prob(torch.zeros(1, 2))


def test_a_doubtful_normalizer_warns_once(model):
    def warned(function):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            function()
        return [(w.category, str(w.message), Path(w.filename).name) for w in caught]

    x = torch.zeros(1, 2)
    here = Path(__file__).name
    text = "log α is not reliable, and all log densities may be off by as much: quadrature has an error of 1 nats"
    for function in (
        lambda: model.log_prob(x),
        lambda: model.refined_sample(2),
        lambda: model.sample(2, refine=True),
    ):
        model.set_verdict(DOUBTFUL)
        assert not warned(lambda: model.sample(2))  # the generator's draws need no log α
        (warning,) = warned(function)
        assert warning[:2] == (UnreliableNormalizerWarning, text)
        assert not warned(function)
    model.set_verdict(DOUBTFUL)
    assert warned(lambda: model.log_prob(x))[0][2] == here
    assert not warned(lambda: copy.deepcopy(model).log_prob(x))


def test_a_doubtful_normalizer_under_transforms(model):
    model.set_verdict(DOUBTFUL)
    x = torch.randn(4, 2)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        wanted = model.log_prob(x)
        model.set_verdict(DOUBTFUL)
        batched = torch.vmap(lambda row: model.log_prob(row[None])[0])(x)
        compiled = torch.compile(model.log_prob, backend="eager")(x)
        gradient = torch.func.grad(lambda x: model.log_prob(x).sum())(x)
    torch.testing.assert_close(batched, wanted)
    torch.testing.assert_close(compiled, wanted)
    assert gradient.isfinite().all()
