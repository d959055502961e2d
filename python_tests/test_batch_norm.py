"""Batch normalisation by the batch's moments: values, derivatives and moments, against plain formulas in float64."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from led_fast.ops.batch_norm import batch_norm, moments

EPS = 1e-2


def plain(t, log_gamma, beta):
    """Eq. 12, and the logarithms of its slopes."""
    shape = (-1, *[1] * (t.dim() - 2))
    over = [d for d in range(t.dim()) if d != 1]
    var, mean = torch.var_mean(t, dim=over, correction=0)
    log_scale = log_gamma - 0.5 * (var + EPS).log()
    return (t - mean.view(shape)) * log_scale.exp().view(shape) + beta.view(shape), log_scale


def ours(*inputs):
    return batch_norm(*inputs, EPS)[:2]


@pytest.fixture(params=[(5, 3), (3, 2, 2, 2), (2, 1)], ids=str)
def inputs(request):
    torch.manual_seed(0)
    shape = request.param
    sizes = shape, shape[1:2], shape[1:2]
    return [torch.randn(size, dtype=torch.float64).requires_grad_() for size in sizes]


def test_values_and_moments(inputs):
    torch.testing.assert_close(ours(*inputs), plain(*inputs))
    found = batch_norm(*inputs, EPS)[2:]
    torch.testing.assert_close(found, tuple(m.detach() for m in moments(inputs[0])))
    assert not any(m.requires_grad for m in found)


def test_derivatives(inputs):
    assert gradcheck(ours, inputs) and gradgradcheck(ours, inputs)


@pytest.mark.parametrize("part", [0, 1])
def test_gradients_of_one_output(inputs, part):
    found, wanted = (
        torch.autograd.grad(function(*inputs)[part].square().sum(), inputs, materialize_grads=True)
        for function in (ours, plain)
    )
    torch.testing.assert_close(found, wanted)


def test_under_transforms(inputs):
    tangents = tuple(torch.randn_like(v) for v in inputs)
    found = torch.func.jvp(ours, tuple(inputs), tangents)[1]
    torch.testing.assert_close(found, torch.func.jvp(plain, tuple(inputs), tangents)[1])
    stacked = [torch.stack([v, 2 * v]) for v in inputs]
    torch.testing.assert_close(torch.vmap(ours)(*stacked), torch.vmap(plain)(*stacked))


def test_a_layer_that_is_used_twice_has_the_gradients_of_plain_pytorch():
    """With a graph and without: what its inputs owe to its own parameters counts once."""
    t = torch.randn(40, 3, dtype=torch.float64)
    log_gamma, beta = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def value(norm):
        once = norm(t, log_gamma, beta)
        return norm(once.tanh(), log_gamma, beta).sin().sum()

    def plain(t, log_gamma, beta):
        var, mean = torch.var_mean(t, 0, correction=0)
        return (t - mean) * (log_gamma.exp() / (var + 1e-5).sqrt()) + beta

    wanted = torch.autograd.grad(value(plain), (log_gamma, beta), create_graph=True)
    twice = torch.autograd.grad(wanted[0].square().sum(), (log_gamma, beta))
    for graph in (False, True):
        found = torch.autograd.grad(
            value(lambda *v: batch_norm(*v, 1e-5)[0]), (log_gamma, beta), create_graph=graph
        )
        torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(torch.autograd.grad(found[0].square().sum(), (log_gamma, beta)), twice)


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_a_graph_of_gradients_where_an_input_is_fixed(frozen):
    values = [torch.randn(20, 3), torch.randn(3), torch.randn(3)]
    leaves = [v.double().requires_grad_(i != frozen) for i, v in enumerate(values)]
    free = [v for v in leaves if v.requires_grad]
    out = batch_norm(*leaves, 1e-5)[0]
    first = torch.autograd.grad(out.sin().sum(), free, create_graph=True)
    assert all(g.isfinite().all() for g in torch.autograd.grad(sum(g.square().sum() for g in first), free))


def test_an_outlier_that_comes_first_costs_no_digits():
    t = torch.randn(4096, 2)
    t[0] = 3e4
    var, mean = moments(t)
    exact = torch.var_mean(t.double(), 0, correction=0)
    torch.testing.assert_close((var.double(), mean.double()), exact, rtol=1e-6, atol=1e-6)
