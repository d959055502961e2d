"""The objective of a critic that tilts the generator as it is at every step."""

import copy

import pytest
import torch

from led_fast.density import ProposalDraw, critic_loss, log_mean_exp
from led_fast.flows import GaussianConditional, Linear, OneWayFlow, ScoredSample, Slice, StandardNormal
from led_fast.models import points_critic
from led_fast.training.objective import CalibrationObjective, LikelihoodObjective, TiltObjective, objective_of
from led_fast.training.settings import Recipe, changed
from led_fast.training.world import World

RECIPE = changed(
    Recipe(),
    {
        "base": "current",
        "batches.data": 16,
        "batches.integral_samples": 32,
        "batches.generated": 32,
        "calibration.begin": 0.9,
        "generator_loss.forward_weight": 0.3,
        "generator_loss.likelihood_weight": 0.25,
    },
)
SLICED = OneWayFlow(StandardNormal(4), [Slice(4, 2, GaussianConditional())])


class TiltTask:
    """A small flow, and a net that tilts a copy of it: what `TiltObjective` has to agree with as the copy is fresh."""

    device = torch.device("cpu")
    tilts = True
    anchored = False
    balance = None

    def __init__(self):
        torch.manual_seed(0)
        self.generator = OneWayFlow(StandardNormal(2), [Linear(2)]).double()
        self.net = points_critic().double()
        self.base = copy.deepcopy(self.generator)

    def critic(self, x):
        return self.net(x) + self.base.log_prob(x)

    def discriminate(self, x):
        return self.net(x)

    def data(self, n, at):
        torch.manual_seed(1)
        return torch.randn(n, 2, dtype=torch.float64)

    def most_generated(self, n):
        return n

    def proposals(self, n, at, drawn=None):
        if drawn is None:
            torch.manual_seed(2)
            with torch.no_grad():
                return ProposalDraw(*self.generator.rsample_and_log_prob(n), None)
        return ProposalDraw(drawn.y[:n].detach(), drawn.log_q[:n].detach(), None)

    def generated(self, n):
        torch.manual_seed(2)
        return self.generator.rsample_with_score(n)

    def target(self, f, sample, log_normalizer, at):
        return f

    def forward_weight(self, weight, at):
        return weight


