"""torch.set_default_device(…) on the fake GPU: data stay on the CPU, and nothing that led_fast makes goes astray."""

import fake_gpu
import numpy as np
import pytest
import torch
from coarse import coarsen
from fake_gpu.small import config_of, go_to, source_of
from image_files import write_pictures
from rich.console import Console

from led_fast import info
from led_fast.data import open_source
from led_fast.data.images import open_images, read_images
from led_fast.density import quadrature_log_normalizer
from led_fast.evaluation import evaluate, evaluate_images, report, score_images
from led_fast.evaluation.features.classifier import train_classifier
from led_fast.evaluation.quality import sample_quality
from led_fast.figures import density_figure
from led_fast.figures.activation import activation_figure
from led_fast.kinds.images import task
from led_fast.kinds.points import PRESETS
from led_fast.models import points_critic
from led_fast.training import RunDirectory, TrainConfig, Trainer, load_model, train

QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def default_device(monkeypatch):
    coarsen(monkeypatch.setattr)
    monkeypatch.setattr(task, "_STANDARDIZED_BY", 100)
    monkeypatch.setattr(report, "_HELD_OUT", 500)
    torch.set_default_device(fake_gpu.NAME)
    yield
    torch.set_default_device(None)


def test_data_are_on_the_cpu_and_the_same(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "points.npy", rng.normal(size=(200, 2)))
    np.save(tmp_path / "images.npy", rng.integers(0, 256, (120, 8, 8), dtype=np.uint8))
    for name in ("a", "b"):
        write_pictures(tmp_path / "pictures" / name, 60)

    def draw():
        torch.manual_seed(0)
        sources = [open_source("ring"), open_source("grid"), open_source(str(tmp_path / "points.npy"))]
        images = [open_images(tmp_path / "images.npy"), open_images(tmp_path / "pictures", size=16)]
        found = [t for s in (*sources, *images) for t in (s.sample(5), s.held_out(5))]
        return [*found, *(s.shift for s in sources), images[1].labels]

    found = draw()
    torch.set_default_device(None)
    for ours, wanted in zip(found, draw(), strict=True):
        assert ours.device.type == "cpu" and torch.equal(ours, wanted)


@pytest.mark.parametrize("preset", PRESETS)
def test_points_train_on_the_cpu_with_the_same_weights(preset, tmp_path):
    found = []
    for default in (fake_gpu.NAME, None):
        torch.set_default_device(default)
        trainer = Trainer(TrainConfig.of(open_source("ring"), preset, 0, 10), open_source("ring"))
        trainer.step()
        found.append([*trainer.critic.parameters(), *trainer.generator.parameters()])
    for ours, wanted in zip(*found, strict=True):
        assert ours.device.type == "cpu" and torch.equal(ours, wanted)


def test_a_run_of_points_from_training_to_its_report(tmp_path):
    run, source = RunDirectory.create(tmp_path / "run"), open_source("ring")
    train(run, TrainConfig.of(source, "default", 0, 2), source, QUIET)
    model = load_model(run).model
    assert model.log_prob(model.sample(3)).isfinite().all()
    evaluation = evaluate(model, source, 0)
    draws = {"generator": evaluation.samples, "refined": evaluation.refined}
    log_prob = model.to("cpu").log_prob
    density_figure(tmp_path / "density.png", log_prob, source.mixture, evaluation.data, draws)


def test_a_run_of_images_from_training_to_its_report(tmp_path):
    source = source_of("tiny")
    config = config_of("tiny", source, steps=10)
    run = RunDirectory.create(tmp_path / "run")
    train(run, config, source, QUIET)
    model = load_model(run).model.to(fake_gpu.NAME)
    assert model.log_prob(model.sample(3)).isfinite().all()
    features = train_classifier(source, tmp_path, fake_gpu.NAME, steps=2)
    evaluate_images(model, source, 0, features, samples=100, temperatures=2, chains=40, refined=True)
    np.save(tmp_path / "images.npy", source.split("test").numpy()[:, 0])
    scores = score_images(
        model.log_prob, read_images(tmp_path / "images.npy"), source.shape, device=fake_gpu.NAME
    )
    assert sorted(score.rank for score in scores) == list(range(1, len(scores) + 1))
    assert np.isfinite(sample_quality(source.split("test"), source, features)["distance"])


def test_images_start_from_the_same_weights():
    source, found = source_of("tiny"), []
    for default in (fake_gpu.NAME, None):
        torch.set_default_device(default)
        trainer = Trainer(config_of("tiny", source), source)
        go_to(trainer, "joint training")
        trainer.step()
        found.append([*trainer.critic.parameters(), *trainer.generator.parameters()])
    assert all(torch.equal(ours, wanted) for ours, wanted in zip(*found, strict=True))


def test_quadrature_self_checks_and_figures(tmp_path):
    critic = points_critic()
    found = quadrature_log_normalizer(critic, (-8, -8), (8, 8), cells=24, max_evaluations=10_000)
    assert np.isfinite(found.value)
    assert info.report()[1]
    activation_figure(tmp_path / "activation.png", 2.0, 0.5)
