"""The trainer on images: what its stages, objectives and sizes do."""

import copy

import pytest
import torch

from led_fast.data.images import ImageCollection, ImageSet, ImageSource
from led_fast.density import DensityModel
from led_fast.evaluation import estimate_image_normalizer
from led_fast.kinds.images import PRESETS
from led_fast.models import image_generator
from led_fast.training import TrainConfig, Trainer
from led_fast.training.readings import Readings


@pytest.fixture(scope="module")
def source():
    torch.manual_seed(0)
    coarse = 240 * torch.rand(200, 1, 2, 2)
    images = torch.nn.functional.interpolate(coarse, size=8, mode="bilinear").to(torch.uint8)
    return ImageSource("blobs", ImageCollection(ImageSet(images)))


def trainer_of(source, changes=None, steps=4):
    return Trainer(TrainConfig.of(source, "tiny", steps=steps, changes=changes), source)


def moved(trainer, name, before):
    return [not torch.equal(p, before[name][key]) for key, p in getattr(trainer, name).named_parameters()]


def test_the_critic_rests_while_the_generator_warms_up(source):
    trainer = trainer_of(
        source,
        {
            "recipe.warm_up": 0.4,
            "recipe.generator_loss.likelihood_weight": 0.5,
            "recipe.penalty.interval": 1,
        },
        steps=5,
    )
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


def test_a_critic_that_tilts_the_current_generator_never_asks_for_the_first_one(source):
    changes = {"recipe.base": "current", "recipe.warm_up": 0.2, "recipe.penalty.interval": 1}
    trainer = trainer_of(source, changes, steps=10)
    for _ in range(3):
        trainer.step()
    for buffer in trainer.critic.base.state_dict().values():
        buffer.fill_(torch.nan)
    metrics = [trainer.step() for _ in range(6)]
    assert all("kl_generator_model" in row for row in metrics)
    trainer.step()  # of the calibration, whose base is the last generator
    y, log_q = trainer.generator.rsample_and_log_prob(16)
    torch.testing.assert_close(
        trainer.critic(y), log_q + trainer.critic.discriminate(y), atol=1e-4, rtol=1e-5
    )


@pytest.mark.parametrize("steps", [1, 4, 8])
def test_where_a_calibration_has_no_step_the_generator_is_not_tilted(source, steps):
    trainer = trainer_of(source, {"recipe.base": "current", "recipe.warm_up": 0.1}, steps)
    assert [trainer.step() for _ in range(steps)][-1]
    critic, generator = trainer.finished_networks()
    y, log_q = generator.rsample_and_log_prob(16)
    torch.testing.assert_close(critic(y), log_q, atol=1e-4, rtol=1e-5)


def test_a_gan_has_neither_warm_up_nor_calibration(source):
    metrics = []
    for warm_up, calibrate_from in ((0.25, 0.5), (0.0, 1.0)):
        stages = {"recipe.warm_up": warm_up, "recipe.calibration.begin": calibrate_from}
        trainer = trainer_of(source, {"recipe.objective": "gan", **stages})
        metrics.append([trainer.step() for _ in range(4)])
    assert metrics[0] == metrics[1]


def test_calibration_tilts_the_last_generator_until_its_weights_are_uneven(source):
    stages = {"recipe.warm_up": 0.02, "recipe.calibration.begin": 0.04}
    trainer = trainer_of(source, {**stages, "recipe.calibration.learning_rate": 2e-3}, steps=200)
    for _ in range(8):
        trainer.step()
    average = copy.deepcopy(trainer.average_generator.state_dict())
    rows = [trainer.step() for _ in range(190)]
    assert rows[0]["ess_fraction"] == pytest.approx(1, abs=0.01)  # it starts anew
    # What is above the threshold learns, what is below rests.
    share = trainer.recipe.calibration.ess
    trained = [row for row in rows if "critic_loss" in row]
    assert 5 < len(trained) < len(rows) and not any(rows[len(trained) :])
    assert 0.5 * share < trainer.calibration.ess_fraction < share
    for flow in (trainer.generator, trainer.average_generator, trainer.critic.tilted):
        for name, value in flow.state_dict().items():
            torch.testing.assert_close(value, average[name], msg=name)
    torch.manual_seed(0)
    model = DensityModel(trainer.average_critic, trainer.average_generator).eval()
    normalizer = estimate_image_normalizer(model, source, 4000, temperatures=0)
    assert normalizer.base is None and normalizer.generator.reliable
    torch.manual_seed(1)
    tilts = model.critic.discriminate(model.generator.sample(4000)).double()
    assert normalizer.generator.value == pytest.approx(tilts.exp().mean().log().item(), abs=0.15)
    x = source.held_out(500)
    gain = model.critic.discriminate(x).mean().item() - normalizer.generator.value
    assert gain > 0


def test_calibration_is_the_likelihood_by_one_large_integral(source):
    trainer = trainer_of(source, {"recipe.calibration.samples": 48})
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


@pytest.mark.parametrize("norm", ["running", "batch"])
def test_a_resting_generators_statistics_rest_too(source, norm):
    stages = {"recipe.warm_up": 0.2, "recipe.calibration.begin": 0.4}
    trainer = trainer_of(source, {**stages, "model.generator.norm": norm}, steps=5)
    for _ in range(5):
        trainer.step()
    critic, generator = trainer.finished_networks()
    for name, value in critic.tilted.state_dict().items():
        torch.testing.assert_close(generator.state_dict()[name], value, rtol=0, atol=0, msg=name)
    assert DensityModel(critic, generator).own_tilt()


