"""The command line on a machine with the fake GPU: every command, on images and on points."""

import csv
import json

import fake_gpu
import numpy as np
import pytest
import torch
from coarse import coarsen
from command_line import run
from fake_gpu.small import blobs

from led_fast.evaluation.features import classifier
from led_fast.kinds.images import kind, task
from led_fast.models import IMAGE_PRESETS

FAMILIES = [
    "tiny",
    *(pytest.param(p, marks=pytest.mark.slow) for p in ("mnist32", "color32", "paper_mnist32")),
]


@pytest.fixture(scope="module", autouse=True)
def few():
    with pytest.MonkeyPatch.context() as patch:
        coarsen(patch.setattr)
        patch.setitem(kind._LIGHT_ANNEALING, "temperatures", 2)
        patch.setitem(kind._LIGHT_ANNEALING, "chains", 40)
        patch.setattr(kind, "_FIRST_SAMPLES", 100)
        patch.setattr(task, "_STANDARDIZED_BY", 100)
        patch.setattr(classifier.train_classifier, "__defaults__", (None, "cpu", 3))
        yield


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request, tmp_path_factory):
    """A run of images, and its data."""
    folder, shape = tmp_path_factory.mktemp(request.param), IMAGE_PRESETS[request.param].shape
    images = blobs(shape, 120).permute(0, 2, 3, 1).squeeze(-1).numpy()
    np.savez(folder / "data.npz", images=images, labels=np.arange(120) // 60)
    steps = 10 if request.param == "tiny" else 3
    options = [folder / "data.npz", "--preset", request.param, "--steps", steps, "--out", folder / "run"]
    with fake_gpu.Count() as count:
        assert run("train", *options) == 0
    assert count.launches > 1000
    return folder


@pytest.fixture
def works(monkeypatch, tmp_path):
    """Runs a command; it must succeed, compute on the device, and leave its generator as it was found."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    module = torch.get_device_module(fake_gpu.NAME)

    def check(*arguments):
        module.manual_seed(7)
        states = module.get_rng_state(), torch.get_rng_state()
        with fake_gpu.Count() as count:
            assert run(*arguments) == 0
        assert count.launches > 10
        for before, after in zip(states, (module.get_rng_state(), torch.get_rng_state()), strict=True):
            assert torch.equal(before, after), "a generator is not as it was found"

    return check


def test_train_has_written_a_report(trained):
    found = json.loads((trained / "run" / "report.json").read_text())
    assert np.isfinite(found["log_normalizer"]["value"]) and "a GPU that is not there" in str(found)


def test_evaluate(trained, works):
    data = trained / "data.npz"
    options = ("--features", "classifier", "--refined", "--ood", data, "--samples", 100)
    works("evaluate", trained / "run", *options)
    found = json.loads((trained / "run" / "report.json").read_text())
    assert np.isfinite(found["quality"]["distance"]) and len(found["outliers"]) == 3
    assert np.isfinite(found["quality_refined"]["distance"])


def test_sample_is_of_its_seed_alone(trained, works, tmp_path):
    drawn = []
    for i, seed in enumerate((1, 1, 2)):
        out = tmp_path / f"{i}.npy"
        works("sample", trained / "run", "-n", 5, "--seed", seed, "--out", out)
        drawn.append(np.load(out))
        torch.rand(3, device=fake_gpu.NAME)
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])
    works("sample", trained / "run", "-n", 5, "--refine", "--out", tmp_path / "drawn.png")


def test_score(trained, works, tmp_path):
    works("score", trained / "run", trained / "data.npz", "--out", tmp_path / "scores.csv")
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert len(rows) == 120 and all(np.isfinite(float(row["log_density"])) for row in rows)


def test_interpolate_and_refine(trained, works, tmp_path):
    works("interpolate", trained / "run", "--rows", 2, "--steps", 3, "--out", tmp_path / "walks.png")
    works("refine", trained / "run", "-n", 2, "--steps", 2, "--out", tmp_path / "refined.png")


def test_resume_of_a_finished_run(trained):
    assert run("train", trained / "data.npz", "--out", trained / "run", "--resume") == 0


def test_points_stay_on_the_cpu(tmp_path):
    np.save(tmp_path / "points.npy", np.random.default_rng(0).normal(size=(200, 2)))
    module = torch.get_device_module(fake_gpu.NAME)
    state = module.get_rng_state()
    with fake_gpu.Count() as count:
        target = [tmp_path / "points.npy", "--preset", "inflated", "--steps", 3]
        assert run("train", *target, "--out", tmp_path / "run") == 0
        assert run("sample", tmp_path / "run", "-n", 5, "--refine", "--out", tmp_path / "drawn.csv") == 0
        assert run("sample", tmp_path / "run", "-n", 5, "--out", tmp_path / "drawn.png") == 0
        assert run("score", tmp_path / "run", tmp_path / "points.npy", "--out", tmp_path / "scores.csv") == 0
        assert run("evaluate", tmp_path / "run") == 0
    assert not count.total and torch.equal(state, module.get_rng_state())
