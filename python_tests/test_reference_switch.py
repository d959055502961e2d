"""The switch between kernels and reference: who obeys it, and that both compute the same."""

import threading

import pytest
import torch
from rich.console import Console

import led_fast
from led_fast import nn, ops, reference
from led_fast.data import open_source
from led_fast.errors import InputError
from led_fast.training import DivergenceError, RunDirectory, TrainConfig, Trainer, steps_in, train

STEPS = torch.randn(3, 2), torch.ones(3, 2), torch.ones(3, 2), torch.ones(3)
MIXTURE = torch.randn(4, 3), torch.randn(4, 3), torch.randn(4)
CALLS = {
    "soft_relu": lambda: led_fast.soft_relu(torch.randn(5, 3)),
    "staircase": lambda: led_fast.staircase(torch.randn(5, 3), *STEPS),
    "staircase_inverse": lambda: led_fast.staircase_inverse(torch.randn(5, 3), *STEPS),
    "mixture_log_prob": lambda: led_fast.mixture_log_prob(torch.randn(5, 3), *MIXTURE),
    "mixture_log_prob_and_score": lambda: led_fast.mixture_log_prob_and_score(torch.randn(5, 3), *MIXTURE),
    "circulant_logdet": lambda: led_fast.circulant_logdet(torch.randn(2, 2, 3, 3), (4, 4)),
    "circular_conv_inverse": lambda: led_fast.circular_conv_inverse(
        torch.randn(2, 3, 4, 4), torch.randn(3, 3, 3, 3)
    ),
    "fourier_features": lambda: led_fast.fourier_features(torch.randn(5, 2), torch.randn(2, 3)),
    "perpendicular_norm": lambda: led_fast.perpendicular_norm(torch.randn(5, 3), torch.randn(2, 3)),
}


@pytest.fixture
def called(monkeypatch):
    """Names of the reference functions that are called."""
    names = []
    for name in CALLS:
        function = getattr(reference, name)
        monkeypatch.setattr(
            reference,
            name,
            lambda *args, name=name, function=function: (names.append(name), function(*args))[1],
        )
    return names


@pytest.mark.parametrize("name", CALLS)
def test_every_operator_obeys_the_switch(name, called):
    CALLS[name]()
    assert called == []
    with ops.use_reference():
        CALLS[name]()
    by_reference = list(called)  # a reference may call another
    assert by_reference[0] == name
    CALLS[name]()
    assert called == by_reference


@pytest.mark.parametrize(
    "make, shape",
    [
        (lambda: nn.SoftReLU(), (5, 3)),
        (lambda: nn.CircularConv2d(3, 3), (2, 3, 4, 4)),
        (lambda: nn.PerpendicularLinear(6, 3), (5, 6)),
        (lambda: nn.PerpendicularConv2d(3, 5, 4, stride=2, padding=1), (2, 3, 8, 8)),
    ],
)
def test_layers_and_their_gradients_are_the_same_on_both(make, shape):
    torch.manual_seed(0)
    layer, x = make().double(), torch.randn(shape, dtype=torch.float64, requires_grad=True)
    leaves = [x, *layer.parameters()]

    def everything():
        out, number = layer(x)
        loss = out.sin().sum() + number.square().sum()
        return [out, number, *torch.autograd.grad(loss, leaves)]

    fast = everything()
    with ops.use_reference():
        torch.testing.assert_close(everything(), fast)


def test_blocks_nest_end_with_an_error_and_hold_in_other_threads():
    seen = []
    with pytest.raises(KeyError), ops.use_reference():
        with ops.use_reference(False):
            assert not ops.reference_in_use()
        assert ops.reference_in_use()
        thread = threading.Thread(target=lambda: seen.append(ops.reference_in_use()))
        thread.start()
        thread.join()
        raise KeyError
    assert seen == [True] and not ops.reference_in_use()


def test_arguments_are_checked_on_both():
    with ops.use_reference():
        with pytest.raises(ValueError, match="soft_relu: x must be"):
            led_fast.soft_relu(torch.ones(3, 2, dtype=torch.int64))
        with pytest.raises(ValueError, match="circulant_logdet: weight must have shape"):
            led_fast.circulant_logdet(torch.randn(2, 3, 3, 3), (4, 4))
        with pytest.raises(ValueError, match="perpendicular_norm: weight must have"):
            led_fast.perpendicular_norm(torch.randn(5, 3), torch.randn(2, 4))


def test_a_compiled_function_follows_the_switch(called):
    compiled = torch.compile(lambda x: led_fast.soft_relu(x)[0], backend="eager")
    x = torch.randn(4, 3)
    expected = compiled(x)
    with ops.use_reference():
        torch.testing.assert_close(compiled(x), expected)
    assert called == ["soft_relu"]


@pytest.mark.parametrize("choice", ["fast", "reference"])
def test_a_run_uses_the_operators_of_its_config(tmp_path, monkeypatch, choice):
    seen = []

    def step(_):
        seen.append(ops.reference_in_use())
        raise DivergenceError("enough")

    monkeypatch.setattr(Trainer, "step", step)
    source = open_source("ring")
    config = TrainConfig.of(source, steps=3, changes={"ops": choice})
    for run in (
        lambda: train(RunDirectory.create(tmp_path / "run"), config, source, Console(quiet=True)),
        lambda: steps_in(1.0, config, source),
    ):
        with pytest.raises(DivergenceError, match="enough"):
            run()
    assert seen == 2 * [choice == "reference"] and not ops.reference_in_use()
    assert TrainConfig.from_json(config.to_json(), "config.json") == config
    with pytest.raises(InputError, match=r"config.json: .*\(ops: Invalid enum value 'slow'\)"):
        TrainConfig.from_json(config.to_json() | {"ops": "slow"}, "config.json")
