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
