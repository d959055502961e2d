"""Convolutions as they are fastest on a CPU: PyTorch's in float64 is the oracle, whose ways to compute are others."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import led_fast
from led_fast.nn import Conv2d, ConvTranspose2d
from led_fast.ops import convolution as ops

# Channels in and out, kernel, stride, padding, size of the images: those of the networks, and the bounds of each way.
CONVOLUTIONS = [
    (12, 2, 3, 1, 1, 16),
    (2, 12, 3, 1, 1, 16),
    (12, 4, 3, 1, 1, 9),
    (12, 5, 3, 1, 1, 8),
    (3, 3, 5, 1, 0, 12),
    (3, 7, 5, 1, 3, 8),
    (1, 1, 7, 1, 0, 14),
    (6, 7, 1, 1, 0, 8),
    (2, 5, 4, 2, 1, 16),
    (6, 7, 4, 2, 1, 16),
    (6, 7, 4, 2, 1, 8),
    (2, 6, 16, 8, 4, 16),
    (6, 5, 16, 8, 4, 64),
    (5, 6, 5, 3, 1, 24),
    (6, 5, 3, 3, 0, 24),
    (5, 2, 4, 1, 0, 4),
]


def made(kind, case, dtype=torch.float64):
    """A layer, PyTorch's with the same weights, and images, of a case in either direction."""
    torch.manual_seed(0)
    ins, outs, k, stride, padding, size = case
    if kind is ConvTranspose2d:
        ins, outs, size = outs, ins, (size + 2 * padding - k) // stride + 1
    layer, plain = (
        of(ins, outs, k, stride, padding, dtype=dtype)
        for of in (kind, nn.ConvTranspose2d if kind is ConvTranspose2d else nn.Conv2d)
    )
    plain.load_state_dict(layer.state_dict())
    return layer, plain, torch.randn(3, ins, size, size, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
class TestAsTorchs:
    def test_values_and_gradients(self, kind, case):
        layer, plain, x = made(kind, case)
        out, wanted = layer(x), plain(x)
        torch.testing.assert_close(out, wanted)
        grad = torch.randn_like(out)
        gradients = torch.autograd.grad(out, [x, *layer.parameters()], grad)
        torch.testing.assert_close(gradients, torch.autograd.grad(wanted, [x, *plain.parameters()], grad))
        for got, tensor in zip(gradients, [x, *layer.parameters()], strict=True):
            assert got.shape == tensor.shape

    def test_gradients_of_gradients(self, kind, case):
        layer, plain, x = made(kind, case)
        found = []
        for each in (layer, plain):
            value = each(x)
            (by_x,) = torch.autograd.grad(value.sin().sum(), x, create_graph=True)
            found.append(torch.autograd.grad(by_x.square().sum(), [x, *each.parameters()]))
        torch.testing.assert_close(*found)

    def test_in_the_reference(self, kind, case):
        layer, plain, x = made(kind, case)
        with led_fast.ops.use_reference():
            assert torch.equal(layer(x), plain(x))

    def test_rounds_no_more_than_torch(self, kind, case):
        layer, plain, x = made(kind, case, torch.float32)
        exact, grad = plain.double(), None
        results = []
        wide = x.detach().double().requires_grad_()
        for each, given in ((layer, x), (made(kind, case, torch.float32)[1], x), (exact, wide)):
            out = each(given)
            grad = torch.randn_like(out) if grad is None else grad
            inputs = [given, *each.parameters()]
            results.append([out, *torch.autograd.grad(out, inputs, grad.to(out.dtype))])
        for ours, theirs, true in zip(*results, strict=True):
            scale = true.abs().max()
            error, allowed = ((v.double() - true).abs().max() for v in (ours, theirs))
            assert error <= 2 * allowed + 4e-7 * scale


@pytest.mark.parametrize("function", [ops.convolution, ops.transposed_convolution])
@pytest.mark.parametrize("channels", [2, 5])
def test_gradcheck(function, channels):
    """Of images large enough for every way, in a few of their pixels."""
    torch.manual_seed(0)
    size = 8 if function is ops.transposed_convolution else 16
    x = torch.randn(1, 5, size, size, dtype=torch.float64)
    shape = (channels, 5) if function is ops.convolution else (5, channels)
    weight = torch.randn(*shape, 4, 4, dtype=torch.float64, requires_grad=True)
    some = torch.randn(1, 5, 2, 2, dtype=torch.float64, requires_grad=True)

    def pixels(some, weight):
        return function(x + F.pad(some, (3, size - 5, 3, size - 5)), weight, None, 2, 1)[..., 4:7, 4:7]

    assert torch.autograd.gradcheck(pixels, (some, weight))
    assert torch.autograd.gradgradcheck(pixels, (some, weight))


@pytest.mark.parametrize(
    "layer",
    [
        Conv2d(4, 6, (3, 4), stride=2, padding=(1, 0), groups=2),
        Conv2d(4, 6, 3, padding="same"),
        Conv2d(4, 6, 3, padding=1, padding_mode="circular"),
        Conv2d(4, 6, 3, dilation=2),
        Conv2d(4, 6, 4, 2, 1),
        Conv2d(4, 6, 1, padding=1),
        ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
        ConvTranspose2d(4, 6, 4, 3, 1),
    ],
    ids=repr,
)
def test_any_other_geometry_is_torchs(layer):
    x = torch.randn(2, 4, 9, 7)
    plain = getattr(nn, type(layer).__name__).forward
    assert torch.equal(layer(x), plain(layer, x)) and torch.equal(layer(x[0]), plain(layer, x[0]))


def test_an_output_size_is_torchs():
    layer, x = ConvTranspose2d(4, 6, 4, 2, 1), torch.randn(2, 4, 8, 8)
    assert layer(x, output_size=[17, 17]).shape == (2, 6, 17, 17)


@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
@pytest.mark.parametrize("case", [(12, 2, 3, 1, 1, 16), (6, 7, 4, 2, 1, 16), (2, 5, 4, 2, 1, 16)], ids=str)
def test_outputs_may_be_changed_in_place_and_batches_be_empty(kind, case):
    layer, plain, x = made(kind, case)
    layer(x).exp_().sum().backward()
    got, x.grad = x.grad, None
    plain(x).exp().sum().backward()
    torch.testing.assert_close(got, x.grad)
    for each in (layer, plain):
        each.zero_grad()
        out = each(x[:0])
        out.sum().backward()
    assert out.shape == layer(x[:0]).shape
    assert all(not p.grad.any() for p in layer.parameters())


@pytest.mark.parametrize("wanted", [["x"], ["weight"], ["bias"], ["x", "bias"]], ids=str)
def test_computes_the_gradients_alone_that_a_backward_pass_wants(wanted, monkeypatch):
    layer, _, x = made(Conv2d, (6, 7, 4, 2, 1, 16))
    computed = []
    by_x, by_weight = ops.transposed_convolution, ops._by_weight
    monkeypatch.setattr(ops, "transposed_convolution", lambda *a: (computed.append("x"), by_x(*a))[1])
    monkeypatch.setattr(ops, "_by_weight", lambda *a: (computed.append("weight"), by_weight(*a))[1])
    inputs = {"x": x, "weight": layer.weight, "bias": layer.bias}
    found = torch.autograd.grad(layer(x).sum(), [inputs[name] for name in wanted])
    assert computed == [name for name in wanted if name != "bias"]
    computed.clear()
    for gradient, of in zip(found, wanted, strict=True):
        assert gradient.shape == inputs[of].shape
    layer(2 * x).sum().backward(inputs=[inputs[name] for name in wanted])
    assert computed == [name for name in wanted if name != "bias"]


def test_equal_for_any_number_of_threads():
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append([])
            for case in ((12, 2, 3, 1, 1, 32), (24, 12, 4, 2, 1, 32)):
                layer, _, x = made(ConvTranspose2d, case, torch.float32)
                out = layer(x)
                results[-1] += [out, *torch.autograd.grad(out.sin().sum(), [x])]
    finally:
        torch.set_num_threads(threads)
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


def test_weights_that_do_not_change_shape_share_one_order_made_in_inference_mode():
    ops._order.cache_clear()
    layer, plain, x = made(Conv2d, (12, 2, 3, 1, 1, 16))
    with torch.inference_mode():
        layer(x)
    layer(x).sum().backward()
    made_anew = ops._order.cache_info().misses
    layer(x).sum().backward()
    assert ops._order.cache_info().misses == made_anew > 0
    layer.weight.grad /= 2
    torch.testing.assert_close(layer.weight.grad, torch.autograd.grad(plain(x).sum(), plain.weight)[0])
