"""Whole flows: tracked densities, scores and gradients against brute force."""

import copy
import pickle

import pytest
import torch
from flow_oracles import joint_log_prob, joint_map, joint_score, randomize, record_noise

from led_fast.density import quadrature_log_normalizer
from led_fast.flows import (
    ActNorm,
    BatchNorm,
    GaussianConditional,
    Inflate,
    LearnedConditional,
    Linear,
    MixtureBase,
    OneWayFlow,
    ScoredSample,
    Sigmoid,
    Slice,
    SoftReLU,
    Staircase,
    StandardNormal,
)
from led_fast.models import image_generator


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(3)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def stack(norm=ActNorm):
    """Up, through, down in two slices, through, and into a box: every kind of layer."""
    flow = OneWayFlow(
        StandardNormal(2),
        [
            Inflate(1), Linear(3), SoftReLU(), Inflate(2), Linear(5), norm(5), Staircase(5, steps=3),
            Linear(5), Slice(5, 3, LearnedConditional(2, 3, width=8)), Linear(3),
            Slice(3, 2, GaussianConditional(0.8)), Linear(2), Sigmoid(),
        ],
    )  # fmt: skip
    flow.rsample_and_log_prob(64)
    return randomize(flow, 0.1).eval()


@pytest.mark.parametrize("norm", [ActNorm, BatchNorm])
def test_tracked_density_is_the_jacobians(norm, monkeypatch):
    flow = stack(norm)
    log_r = []
    for layer in flow.layers:
        if isinstance(layer, Slice):
            layer.register_forward_hook(lambda *args: log_r.append(args[2][1]))
    noise = record_noise(flow, monkeypatch)
    y, log_q = flow.rsample_and_log_prob(4)
    joint = log_q + sum(log_r)
    for i, u in enumerate(torch.cat(noise, dim=1)):
        torch.testing.assert_close(joint_map(flow, u)[:2], y[i])
        torch.testing.assert_close(joint[i], joint_log_prob(flow, u), rtol=1e-9, atol=1e-9)


def test_score_carrying_draw_agrees_with_the_plain_one():
    flow = stack()
    torch.manual_seed(0)
    y, log_q = flow.rsample_and_log_prob(6)
    torch.manual_seed(0)
    sample = flow.rsample_with_score(6)
    torch.testing.assert_close(sample.y, y)
    for value in sample[1:]:
        torch.testing.assert_close(value, log_q)


def gradients(value, flow):
    grads = torch.autograd.grad(value.sum(), list(flow.parameters()), retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(grads, flow.parameters(), strict=True)]


def test_path_gradient_is_the_brute_force_scores(monkeypatch):
    flow = stack()
    noise = record_noise(flow, monkeypatch)
    sample = flow.rsample_with_score(1)
    u = torch.cat(noise, dim=1)[0].detach()

    score = joint_score(flow, u).detach()
    log_r = _log_r(flow, u)
    expected = gradients(score @ joint_map(flow, u) - log_r, flow)
    for fast, slow in zip(gradients(sample.log_q_path, flow), expected, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-8, atol=1e-9)


def _log_r(flow, u):
    t, rest, log_r = u[None, :2], u[2:], 0.0
    for layer in flow.layers:
        if isinstance(layer, Inflate):
            t, rest = torch.cat([t, rest[None, : layer.features]], dim=1), rest[layer.features :]
        else:
            t, ladj = layer(t)
            log_r = log_r + ladj.sum() if isinstance(layer, Slice) else log_r
    return log_r


def test_gradient_parts_add_up():
    sample = (flow := stack()).rsample_with_score(5)
    full, path, fixed = (gradients(value, flow) for value in sample[1:])
    for whole, a, b in zip(full, path, fixed, strict=True):
        torch.testing.assert_close(whole, a + b, rtol=1e-8, atol=1e-9)


def test_fixed_gradient_of_a_linear_flow_is_analytic():
    # y = W z + b: at fixed y, d log q / db = (W Wᵀ)⁻¹ (y - b), independent of how y was drawn.
    flow = OneWayFlow(StandardNormal(2), [randomize(Linear(2))])
    sample = flow.rsample_with_score(7)
    layer = flow.layers[0]
    (by_bias,) = torch.autograd.grad(sample.log_q_fixed.sum(), layer.bias)
    covariance = (layer.weight @ layer.weight.mT).detach()
    expected = torch.linalg.solve(covariance, (sample.y - layer.bias).sum(0).detach())
    torch.testing.assert_close(by_bias, expected)


def test_fixed_gradients_average_to_zero():
    # E_q[∇ log q(y) at fixed y] = ∇ ∫ q = 0, for every parameter that does not belong to r.
    flow = OneWayFlow(MixtureBase(2, 3), [Linear(2), Staircase(2, steps=2), Linear(2)])
    randomize(flow)
    draws = [gradients(flow.rsample_with_score(200).log_q_fixed, flow) for _ in range(100)]
    batches = torch.stack([torch.cat([g.flatten() for g in draw]) for draw in draws])
    z = batches.mean(0) / (batches.std(0) / 10)
    assert z.abs().max() < 4.5 and batches.std(0).min() > 0


