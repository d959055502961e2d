"""Every layer against the brute-force Jacobian in fp64, and its conduct as a module."""

import copy
import io
import pickle

import pytest
import torch
from flow_oracles import brute_force_ladj, randomize

from led_fast.flows import (
    ActNorm,
    Affine,
    BatchNorm,
    Linear,
    Sigmoid,
    SoftReLU,
    Staircase,
    forward_with_score,
)

LAYERS = {
    "linear": lambda: Linear(4),
    "soft_relu": lambda: SoftReLU(u0=0.2),
    "staircase": lambda: Staircase(4, steps=5),
    "batch_norm": lambda: BatchNorm(4),
    "act_norm": lambda: ActNorm(4),
    "affine": lambda: Affine(torch.tensor([2.0, -0.5, 3.0, 0.1]), torch.arange(4.0)),
    "sigmoid": Sigmoid,
}
ON_IMAGES = ["soft_relu", "staircase", "batch_norm", "act_norm", "sigmoid"]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def trained_like(name, features=4):
    """A layer in fp64 with statistics from a batch and parameters away from their start, in eval mode."""
    layer = LAYERS[name]().double()
    layer(torch.randn(64, features, dtype=torch.float64) * 2 + 1)
    return randomize(layer).eval()


@pytest.mark.parametrize("name", LAYERS)
def test_ladj_is_the_jacobians(name):
    layer = trained_like(name)
    t = 1.5 * torch.randn(5, 4, dtype=torch.float64)
    out, ladj = layer(t)
    expected = brute_force_ladj(layer, t)
    assert out.shape == t.shape and ladj.shape == (5,)
    assert expected.abs().min() > 1e-3
    torch.testing.assert_close(ladj.double(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ON_IMAGES)
def test_ladj_is_the_jacobians_on_images(name):
    layer = trained_like(name)
    t = torch.randn(2, 4, 3, 2, dtype=torch.float64)
    torch.testing.assert_close(layer(t)[1].double(), brute_force_ladj(layer, t), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_score_rule_agrees_with_the_full_jacobian(name):
    layer = trained_like(name)
    t, score = torch.randn(2, 5, 4, dtype=torch.float64)
    out, ladj, fast = forward_with_score(layer, t, score)
    slow_out, slow_ladj, slow = forward_with_score.dispatch(object)(layer, t, score)
    torch.testing.assert_close(out, slow_out)
    torch.testing.assert_close(ladj, slow_ladj)
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)
    assert not fast.requires_grad


def test_full_jacobian_score_rule_against_finite_differences():
    # log q(t') at t' + h e_i, through the inverse of one linear map behind one soft-ReLU on a normal: all
    # analytic.
    linear, activation = randomize(Linear(2)).double(), SoftReLU()
    layer = torch.nn.Module()
    layer.forward = lambda t: _compose(t, linear, activation)
    t = torch.randn(1, 2, dtype=torch.float64)
    out, _, score = forward_with_score.dispatch(object)(layer, t, -t)

    def log_prob(y):
        x = y
        for _ in range(60):  # Newton for the soft-ReLU's inverse
            value = activation(x)[0]
            (slope,) = torch.autograd.grad(activation(x.requires_grad_())[0].sum(), x)
            x = (x - (value - y) / slope).detach()
        z = torch.linalg.solve(linear.weight, (x - linear.bias).mT).mT.detach()
        return -0.5 * z.square().sum() - activation(x)[1].sum() - linear(z)[1].sum()

    h = 1e-5
    numeric = [
        (log_prob(out.detach() + h * e) - log_prob(out.detach() - h * e)) / (2 * h)
        for e in torch.eye(2, dtype=torch.float64)
    ]
    torch.testing.assert_close(score[0], torch.stack(numeric).detach(), rtol=1e-6, atol=1e-6)


def _compose(t, first, second):
    t, a = first(t)
    t, b = second(t)
    return t, a + b


@pytest.mark.parametrize("build", [BatchNorm, lambda n: BatchNorm(n, "batch"), ActNorm])
@pytest.mark.parametrize("size", [0, 1])
def test_statistics_ignore_less_than_two_samples(build, size):
    layer = build(3)
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    assert layer(torch.randn(size, 3))[0].isfinite().all()
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name])


def test_staircase_steepness_is_capped():
    layer = Staircase(2)
    torch.nn.init.constant_(layer.log_steepness, 10.0)
    out, ladj = layer(torch.randn(100, 2))
    assert out.isfinite().all() and ladj.isfinite().all()


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


@pytest.mark.parametrize("name", LAYERS)
def test_copies_behave_like_the_original(name):
    layer = trained_like(name)
    t = torch.randn(3, 4, dtype=torch.float64)
    expected = layer(t)
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    loaded = LAYERS[name]().double().eval()
    loaded.load_state_dict(torch.load(buffer))
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded):
        torch.testing.assert_close(copied(t), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", LAYERS)
def test_empty_batch(name):
    out, ladj = trained_like(name)(torch.empty(0, 4, dtype=torch.float64))
    assert out.shape == (0, 4) and ladj.shape == (0,)


@pytest.mark.parametrize("name", ["linear", "staircase", "batch_norm", "act_norm"])
def test_wrong_input_names_layer_and_shapes(name):
    layer = LAYERS[name]()
    with pytest.raises(ValueError, match=r"t must have shape \(B, 4, ...\), got \(3, 5\)"):
        layer(torch.randn(3, 5))
    with pytest.raises(TypeError, match="floating-point"):
        layer(torch.ones(3, 4, dtype=torch.long))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Linear(0), "features must be positive"),
        (lambda: Staircase(2, steps=0), "steps must be positive"),
        (lambda: BatchNorm(2, statistics="none"), "'running' or 'batch'"),
        (lambda: BatchNorm(2, eps=0.0), "eps must be positive"),
        (lambda: Affine(torch.tensor([1.0, 0.0]), torch.zeros(2)), "zeros"),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()
