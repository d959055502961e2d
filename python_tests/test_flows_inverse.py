"""Layers run backward: round trips, log-determinants, gradients."""

import pytest
import torch
from flow_oracles import randomize
from torch import nn

from led_fast.flows import (
    ActNorm,
    Affine,
    BatchNorm,
    ChannelShuffle,
    Coupling,
    DiagonalNormal,
    Inflate,
    Linear,
    MixtureBase,
    OneWayFlow,
    PixelShuffle,
    Sigmoid,
    Slice,
    SoftReLU,
    Staircase,
    StandardNormal,
    Unflatten,
    flow_log_prob,
    inverse,
)
from led_fast.flows.inverse import logit
from led_fast.models import image_generator
from led_fast.nn import CircularConv2d

SHAPE = (4, 4, 6)
LAYERS = {
    "unflatten": lambda: Unflatten(*SHAPE),
    "pixel_shuffle": lambda: PixelShuffle(2),
    "channel_shuffle": lambda: ChannelShuffle(2),
    "conv": lambda: CircularConv2d(4, 3),
    "conv_even": lambda: CircularConv2d(4, (2, 4), bias=False),
    "conv_wraps": lambda: CircularConv2d(4, (7, 5)),
    "coupling": lambda: Coupling(nn.Conv2d(1, 6, 3, padding=1), 4, 1),
    "coupling_last": lambda: Coupling(nn.Conv2d(3, 2, 3, padding=1), 4, 3, given_first=False),
    "coupling_whitens": lambda: Coupling(nn.Conv2d(3, 2, 3, padding=1), 4, 3, given_first=False, whiten=True),
    "linear": lambda: Linear(96),
    "soft_relu": lambda: SoftReLU(u0=0.3),
    "staircase": lambda: Staircase(4, steps=5),
    "act_norm": lambda: ActNorm(4),
    "batch_norm": lambda: BatchNorm(4),
    "affine": lambda: Affine(torch.tensor(-2.0), torch.tensor(0.5)),
    "sigmoid": Sigmoid,
}
FLAT = {"unflatten", "linear"}


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def trained_like(name: str) -> tuple[nn.Module, torch.Tensor]:
    """A layer away from its start, in eval mode, and an input of it."""
    layer, t = LAYERS[name](), 2 * torch.randn(3, *SHAPE)
    t = t.flatten(1) if name in FLAT else t
    layer(t)
    return randomize(layer, 0.05 if name == "linear" else 0.3).eval(), t


def test_a_shuffle_of_unlike_groups_is_undone():
    t = torch.randn(2, 6, 1, 1)
    assert torch.equal(inverse(ChannelShuffle(2), ChannelShuffle(2)(t)[0])[0], t)


@pytest.mark.parametrize("name", LAYERS)
def test_there_and_back(name):
    layer, t = trained_like(name)
    out, ladj = layer(t)
    back, same = inverse(layer, out)
    torch.testing.assert_close(back, t, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(same, ladj, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients(name):
    """Of t and ladj, with respect to what comes in and to every parameter, by finite differences."""
    layer, t = trained_like(name)
    out = layer(t)[0].detach()[:2]
    parameters = dict(layer.named_parameters())

    def run(out, *values):
        holder = torch.func.functional_call(
            _Inverse(layer), {f"layer.{k}": v for k, v in zip(parameters, values, strict=True)}, (out,)
        )
        weights = torch.linspace(-1, 1, holder[0].numel()).view_as(holder[0])
        return (weights * holder[0]).sum() + holder[1].sum()

    inputs = [out.requires_grad_(), *(p.detach().requires_grad_() for p in parameters.values())]
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


class _Inverse(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, out):
        return inverse(self.layer, out)


def test_log_prob_of_a_flow_is_that_of_its_draws():
    flow = image_generator("tiny")
    randomize(flow, 0.05).eval()
    y, log_q = flow.rsample(5)
    torch.testing.assert_close(flow_log_prob(flow, y), log_q, rtol=1e-7, atol=1e-7)
    mixture = OneWayFlow(MixtureBase(3, 2), [Linear(3), Inflate(2), randomize(Linear(5)), SoftReLU()])
    y, log_q = mixture.rsample(5)
    torch.testing.assert_close(flow_log_prob(mixture, y), log_q)


def test_float32():
    torch.set_default_dtype(torch.float32)
    flow = randomize(image_generator("tiny"), 0.05).eval()
    y, log_q = flow.rsample(64)
    torch.testing.assert_close(flow_log_prob(flow, y), log_q, rtol=1e-3, atol=1e-1)


def test_steep_stairs_far_out():
    layer = Staircase(1, steps=3)
    with torch.no_grad():
        layer.log_steepness.fill_(6.0)
        layer.log_heights.fill_(1.0)
    t = torch.linspace(-50, 50, 1001)[:, None]
    torch.testing.assert_close(inverse(layer, layer(t)[0])[0], t, rtol=1e-7, atol=1e-7)


def test_black_pixels_keep_their_density():
    # Dequantised black is below 1/256, and a generator of it far below that: its density must be that of its draws.
    torch.manual_seed(0)
    flow = OneWayFlow(DiagonalNormal(torch.full((1, 8, 8), -7.0), 3.0), [Sigmoid()])
    y, log_q = flow.rsample(200)
    assert y.min() < 1e-7
    torch.testing.assert_close(flow_log_prob(flow, y), log_q, atol=1e-2, rtol=1e-5)


def test_edges_of_the_box_stay_finite():
    t, ladj = inverse(Sigmoid(), torch.tensor([[0.0, 1.0]]))
    assert t.isfinite().all() and ladj.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logit_has_all_digits_at_both_ends(dtype):
    torch.set_default_dtype(torch.float32)
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


def test_a_slice_cannot_be_inverted():
    flow = OneWayFlow(StandardNormal(3), [Slice(3, 2)])
    with pytest.raises(TypeError, match="Slice cannot be inverted"):
        flow_log_prob(flow, torch.zeros(1, 2))
