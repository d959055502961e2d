"""Objectives of critic and generator: their identities, gradients and optima."""

import math

import pytest
import torch
from flow_oracles import randomize

from led_fast.density import (
    critic_loss,
    floored_target,
    forward_kl_loss,
    log_mean_exp,
    mixed_kl_loss,
    reverse_kl_loss,
)
from led_fast.flows import Linear, OneWayFlow, ScoredSample, Staircase, StandardNormal


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def critic():
    return torch.nn.Sequential(
        torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1), torch.nn.Flatten(0)
    )


def gradients(value, module):
    return torch.autograd.grad(value, list(module.parameters()), retain_graph=True)


@pytest.mark.parametrize("samples", [1, 64, 256, None])
def test_critic_gradient_is_data_minus_weighted_proposals(samples):
    # Eq. 3's gradient: -mean ∇f(x) + Σ w̄_j ∇f(y_j), w̄ self-normalised within each group of S.
    f = critic()
    x, y, log_q = torch.randn(32, 2), 2 * torch.randn(512, 2), torch.randn(512)
    loss = critic_loss(f(x), f(y), log_q, samples)
    groups = 512 // (samples or 512)
    weights = (f(y) - log_q).detach().view(groups, -1).softmax(1).flatten() / groups
    expected = gradients(-f(x).mean() + (weights * f(y)).sum(), f)
    for ours, theirs in zip(gradients(loss, f), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_one_integral_sample_is_the_wasserstein_critic():
    f = critic()
    x, y, log_q = torch.randn(32, 2), torch.randn(16, 2), torch.randn(16)
    ours = gradients(critic_loss(f(x), f(y), log_q, integral_samples=1), f)
    for a, b in zip(ours, gradients(f(y).mean() - f(x).mean(), f), strict=True):
        torch.testing.assert_close(a, b)


def test_critic_loss_is_the_negative_log_likelihood_under_a_perfect_proposal():
    log_q = torch.randn(100)
    f_data = torch.randn(7)
    assert critic_loss(f_data, log_q + 1.7, log_q).item() == pytest.approx(1.7 - f_data.mean().item())


def test_log_mean_exp_does_not_overflow():
    assert log_mean_exp(torch.tensor([1e5, 1e5])).item() == pytest.approx(1e5)
    assert log_mean_exp(torch.tensor([0.0, -math.inf])).item() == pytest.approx(-math.log(2))


def generator():
    return randomize(OneWayFlow(StandardNormal(2), [Linear(2), Staircase(2, steps=2), Linear(2)]), 0.2)


def target(y):
    return -0.5 * ((y - 0.5) / 0.8).square().sum(1) + 0.3 * torch.sin(2 * y[:, 0])


@pytest.mark.parametrize("k", [1.0, 0.5])
def test_pathwise_and_plain_gradients_have_one_mean(k):
    flow = generator()

    def mean_and_error(path):
        rows = []
        for _ in range(60):
            sample = flow.rsample_with_score(500)
            loss = reverse_kl_loss(target(sample.y), sample.log_q_path if path else sample.log_q, k)
            rows.append(torch.cat([g.flatten() for g in gradients(loss, flow)]))
        rows = torch.stack(rows)
        return rows.mean(0), rows.std(0) / math.sqrt(len(rows))

    (a, a_error), (b, b_error) = mean_and_error(True), mean_and_error(False)
    assert ((a - b).abs() / (a_error.square() + b_error.square()).sqrt()).max() < 4.5


def test_entropy_weight_scales_the_density_term():
    f, log_q = torch.randn(2, 50)
    assert reverse_kl_loss(f, log_q, 0.25).item() == pytest.approx((0.25 * log_q - f).mean().item())


def test_pathwise_gradient_vanishes_sample_by_sample_at_the_optimum():
    flow = OneWayFlow(StandardNormal(2), [randomize(Linear(2))])
    sample = flow.rsample_with_score(50)
    weight, bias = flow.layers[0].weight.detach(), flow.layers[0].bias.detach()
    z = torch.linalg.solve(weight, (sample.y - bias).mT).mT
    f = -0.5 * z.square().sum(1) + 3.0  # the flow's own density, unnormalised
    for gradient in gradients(reverse_kl_loss(f, sample.log_q_path), flow):
        assert gradient.abs().max() < 1e-12


def fixed_sample(log_q):
    theta = torch.ones(len(log_q), requires_grad=True)
    return ScoredSample(torch.zeros(len(log_q), 2), log_q, log_q, log_q.detach() * theta), theta


def test_forward_kl_weights_are_self_normalised():
    f, log_q = torch.randn(2, 100)
    sample, theta = fixed_sample(log_q)
    (gradient,) = torch.autograd.grad(forward_kl_loss(f, sample, max_weight=1e9), theta)
    torch.testing.assert_close(gradient, -(f - log_q).softmax(0) * log_q)


def test_forward_kl_weights_are_clipped():
    f, log_q = torch.zeros(100), torch.full((100,), -1.0)
    f[3] = 50.0  # would carry all the weight
    sample, theta = fixed_sample(log_q)
    (gradient,) = torch.autograd.grad(forward_kl_loss(f, sample, max_weight=20.0), theta)
    expected = torch.full((100,), (50.0 * torch.ones(())).neg().exp().item())
    expected[3] = 0.2
    torch.testing.assert_close(gradient, expected / expected.sum())


def test_forward_kl_gradient_is_that_of_exact_samples():
    # A Gaussian target and generator: the gradient wrt the bias is E_p[-d log q / db] = -(E_p y - b) / var,
    # exactly.
    flow = OneWayFlow(StandardNormal(2), [Linear(2)])
    with torch.no_grad():
        flow.layers[0].weight.copy_(1.5 * torch.eye(2))
    sample = flow.rsample_with_score(200_000)
    f = -0.5 * (sample.y - 0.5).square().sum(1)
    (gradient,) = torch.autograd.grad(forward_kl_loss(f, sample, max_weight=1e9), flow.layers[0].bias)
    torch.testing.assert_close(gradient, torch.full((2,), -0.5 / 1.5**2), atol=4e-3, rtol=0)


def test_mixed_loss_mixes():
    flow = generator()
    sample = flow.rsample_with_score(300)
    f = target(sample.y)
    mixed = gradients(mixed_kl_loss(f, sample, forward_weight=0.3, entropy_weight=0.9, max_weight=5.0), flow)
    forward = gradients(forward_kl_loss(f, sample, 5.0), flow)
    reverse = gradients(reverse_kl_loss(f, sample.log_q_path, 0.9), flow)
    for m, a, b in zip(mixed, forward, reverse, strict=True):
        torch.testing.assert_close(m, 0.3 * a + 0.7 * b)


def test_floored_target_is_a_normalised_mixture_in_units_of_the_critic():
    f, log_broad = torch.randn(2, 50)
    log_alpha = 2.3
    expected = (0.98 * f.exp() + 0.02 * math.exp(log_alpha) * log_broad.exp()).log()
    torch.testing.assert_close(floored_target(f, log_alpha, log_broad, 0.02), expected)
    assert floored_target(f, log_alpha, log_broad, 0.0) is f


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: critic_loss(torch.zeros(3), torch.zeros(4), torch.zeros(3)), "one shape"),
        (
            lambda: critic_loss(torch.zeros(3), torch.zeros(4), torch.zeros(4), 3),
            "divide the 4 proposals, got 3",
        ),
        (lambda: floored_target(torch.zeros(1), 0.0, torch.zeros(1), 1.0), r"floor must lie in \[0, 1\)"),
        (lambda: mixed_kl_loss(torch.zeros(1), None, 1.5), "forward_weight"),
    ],
)
def test_bad_arguments(act, message):
    with pytest.raises(ValueError, match=message):
        act()


@pytest.mark.parametrize("samples", [1, 2, 4, 8])
def test_an_integral_of_each_size_is_the_log_of_its_mean_weight(samples):
    f_data, f, log_q = torch.randn(5), torch.randn(8).requires_grad_(), torch.randn(8)
    loss = critic_loss(f_data, f, log_q, samples)
    expected = (f - log_q).exp().view(-1, samples).mean(1).log().mean() - f_data.mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, f)[0] for value in (loss, expected)))
