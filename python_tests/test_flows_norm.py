"""Normalisation layers: what their statistics are, and when they move."""

import copy

import pytest
import torch
from flow_oracles import brute_force_ladj, randomize
from torch.utils.checkpoint import checkpoint

from led_fast.flows import ActNorm, BatchNorm
from led_fast.ops.batch_norm import moments


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("build", [BatchNorm, lambda n: BatchNorm(n, "batch"), ActNorm])
@pytest.mark.parametrize("size", [0, 1])
def test_statistics_ignore_less_than_two_samples(build, size):
    layer = build(3)
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    assert layer(torch.randn(size, 3))[0].isfinite().all()
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name])


def test_batch_norm_normalises_by_earlier_batches_only():
    layer = BatchNorm(3, momentum=0.25).double()
    first, second = torch.randn(2, 50, 3, dtype=torch.float64)
    layer(first)
    expected = (second - first.mean(0)) / (first.var(0, unbiased=False) + layer.eps).sqrt()
    torch.testing.assert_close(layer(second)[0], expected)
    torch.testing.assert_close(layer.running_mean, 0.75 * first.mean(0) + 0.25 * second.mean(0))


def test_batch_norm_in_training_is_exact_given_the_earlier_batches():
    layer = randomize(BatchNorm(3)).double()
    layer(torch.randn(50, 3, dtype=torch.float64) * 2)
    t = torch.randn(4, 3, dtype=torch.float64)
    frozen = copy.deepcopy(layer).eval()
    ladj = layer(t)[1]
    torch.testing.assert_close(ladj, brute_force_ladj(frozen, t), rtol=1e-9, atol=1e-12)


def test_batch_statistics_only_in_training():
    layer = BatchNorm(3, statistics="batch").double()
    first, second = torch.randn(2, 50, 3, dtype=torch.float64)
    layer(first)
    normalised = layer(second)[0]
    torch.testing.assert_close(normalised.mean(0), torch.zeros(3, dtype=torch.float64))
    one_by_one = torch.cat([layer.eval()(row[None])[0] for row in second])
    torch.testing.assert_close(layer(second)[0], one_by_one)


def test_act_norm_starts_from_its_first_training_batch():
    layer = ActNorm(3)
    t = 3 * torch.randn(500, 3) - 7
    assert torch.equal(layer.eval()(t)[0], t)  # eval mode never starts it
    out, _ = layer.train()(t)
    torch.testing.assert_close(out.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std(0, unbiased=False), torch.ones(3))
    again, _ = layer(t + 1)
    torch.testing.assert_close(again, out + layer.log_scale.exp(), atol=1e-5, rtol=0)


def test_act_norm_starts_in_the_other_direction_too():
    layer = ActNorm(3)
    out, _ = layer.inverse(t := 3 * torch.randn(500, 3) - 7)
    torch.testing.assert_close(out.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std(0, unbiased=False), torch.ones(3))
    torch.testing.assert_close(layer(out)[0], t)


def gradients_with_checkpoints(layer, batches, run):
    """Of every batch, (loss, grad of the batch), each followed by its backward."""
    found = []
    for batch in batches:
        x = batch.clone().requires_grad_()
        out, ladj = run(layer, x)
        (out.pow(3).sum() + ladj.sum()).backward()
        found.append(x.grad)
    return found, [p.grad for p in layer.parameters()], layer.state_dict()


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_gradient_checkpointing_changes_nothing(statistics, reentrant):
    batches = [scale * torch.randn(20, 3) + scale for scale in (1.0, 30.0, 0.1)]

    def checkpointed(layer, x):
        return checkpoint(layer, x, use_reentrant=reentrant)

    plain = gradients_with_checkpoints(BatchNorm(3, statistics), batches, lambda layer, x: layer(x))
    saved = gradients_with_checkpoints(BatchNorm(3, statistics), batches, checkpointed)
    for a, b in zip([*plain[0], *plain[1]], [*saved[0], *saved[1]], strict=True):
        assert torch.equal(a, b)
    for name, value in plain[2].items():
        assert torch.equal(saved[2][name], value)


@pytest.mark.parametrize("order", [1, -1])
def test_gradient_checkpointing_of_several_batches_before_backward(order):
    batches = [scale * torch.randn(20, 3) for scale in (1.0, 30.0, 0.1)]

    def run(use):
        layer = BatchNorm(3)
        inputs = [batch.clone().requires_grad_() for batch in batches]
        losses = [use(layer, x)[0].pow(3).sum() for x in inputs]
        for loss in losses[::order]:
            loss.backward()
        return [x.grad for x in inputs]

    saved = run(lambda layer, x: checkpoint(layer, x, use_reentrant=False))
    for a, b in zip(run(lambda layer, x: layer(x)), saved, strict=True):
        assert torch.equal(a, b)