def gradients(objective_type, task, recipe, shared):
    """Losses, metrics, and gradients of the net and the generator."""
    objective = objective_type(task, recipe, World())
    view = objective.view(task.critic)
    drawn = objective.draw(0.5) if shared else None
    found = []
    critic_of = [objective.critic_loss(view, task.data(16, 0.5), 0.5, drawn)]
    for losses, network in (
        (critic_of, task.net),
        (objective.generator_losses(view, 0.5, drawn), task.generator),
    ):
        weights = list(network.parameters())
        grads, values = [torch.zeros_like(w) for w in weights], {}
        for loss in losses:
            new = torch.autograd.grad(loss.value, weights, retain_graph=True, allow_unused=True)
            grads = [g if n is None else g + loss.weight * n for g, n in zip(grads, new, strict=True)]
            values |= loss.metrics
        found.append((grads, values))
    return found


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("samples", [1, 8, 32])
def test_is_the_likelihood_of_a_critic_whose_base_is_a_fresh_copy(samples, shared):
    recipe = changed(RECIPE, {"batches.integral_samples": samples, "batches.integrals": 32 // samples})
    by_tilt = gradients(TiltObjective, TiltTask(), recipe, shared)
    by_copy = gradients(LikelihoodObjective, TiltTask(), recipe, shared)
    for (got, metrics), (wanted, others) in zip(by_tilt, by_copy, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)
        assert metrics.keys() == others.keys()
        for name in metrics.keys() - {"critic_loss", "generator_loss"}:  # which are relative
            torch.testing.assert_close(metrics[name], others[name], rtol=1e-9, atol=1e-9, check_dtype=False)


def test_follows_a_generator_that_moves():
    task = TiltTask()
    with torch.no_grad():
        for parameter in task.generator.parameters():
            parameter.add_(0.3)  # the copy stays behind
    objective = TiltObjective(task, RECIPE, World())
    x = task.data(16, 0.5)
    loss = objective.critic_loss(objective.view(task.critic), x, 0.5)
    y = task.proposals(32, 0.5).y
    wanted = critic_loss(task.net(x), task.net(y), torch.zeros(32, dtype=torch.float64))
    torch.testing.assert_close(loss.value, wanted)
    torch.testing.assert_close(loss.metrics["log_normalizer"], log_mean_exp(task.net(y)))


def test_the_generator_climbs_the_net_wherever_the_copy_is():
    task = TiltTask()
    with torch.no_grad():
        for parameter in task.generator.parameters():
            parameter.add_(0.3)
    recipe = changed(RECIPE, {"generator_loss.forward_weight": 0.0, "generator_loss.likelihood_weight": 0.0})
    objective = TiltObjective(task, recipe, World())
    (loss,) = objective.generator_losses(objective.view(task.critic), 0.5)
    weights = list(task.generator.parameters())
    wanted = torch.autograd.grad(-task.net(task.generated(32).y).mean(), weights)
    got = torch.autograd.grad(loss.value, weights)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


def test_samples_keep_what_a_forward_kl_learns_from():
    sample = TiltObjective(TiltTask(), RECIPE, World()).draw(0.5)
    assert isinstance(sample, ScoredSample)
    assert not sample.log_q.any()
    assert not sample.log_q_path.any()
    assert sample.log_q_fixed.requires_grad


@pytest.mark.parametrize(
    ("changes", "parts", "message"),
    [
        ({}, {"tilts": False}, "a critic that tilts a generator"),
        ({}, {"balance": object()}, "proposals of the generator alone"),
        ({}, {"most_generated": lambda n: n - 1}, "proposals of the generator alone"),
        ({}, {"generator": SLICED}, "a generator that can be inverted"),
        ({"calibration.begin": 1.0}, {}, "calibration.begin < 1"),
        ({"generator_loss.entropy_weight": 0.5}, {}, "entropy_weight = 1"),
    ],
)
def test_says_what_it_cannot_do(changes, parts, message):
    task = TiltTask()
    for name, part in parts.items():
        setattr(task, name, part)
    with pytest.raises(ValueError, match=f"recipe.base = 'current' wants .*{message}"):
        TiltObjective(task, changed(RECIPE, changes), World())
    TiltObjective(task, changed(RECIPE, {**changes, "warm_up": 1.0}), World())  # without joint training


def test_is_chosen_by_the_recipe():
    assert objective_of(RECIPE) is TiltObjective
    assert objective_of(changed(RECIPE, {"base": "first"})) is LikelihoodObjective
    assert objective_of(changed(RECIPE, {"objective": "gan"})) not in (TiltObjective, LikelihoodObjective)


@pytest.mark.parametrize("objective", [LikelihoodObjective, TiltObjective, CalibrationObjective])
@pytest.mark.parametrize("anchored", [False, True])
def test_a_capped_tilts_constant_is_held_and_no_other(objective, anchored):
    task = TiltTask()
    task.anchored = anchored
    task.tilted_samples = lambda n: task.proposals(n, 0.0).y
    constant = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    net = (
        task.critic if objective is LikelihoodObjective else task.discriminate
    )  # whose base is the generator's
    made = objective(task, RECIPE, World())
    loss = made.critic_loss(lambda x: net(x) + constant, task.data(16, 0.0), 0.0)
    (slope,) = torch.autograd.grad(loss.value, constant)
    n = RECIPE.calibration.samples if objective is CalibrationObjective else RECIPE.batches.integral_samples
    log_alpha = log_mean_exp(task.discriminate(task.proposals(n, 0.0).y) + constant).item()
    assert slope.item() == pytest.approx(0.2 * log_alpha if anchored else 0.0, abs=1e-9)
    assert log_alpha > 2 and "critic_loss" in loss.metrics
