"""The trainer on images: what its stages, objectives and sizes do."""

import copy
from dataclasses import replace

import pytest
import torch

from led_fast.data.images import ImageCollection, ImageSet, ImageSource
from led_fast.density import DensityModel
from led_fast.evaluation import estimate_image_normalizer
from led_fast.models import IMAGE_PRESETS, ImageCriticConfig
from led_fast.training import IMAGE_RECIPES, TrainConfig, Trainer
from led_fast.training.readings import Readings


@pytest.fixture(scope="module")
def source():
    torch.manual_seed(0)
    coarse = 240 * torch.rand(200, 1, 2, 2)
    images = torch.nn.functional.interpolate(coarse, size=8, mode="bilinear").to(torch.uint8)
    return ImageSource("blobs", ImageCollection(ImageSet(images)))


def trainer_of(source, steps=4, seed=0, **changes):
    config = TrainConfig.from_preset("blobs", source.fingerprint, "tiny", seed, steps)
    return Trainer(replace(config, recipe=replace(config.recipe, **changes)), source)


def moved(trainer, name, before):
    return [not torch.equal(p, before[name][key]) for key, p in getattr(trainer, name).named_parameters()]


def test_the_critic_rests_while_the_generator_warms_up(source):
    trainer = trainer_of(source, steps=5, warm_up=0.4, likelihood_weight=0.5, penalty_interval=1)
    before = copy.deepcopy(trainer.state_dict())
    metrics = [trainer.step() for _ in range(2)]
    assert all(set(row) == {"generator_nll"} for row in metrics)
    assert not any(moved(trainer, "critic", before)) and all(moved(trainer, "generator", before))
    average = trainer.average_generator
    x = source.sample(8)
    learned = average.log_prob(x)
    assert set(trainer.step()) >= {"critic_loss", "generator_loss", "generator_nll", "squared_gradient"}
    # Both critics tilt the warmed-up generator; their networks started at zero.
    for critic in (trainer.critic, trainer.average_critic):
        torch.testing.assert_close(critic.base(x), learned)
        torch.testing.assert_close(critic(x), learned, atol=0.1, rtol=0)
    trainer.step()
    assert sum(moved(trainer, "critic", before)) == 3  # all but a constant


def test_a_gan_has_neither_warm_up_nor_calibration(source):
    metrics = []
    for stages in ({"warm_up": 0.25, "calibrate_from": 0.5}, {"warm_up": 0.0, "calibrate_from": 1.0}):
        trainer = trainer_of(source, steps=4, objective="gan", **stages)
        metrics.append([trainer.step() for _ in range(4)])
    assert metrics[0] == metrics[1]


def test_calibration_tilts_the_last_generator_until_its_weights_are_uneven(source):
    stages = {"warm_up": 0.02, "calibrate_from": 0.04, "calibration_learning_rate": 2e-3}
    trainer = trainer_of(source, steps=200, **stages)
    for _ in range(8):
        trainer.step()
    average = copy.deepcopy(trainer.average_generator.state_dict())
    rows = [trainer.step() for _ in range(190)]
    assert rows[0]["ess_fraction"] == pytest.approx(1, abs=0.01)  # it starts anew
    # What is above the threshold learns, what is below rests.
    share = trainer.recipe.calibration_ess
    trained = [row for row in rows if "critic_loss" in row]
    assert 5 < len(trained) < len(rows) and not any(rows[len(trained) :])
    assert 0.5 * share < trainer.calibration.ess_fraction < share
    for flow in (trainer.generator, trainer.average_generator, trainer.critic.tilted):
        for name, value in flow.state_dict().items():
            torch.testing.assert_close(value, average[name], msg=name)
    torch.manual_seed(0)
    model = DensityModel(trainer.average_critic, trainer.average_generator).eval()
    normalizer = estimate_image_normalizer(model, source, 4000, temperatures=0)
    assert normalizer.base.reliable
    assert normalizer.generator.value == pytest.approx(normalizer.base.value, abs=0.15)
    x = source.held_out(500)
    gain = model.critic.discriminate(x).mean().item() - normalizer.base.value
    assert gain > 0


def test_calibration_is_the_likelihood_by_one_large_integral(source):
    trainer = trainer_of(source, calibration_samples=48)
    x, y = source.sample(16), trainer.generator.sample(48)
    trainer.generator.sample = lambda n: y[:n]

    def net(images):
        return images.flatten(1).sum(1)

    loss, metrics, weight = trainer.calibration.critic_loss(net, x, 0.0)
    assert weight == 1
    weights = net(y).exp()
    torch.testing.assert_close(loss, weights.mean().log() - net(x).mean())
    share = metrics["ess_fraction"].item()
    assert share == pytest.approx((weights.sum() ** 2 / weights.square().sum() / 48).item(), rel=1e-4)
    trainer.calibration.commit({"ess_fraction": share})
    assert trainer.calibration.ess_fraction == pytest.approx(0.9 + 0.1 * share)


def test_averages_begin_anew_with_a_stage(source):
    trainer = trainer_of(source, steps=40_000, warm_up=0.5, calibrate_from=0.75, ema=0.9999)
    head = "net.net.2.weight"
    for start in (20_000, 30_000):
        trainer.steps_done = start
        for _ in range(30):
            trainer.step()
        now, average = (critic.state_dict()[head] for critic in (trainer.critic, trainer.average_critic))
        assert average.norm() > 0.2 * now.norm() > 0  # both were zero when the stage began