def test_a_batch_that_is_forgotten_is_an_error():
    layer, x = BatchNorm(3), torch.randn(20, 3, requires_grad=True)
    out, _ = checkpoint(layer, x, use_reentrant=False)
    for _ in range(16):
        layer(torch.randn(20, 3))
    with pytest.raises(RuntimeError, match="not among the last 16"):
        out.sum().backward()


def test_statistics_are_kept_in_full_precision_under_autocast():
    layer = BatchNorm(3)
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(2):
            layer(torch.randn(20, 3, dtype=torch.bfloat16))
    assert layer.running_mean.dtype == torch.float32 and layer.running_mean.isfinite().all()


@pytest.mark.parametrize("batches", [([-3.0, 3.0], [-3.0, 3.0]), ([-3.0, 3.0], [3.0, -3.0])])
def test_batches_that_cannot_be_told_apart_are_an_error(batches):
    layer = BatchNorm(1)
    layer(torch.tensor([[-1.0], [1.0]]))
    inputs = [torch.tensor(batch)[:, None].requires_grad_() for batch in batches]
    outputs = [checkpoint(layer, x, use_reentrant=False)[0] for x in inputs]
    with pytest.raises(RuntimeError, match="cannot tell apart"):
        sum(out.pow(3).sum() for out in outputs).backward()


def test_batches_of_equal_means_are_told_apart():
    def run(use):
        layer = BatchNorm(1)
        layer(torch.tensor([[-1.0], [1.0]]))
        inputs = [torch.tensor([[-s], [s]]).requires_grad_() for s in (3.0, 12.0)]
        sum(use(layer, x)[0].pow(3).sum() * (1 + x.sum()) for x in inputs).backward()
        return [x.grad for x in inputs]

    saved = run(lambda layer, x: checkpoint(layer, x, use_reentrant=False))
    for a, b in zip(run(lambda layer, x: layer(x)), saved, strict=True):
        assert torch.equal(a, b)


def test_a_nan_in_a_checkpointed_batch_is_its_gradients():
    x = torch.randn(20, 3)
    x[0, 0] = torch.nan
    x.requires_grad_()
    checkpoint(BatchNorm(3), x, use_reentrant=False)[0].sum().backward()
    assert x.grad[:, 0].isnan().all() and x.grad[:, 1:].isfinite().all()


def test_act_norm_starts_by_a_sound_batch_only():
    layer, t = ActNorm(2), torch.randn(20, 2)
    t[3, 1] = torch.inf
    with pytest.raises(ValueError, match="must be finite"):
        layer(t)
    assert not layer.initialized and torch.equal(layer.log_scale, torch.zeros(2))
    t[:, 1] = 7.0  # a constant feature keeps its scale
    out, _ = layer(t)
    assert layer.log_scale[1] == 0 and torch.equal(out[:, 1], torch.zeros(20))


@pytest.mark.parametrize("layer", [ActNorm(2), BatchNorm(2)])
def test_a_layer_told_to_start_anew_does(layer):
    x = torch.randn(64, 2)
    layer(x)
    layer(x + 5)
    layer.initialized.fill_(False)
    out, _ = layer(x + 100)
    torch.testing.assert_close(out.mean(0), torch.zeros(2), atol=1e-3, rtol=0)


@pytest.mark.parametrize("shape", [(64, 3), (5, 3, 4, 2), (2, 1)])
@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_moments_keep_their_digits(shape, offset):
    t = torch.randn(shape) + offset
    t[:, 0] += 3 * t[:, 0]
    over = [d for d in range(t.dim()) if d != 1]
    true_var, true_mean = torch.var_mean(t.double(), dim=over, correction=0)
    var, mean = moments(t)
    torch.testing.assert_close(var.double(), true_var, rtol=3e-6, atol=0)
    torch.testing.assert_close(mean.double(), true_mean, rtol=0, atol=2e-7 * t.abs().max().item())


def test_a_constant_has_no_variance():
    t = torch.full((7, 2, 3), 0.1)
    t[:, 1] = 1e30
    var, mean = moments(t)
    assert (var == 0).all() and torch.equal(mean, t[0, :, 0])


def test_moments_have_the_gradient_of_var_mean():
    t = torch.randn(6, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(moments, t) and torch.autograd.gradgradcheck(moments, t)