def test_density_of_a_plane_flow_matches_its_numerical_inverse():
    layers = [Linear(2), Staircase(2, steps=3), Linear(2), SoftReLU(), Linear(2)]
    flow = randomize(OneWayFlow(StandardNormal(2), layers), 0.2)

    @torch.no_grad()
    def log_prob(y):
        log_det = 0.0
        for layer in reversed(flow.layers):
            if isinstance(layer, Linear):
                x = torch.linalg.solve(layer.weight, (y - layer.bias).mT).mT
            else:
                low, high = torch.full_like(y, -60.0), torch.full_like(y, 60.0)
                for _ in range(64):
                    middle = (low + high) / 2
                    above = layer(middle)[0] > y
                    low, high = torch.where(above, low, middle), torch.where(above, middle, high)
                x = (low + high) / 2
            log_det = log_det + layer(x)[1]
            y = x
        return flow.base.log_prob(y) - log_det

    y, log_q = flow.rsample_and_log_prob(200)
    torch.testing.assert_close(log_prob(y), log_q.detach(), rtol=1e-9, atol=1e-9)
    assert quadrature_log_normalizer(log_prob, (-12, -12), (12, 12), cells=64).value == pytest.approx(
        0.0, abs=2e-4
    )


def test_a_flow_is_a_layer():
    inner = randomize(OneWayFlow(StandardNormal(2), [Linear(2), SoftReLU()]))
    outer = OneWayFlow(StandardNormal(2), [inner, Linear(2)])
    flat = OneWayFlow(StandardNormal(2), [*inner.layers, outer.layers[1]])
    z = torch.randn(5, 2)
    torch.testing.assert_close(outer(z), flat(z))
    torch.manual_seed(0)
    nested = outer.rsample_with_score(5)
    torch.manual_seed(0)
    for a, b in zip(nested, flat.rsample_with_score(5), strict=True):
        torch.testing.assert_close(a, b)


def test_copies_and_state_dicts():
    flow = stack()
    other = stack()
    other.load_state_dict(flow.state_dict())
    draws = []
    for model in (flow, other, copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        torch.manual_seed(5)
        draws.append(model.rsample_and_log_prob(8))
    for draw in draws[1:]:
        torch.testing.assert_close(draw, draws[0], rtol=0, atol=0)


def test_samples_without_gradients():
    y = stack().sample(5)
    assert y.shape == (5, 2) and not y.requires_grad and ((y > 0) & (y < 1)).all()
    assert stack().rsample(0).shape == (0, 2)


@torch.no_grad()
def test_log_prob_of_a_flow_is_that_of_its_draws():
    flow = randomize(image_generator("tiny").double(), 0.05).eval()
    flow.base.double()
    y, log_q = flow.rsample_and_log_prob(5)
    torch.testing.assert_close(flow.log_prob(y), log_q, rtol=1e-7, atol=1e-7)
    mixture = OneWayFlow(MixtureBase(3, 2), [Linear(3), Inflate(2), randomize(Linear(5)), SoftReLU()])
    mixture = mixture.double()
    y, log_q = mixture.rsample_and_log_prob(5)
    torch.testing.assert_close(mixture.log_prob(y), log_q)
    assert mixture.invertible and not mixture.bijective


@torch.no_grad()
def test_log_prob_in_float32():
    torch.set_default_dtype(torch.float32)
    flow = randomize(image_generator("tiny"), 0.05).eval()
    y, log_q = flow.rsample_and_log_prob(64)
    torch.testing.assert_close(flow.log_prob(y), log_q, rtol=1e-3, atol=1e-1)


def test_the_two_ways_to_draw_are_one():
    flow = stack().eval()
    torch.manual_seed(3)
    y = flow.rsample(5)
    torch.manual_seed(3)
    assert torch.equal(flow.rsample_and_log_prob(5)[0], y) and y.requires_grad
    torch.manual_seed(3)
    assert torch.equal(flow.sample(5), y)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_densities_alone(dtype):
    torch.set_default_dtype(torch.float32)
    flow = OneWayFlow(MixtureBase(2, 3), [Linear(2), Staircase(2), SoftReLU(), Linear(2)])
    randomize(flow)

    def found():
        torch.manual_seed(1)
        y, log_q = flow.rsample_and_log_prob(5)
        return y, log_q, flow.log_prob(y.detach()), *flow.rsample_with_score(5)

    expected = found()
    with torch.autocast("cpu", dtype):
        under_autocast = found()
        assert flow.log_prob(expected[0].to(dtype)).dtype == torch.float32
    for a, b in zip(under_autocast, expected, strict=True):
        assert torch.equal(a, b)


def test_a_loss_of_log_q_alone_takes_no_score():
    infinite = torch.full((3, 2), torch.inf)
    y, log_joint, log_r = torch.randn(3, 2, requires_grad=True), *torch.randn(2, 3).requires_grad_().unbind()
    sample = ScoredSample.of(y, log_joint, log_r, [y], [infinite])
    found = torch.autograd.grad(sample.log_q.sum(), (y, log_joint, log_r), allow_unused=True)
    assert found[0] is None
    torch.testing.assert_close(found[1:], (torch.ones(3), -torch.ones(3)))