def test_only_a_critic_that_tilts_a_generator_can_be_calibrated(source):
    config = TrainConfig.from_preset("blobs", source.fingerprint, "tiny", 0, 4)
    with pytest.raises(ValueError, match="calibrate_from < 1 wants a critic that tilts a generator"):
        Trainer(replace(config, critic=ImageCriticConfig(width=8, base="pixels")), source)


def test_a_run_resumes_within_its_calibration(source):
    trainer = trainer_of(source, steps=20, warm_up=0.2, calibrate_from=0.4)
    for _ in range(14):
        trainer.step()
    state = copy.deepcopy(trainer.state_dict())
    metrics = [trainer.step() for _ in range(6)]
    resumed = trainer_of(source, steps=20, warm_up=0.2, calibrate_from=0.4)
    resumed.load_state_dict(copy.deepcopy(state))
    assert [resumed.step() for _ in range(6)] == metrics and "critic_loss" in metrics[-1]
    resumed.load_state_dict(state | {"calibration_ess": 0.3})
    assert resumed.step() == {}  # it rests


def test_the_penalty_is_on_gradients_by_standardised_logits(source):
    task = trainer_of(source).task
    critic = task.critic.double()
    torch.nn.init.normal_(critic.net.net[-1].weight)
    x = source.sample(5).double()
    t = ((torch.logit(x) - critic.location) / critic.scale).requires_grad_()
    value = critic.discriminate(torch.sigmoid(critic.location + critic.scale * t))
    (gradient,) = torch.autograd.grad(value.sum(), t)
    torch.testing.assert_close(task.squared_gradient(x), gradient.flatten(1).square().sum(1))
    assert gradient.abs().max() > 1e-3


def test_warming_up_fits_the_data(source):
    trainer = trainer_of(source, steps=80, warm_up=1.0, ema=0.0)
    before = copy.deepcopy(trainer.state_dict())
    x = source.held_out(20)
    likelihoods = []
    for _ in range(2):
        likelihoods.append(trainer.average_generator.log_prob(x).mean().item())
        for _ in range(40):
            assert set(trainer.step()) == {"generator_nll"}
    assert not any(moved(trainer, "critic", before))
    likelihoods.append(trainer.average_generator.log_prob(x).mean().item())
    assert likelihoods[0] + 5 < likelihoods[1] < likelihoods[2]


@pytest.mark.parametrize(
    "changes",
    [
        {"integral_samples": 1, "integrals": 64},
        {"integral_samples": 64, "integrals": 1},
        {"integral_samples": 256, "integrals": 1, "micro_batch": 50},
        {"objective": "gan"},
    ],
)
def test_every_objective_takes_steps_that_move_every_weight(source, changes):
    trainer = trainer_of(source, steps=2, warm_up=0.0, **changes)
    before = copy.deepcopy(trainer.state_dict())
    for _ in range(2):
        metrics = trainer.step()
    assert all(torch.tensor(value).isfinite() for value in metrics.values())
    assert all(moved(trainer, "generator", before))
    # A constant added to f changes no density; a classifier is the network alone.
    idle = {"led": {"net.net.2.bias"}, "gan": {"base.mean", "base.log_precision"}}[trainer.recipe.objective]
    for key, parameter in trainer.critic.named_parameters():
        assert key in idle or not torch.equal(parameter, before["critic"][key]), key


def test_a_forward_kl_has_the_gradient_at_fixed_samples(source):
    gradients = []
    for forward_weight in (0.0, 0.5):
        task = trainer_of(source, forward_weight=forward_weight).task
        drawn = task.generated(16)
        drawn.log_q_fixed.sum().backward()
        gradients.append(
            torch.cat([p.grad.flatten() for p in task.generator.parameters() if p.grad is not None])
        )
    inverted = trainer_of(source).task.generator
    inverted.log_prob(drawn.y.detach()).sum().backward()
    expected = torch.cat([p.grad.flatten() for p in inverted.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[1], expected, rtol=1e-2, atol=1e-2)
    assert (gradients[0] - expected).norm() > 0.1 * expected.norm()


def test_each_network_has_its_own_adam(source):
    trainer = trainer_of(source, steps=10, warm_up=0.2)
    trainer.step()
    (critic,), (generator,) = trainer.critic_optimizer.param_groups, trainer.generator_optimizer.param_groups
    assert (critic["betas"], critic["lr"]) == ((0.0, 0.99), 1e-3)
    assert (generator["betas"], generator["lr"]) == ((0.5, 0.99), 2e-3)


def test_bounded_memory_changes_no_gradient(source):
    drawn = trainer_of(source).task.proposals(256, 0.0)
    gradients = []
    for micro_batch in (None, 50):
        trainer = trainer_of(source, warm_up=0.0, integral_samples=256, integrals=1, micro_batch=micro_batch)
        assert len(trainer.task.proposals(256, 0.0).y) == 256
        trainer.task.proposals = lambda n, at: drawn
        torch.manual_seed(1)
        trainer._step_critic(trainer.objective, trainer.critic, 0.5, Readings())
        gradients.append([p.grad for p in trainer.critic.parameters()])
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("preset", IMAGE_RECIPES)
def test_a_preset_has_a_recipe_that_its_generator_can_follow(preset):
    recipe, sliced = IMAGE_RECIPES[preset], IMAGE_PRESETS[preset].generator.oversize
    assert sliced == preset.startswith("paper")
    assert (recipe.likelihood_weight == 0) == (recipe.warm_up == 0) == (recipe.calibrate_from == 1) == sliced
