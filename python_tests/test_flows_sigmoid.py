"""The way back from the box [0, 1]: logits at its ends, and what lies outside."""

import pytest
import torch

from led_fast.flows import DiagonalNormal, OneWayFlow, Sigmoid
from led_fast.flows.elementwise import logit


def test_black_pixels_keep_their_density():
    # Dequantised black is below 1/256, and a generator of it far below that: its density must be that of its draws.
    torch.manual_seed(0)
    flow = OneWayFlow(DiagonalNormal(torch.full((1, 8, 8), -7.0), 3.0), [Sigmoid()])
    y, log_q = flow.rsample_and_log_prob(200)
    assert y.min() < 1e-7
    torch.testing.assert_close(flow.log_prob(y), log_q, atol=1e-2, rtol=1e-5)


def test_edges_of_the_box_stay_finite():
    t, ladj = Sigmoid().inverse(torch.tensor([[0.0, 1.0]]))
    assert t.isfinite().all() and ladj.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logit_has_all_digits_at_both_ends(dtype):
    x = torch.tensor(
        [1e-19, 1e-12, 2**-32, 1e-3, 0.5, 0.9, 1 - 2**-20, 1 - 2**-24], dtype=dtype, requires_grad=True
    )
    exact = x.detach().double()
    torch.testing.assert_close(logit(x).double(), exact.log() - (-exact).log1p(), rtol=1e-6, atol=1e-6)
    (slope,) = torch.autograd.grad(logit(x).sum(), x)
    torch.testing.assert_close(slope.double(), 1 / (exact * (1 - exact)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_logit_is_finite_at_both_ends(dtype):
    x = torch.tensor([0.0, 1.0], dtype=dtype, requires_grad=True)
    assert logit(x).isfinite().all()
    assert torch.autograd.grad(logit(x).sum(), x)[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_logits_slope_at_the_last_number_below_one(dtype):
    last = torch.nextafter(torch.ones((), dtype=dtype), torch.zeros((), dtype=dtype)).requires_grad_()
    (slope,) = torch.autograd.grad(logit(last), last)
    torch.testing.assert_close(slope.double(), 1 / (1 - last.detach().double()), rtol=1e-2, atol=0)


def test_what_lies_outside_has_no_density():
    flow = OneWayFlow(DiagonalNormal(torch.zeros(2)), [Sigmoid()])
    y = torch.tensor([[0.5, 0.5], [0.5, 1.1], [-1e-3, 0.5], [0.5, torch.nan], [0.0, 1.0]], requires_grad=True)
    log_q = flow.log_prob(y)
    assert log_q[[0, 4]].isfinite().all() and (log_q[[1, 2]] == -torch.inf).all() and log_q[3].isnan()
    log_q[:3].sum().backward()
    assert y.grad[[0, 1, 2]].isfinite().all()
