"""A step that meets a number that is not finite changes nothing, and says so after its one look at the device."""

import copy

import pytest
import torch
from torch import nn

from led_fast.data import open_source
from led_fast.data.images import ImageCollection, ImageSet, ImageSource
from led_fast.kinds.images import task
from led_fast.training import DivergenceError, TrainConfig, Trainer
from led_fast.training.descent import RunningAverages, adam, descend, rate_shares, set_learning_rate
from led_fast.training.readings import Readings

PARTS = (
    "critic",
    "generator",
    "critic_optimizer",
    "generator_optimizer",
    "average_critic",
    "average_generator",
)


class Poison(torch.autograd.Function):
    """The identity, whose gradient is NaN: the loss stays finite."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * torch.nan


@pytest.fixture(params=["points", "images"])
def trainer(request, monkeypatch):
    monkeypatch.setattr(task, "_STANDARDIZED_BY", 100)
    if request.param == "points":
        source, preset = open_source("ring"), "default"
    else:
        images = torch.arange(120 * 64).view(120, 1, 8, 8).remainder(251).to(torch.uint8)
        source, preset = ImageSource("ramps", ImageCollection(ImageSet(images))), "tiny"
    trainer = Trainer(TrainConfig.of(source, preset, steps=100), source)
    trainer.steps_done = 75  # within the joint training
    trainer.step()
    trainer.step()
    return trainer


def values_of(trainer):
    state = {name: copy.deepcopy(getattr(trainer, name).state_dict()) for name in PARTS}
    flat = {}

    def walk(value, where):
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{where}.{key}")
        elif isinstance(value, torch.Tensor):
            flat[where] = value

    for name, part in state.items():
        if "optimizer" in name:
            part = part["state"]
        walk(part, name)
    return flat, (trainer.objective.log_normalizer, trainer.steps_done)


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("network", ["critic", "generator"])
def test_no_weight_moment_or_average_is_touched(trainer, monkeypatch, network, what):
    objective, loss_of = (
        trainer.objective,
        {"critic": "critic_loss", "generator": "generator_losses"}[network],
    )
    whole = getattr(objective, loss_of)

    def poisoned(loss):
        return loss._replace(value=loss.value * torch.nan if what == "loss" else Poison.apply(loss.value))

    def critic_loss(*args):
        return poisoned(whole(*args))

    def generator_losses(*args):
        return map(poisoned, whole(*args))

    monkeypatch.setattr(objective, loss_of, locals()[loss_of])
    before, rest = values_of(trainer)
    said = f"the {network}'s loss is {'nan' if what == 'loss' else '.*'} and its gradient nan"
    with pytest.raises(DivergenceError, match=said):
        trainer.step()
    after, rest_after = values_of(trainer)
    assert rest_after == rest
    # The critic's own step came before the generator went wrong, and was right.
    free = ("critic.", "critic_optimizer.") if network == "generator" else ()
    for name, value in before.items():
        assert name.startswith(free) or torch.equal(after[name], value), name
    if network == "generator":
        assert not all(torch.equal(after[n], v) for n, v in before.items() if n.startswith("critic."))
    monkeypatch.undo()
    assert all(torch.tensor(value).isfinite() for value in trainer.step().values())


def test_the_average_of_log_alpha_is_one_on_host_and_device(trainer):
    before = trainer.objective.log_normalizer
    metrics = trainer.step()
    expected = 0.9 * before + (1 - 0.9) * metrics["log_normalizer"]
    assert trainer.objective.log_normalizer == expected == trainer.objective._now.item() != before


@pytest.mark.parametrize("constant", [torch.inf, torch.nan])
def test_a_loss_alone_breaks_a_descent_whose_gradient_is_finite(constant):
    network = nn.Linear(2, 1)
    optimizer, before = adam(network.parameters(), 0.1, (0.9, 0.99)), copy.deepcopy(network.state_dict())
    _, norm, broken = descend(
        optimizer, list(network.parameters()), [(network(torch.ones(3, 2)).sum() + constant, 1.0)], 1.0
    )
    assert norm.isfinite() and broken == 1
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_a_descent_does_nothing_after_a_broken_one(value):
    network = nn.Linear(2, 1)
    optimizer = adam(network.parameters(), 0.1, (0.9, 0.99))
    x = torch.ones(3, 2)
    descend(optimizer, list(network.parameters()), [(network(x).sum(), 1.0)], 1.0)
    before = copy.deepcopy((network.state_dict(), optimizer.state_dict()["state"]))
    _, _, broken = descend(optimizer, list(network.parameters()), [(network(x).sum() * value, 1.0)], 1.0)
    assert broken == 1
    loss, norm, still = descend(optimizer, list(network.parameters()), [(network(x).sum(), 1.0)], 1.0, broken)
    assert still == 1 and loss.isfinite() and norm.isfinite()
    for now, then in zip((network.state_dict(), optimizer.state_dict()["state"]), before, strict=True):
        for key, part in then.items():
            for a, b in (
                zip(now[key].values(), part.values(), strict=True)
                if isinstance(part, dict)
                else [(now[key], part)]
            ):
                assert torch.equal(a, b)


def test_losses_one_by_one_have_the_gradient_of_their_weighted_sum():
    network, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.randn(5, 3)
    extra = nn.Parameter(torch.ones(2))  # of the second loss alone
    terms = [
        lambda: network(x).square().mean(),
        lambda: (network(2 * x) * extra).sum(),
        lambda: network[0](x).sum(),
    ]
    weights, parameters = [0.25, 0.75, 1.0], [*network.parameters(), extra]
    expected = torch.autograd.grad(sum(w * t() for w, t in zip(weights, terms, strict=True)), parameters)
    norm = torch.cat([g.flatten() for g in expected[:-1]]).norm()
    optimizer = adam(parameters, 0.0, (0.9, 0.99))

    def one_by_one():
        for term, weight in zip(terms, weights, strict=True):
            loss = term()
            yield loss, weight

    loss, found, broken = descend(optimizer, list(network.parameters()), one_by_one(), 1e9)
    assert broken == 0
    torch.testing.assert_close(loss, sum(w * t() for w, t in zip(weights, terms, strict=True)).detach())
    torch.testing.assert_close(found, norm)
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_averages_follow_every_kind_of_value():
    network, average = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    nn.init.normal_(network.weight)
    network(torch.randn(8, 3))
    expected = {
        key: 0.75 * average.state_dict()[key] + 0.25 * value if value.is_floating_point() else value.clone()
        for key, value in network.state_dict().items()
    }
    averages = RunningAverages((average, network))
    averages.follow(29, 0.75)  # (29 + 1) / (29 + 10) is more than .75
    for key, value in average.state_dict().items():
        torch.testing.assert_close(value, expected[key])
    averages.follow(0, 0.75)  # a young one keeps a tenth
    torch.testing.assert_close(average.weight, (0.1 * expected["weight"] + 0.9 * network.weight).detach())


def test_readings_come_back_by_name_and_in_full():
    readings = Readings()
    double = torch.tensor(1 / 3, dtype=torch.float64)
    readings.add_metrics({"a": torch.tensor(0.1), "b": double})
    readings.add_descent("critic", torch.tensor(2.0), torch.tensor(3.0))
    readings.add_metrics({"a": torch.tensor(0.7), "c": torch.tensor(5.0)})
    packed = readings.pack()
    assert packed.values.dtype == torch.float64 and packed.values.shape == (6,)
    assert packed.read() == {"a": torch.tensor(0.7).item(), "b": 1 / 3, "c": 5.0}


def test_the_first_descent_that_is_not_finite_is_named():
    readings = Readings()
    for name, loss, norm in (
        ("critic", 1.0, 2.0),
        ("generator", torch.inf, 3.0),
        ("generator", torch.nan, 1.0),
    ):
        readings.add_descent(name, torch.tensor(loss), torch.tensor(norm, dtype=torch.float64))
    with pytest.raises(DivergenceError, match="the generator's loss is inf and its gradient 3"):
        readings.pack().read()


def test_a_learning_rate_is_set_for_every_parameter():
    network = nn.Linear(1, 1, bias=False)
    optimizer = adam(network.parameters(), 0.1, (0.0, 0.0))
    with torch.no_grad():
        network.weight.fill_(0.0)
    set_learning_rate(optimizer, 0.5)
    descend(optimizer, list(network.parameters()), [(network.weight.sum(), 1.0)], 1.0)
    assert network.weight.item() == pytest.approx(-0.5)


def test_wide_layers_learn_at_a_lower_rate():
    transposed = torch.nn.ConvTranspose2d(10, 3, 4, stride=2, bias=False)
    convolution, narrow = torch.nn.Conv2d(4, 16, 3, bias=False), torch.nn.Linear(8, 3, bias=False)
    network = torch.nn.Sequential(convolution, narrow, torch.nn.Linear(32, 2), transposed)
    parameters = list(network.parameters())
    optimizer = adam(parameters, 0.1, (0.9, 0.99), shares=rate_shares(network, 8))
    for rate in (0.1, 0.02):
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
            with torch.no_grad():
                parameter.zero_()
        set_learning_rate(optimizer, rate)
        optimizer.step()  # of Adam, as long as the rate where the gradient is always the same
        for parameter, inputs in zip(parameters, (36, 8, 32, 1, 10 * 16 / 4), strict=True):
            torch.testing.assert_close(parameter, torch.full_like(parameter, -rate * min(1, 8 / inputs)))


def test_one_rate_for_all_is_one_group():
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((2, 32), (50,))]
    assert len(adam(parameters, 0.1, (0.9, 0.99)).param_groups) == 1