def test_averages_begin_anew_with_a_stage(source):
    stages = {"recipe.warm_up": 0.5, "recipe.calibration.begin": 0.75}
    trainer = trainer_of(source, {**stages, "recipe.ema": 0.9999}, steps=40_000)
    head = "net.net.2.weight"
    for start in (20_000, 30_000):
        trainer.steps_done = start
        for _ in range(30):
            trainer.step()
        now, average = (critic.state_dict()[head] for critic in (trainer.critic, trainer.average_critic))
        assert average.norm() > 0.2 * now.norm() > 0  # both were zero when the stage began


def test_only_a_critic_that_tilts_a_generator_can_be_calibrated(source):
    with pytest.raises(ValueError, match=r"critic must tilt a generator where calibration\.begin < 1"):
        trainer_of(source, {"model.critic.width": 8, "model.critic.base": "pixels"})


def test_a_run_resumes_within_its_calibration(source):
    stages = {"recipe.warm_up": 0.2, "recipe.calibration.begin": 0.4}
    trainer = trainer_of(source, stages, steps=20)
    for _ in range(14):
        trainer.step()
    state = copy.deepcopy(trainer.state_dict())
    metrics = [trainer.step() for _ in range(6)]
    resumed = trainer_of(source, stages, steps=20)
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
    trainer = trainer_of(source, {"recipe.warm_up": 1.0, "recipe.ema": 0.0}, steps=80)
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
        {"recipe.batches.integral_samples": 1, "recipe.batches.integrals": 64},
        {"recipe.batches.integral_samples": 64, "recipe.batches.integrals": 1},
        {
            "recipe.batches.integral_samples": 256,
            "recipe.batches.integrals": 1,
            "recipe.batches.micro_batch": 50,
        },
        {"recipe.objective": "gan"},
    ],
)
def test_every_objective_takes_steps_that_move_every_weight(source, changes):
    trainer = trainer_of(source, {"recipe.warm_up": 0.0, **changes}, steps=2)
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
        task = trainer_of(source, {"recipe.generator_loss.forward_weight": forward_weight}).task
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
    trainer = trainer_of(source, {"recipe.warm_up": 0.2}, steps=10)
    trainer.step()
    (critic,), (generator,) = trainer.critic_optimizer.param_groups, trainer.generator_optimizer.param_groups
    assert (critic["betas"], critic["lr"]) == ((0.0, 0.99), 1e-3)
    assert (generator["betas"], generator["lr"]) == ((0.5, 0.99), 2e-3)


def test_bounded_memory_changes_no_gradient(source):
    drawn = trainer_of(source).task.proposals(256, 0.0)
    gradients = []
    for micro_batch in (None, 50):
        batches = {"integral_samples": 256, "integrals": 1, "micro_batch": micro_batch}
        changes = {f"recipe.batches.{name}": value for name, value in batches.items()}
        trainer = trainer_of(source, {"recipe.warm_up": 0.0, **changes})
        assert len(trainer.task.proposals(256, 0.0).y) == 256
        trainer.task.proposals = lambda n, at: drawn
        torch.manual_seed(1)
        trainer._step_critic(trainer.objective, trainer.critic, 0.5, Readings(), trainer._data(0.5))
        gradients.append([p.grad for p in trainer.critic.parameters()])
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_a_recipe_that_its_generator_can_follow(preset):
    (model, recipe), sliced = PRESETS[preset], preset.startswith("paper")
    assert model.generator.oversize == sliced
    assert image_generator(model.networks()).has_bound  # of which the generator's loss has a share
    assert (recipe.warm_up == 0, recipe.calibration.begin == 1) == (sliced, sliced)


@pytest.mark.parametrize("lost", [-1e22, float("nan"), 1e9])
@pytest.mark.parametrize("forward_weight", [0.0, 0.5])
def test_an_image_that_was_lost_on_its_way_takes_no_part_in_the_generators_step(source, lost, forward_weight):
    log_normalizer = torch.tensor(-1000.0, dtype=torch.float64)  # beyond what counts as lost, without it
    trainer = trainer_of(source, {"recipe.generator_loss.forward_weight": forward_weight})
    trainer.begin_stage(trainer._stage(3))

    def gradients(values, kept):
        torch.manual_seed(1)
        sample = trainer.task.generated(8)
        sample = sample._replace(**{n: getattr(sample, n)[kept] for n in sample._fields})
        f = torch.where(
            values[kept].isfinite() & (values[kept].abs() < 1e6),
            sample.y.sum((1, 2, 3)) + log_normalizer.float(),
            values[kept],
        )
        target = trainer.task.target(f, sample, log_normalizer, 1.0)
        assert target.dtype == torch.float32
        loss = (sample.log_q_path - target + log_normalizer.float()).sum()
        return loss, torch.autograd.grad(loss, list(trainer.generator.parameters()), allow_unused=True)

    values = torch.zeros(8)
    values[3] = lost
    kept = torch.arange(8) != 3
    loss, found = gradients(values, torch.arange(8))
    wanted_loss, wanted = gradients(values, kept)
    torch.testing.assert_close(loss, wanted_loss)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("cap", [None, 2.0])
def test_the_constant_of_a_capped_net_is_held(source, cap):
    assert trainer_of(source, {"model.critic.cap": cap}).task.anchored == (cap is not None)
