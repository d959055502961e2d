"""The command line on images: 8x8 blobs, a few steps of the `tiny` preset."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from coarse import coarsen
from command_line import run
from PIL import Image
from states import same_state

from led_fast.density import Verdict
from led_fast.errors import InputError
from led_fast.files import read_json
from led_fast.kinds.images import GAN, kind
from led_fast.kinds.images.kind import _open_outliers
from led_fast.training import TrainConfig, Trainer, load
from led_fast.training.checkpoint import load_state
from led_fast.training.model import read_model, write_model


def blobs(count, size=8, channels=1):
    """Soft random shapes, (count, channels, size, size) uint8."""
    coarse = 240 * torch.rand(count, channels, 2, 2)
    return torch.nn.functional.interpolate(coarse, size=size, mode="bilinear").to(torch.uint8).numpy()


@pytest.fixture(scope="module", autouse=True)
def few():
    """Few samples and chains of the annealing, which take longer than a short training."""
    with pytest.MonkeyPatch.context() as patch:
        coarsen(patch.setattr)
        for annealing in (kind._ANNEALING, kind._LIGHT_ANNEALING):
            patch.setitem(annealing, "temperatures", 5)
            patch.setitem(annealing, "chains", 40)
        patch.setattr(kind, "_FIRST_SAMPLES", 400)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("data")
    np.save(folder / "blobs.npy", blobs(300))
    np.save(folder / "noise.npy", np.random.default_rng(0).integers(0, 256, (200, 8, 8), dtype=np.uint8))
    np.save(folder / "color.npy", blobs(120, 32, 3))
    np.save(folder / "large.npy", blobs(120, 16))
    return folder


@pytest.fixture(scope="module")
def tiny_run(data):
    path = data / "run"
    assert (
        run("train", data / "blobs.npy", "--preset", "tiny", "--steps", 12, "--seed", 1, "--out", path) == 0
    )
    return path


@pytest.fixture(scope="module")
def gan_run(data):
    path = data / "gan"
    options = ["--preset", "tiny", "--objective", "gan", "--steps", 3, "--out", path]
    assert run("train", data / "blobs.npy", *options) == 0
    return path


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG")


def test_a_gan_of_images_has_a_recipe_of_its_own(gan_run):
    content = read_json(gan_run / "config.json")
    content.pop("version")
    config = TrainConfig.from_json(content, "config.json")
    assert config == config.changed(GAN) and config.recipe.optimizer.betas == (0.0, 0.99)


def test_train_writes_every_file(tiny_run):
    names = {path.name for path in tiny_run.iterdir()} - {"tensorboard", ".lock"}
    assert names == {
        "config.json",
        "checkpoint.safetensors",
        "metrics.jsonl",
        "model.safetensors",
        "report.json",
        "density.png",
        "samples-000012.png",
    }
    config = json.loads((tiny_run / "config.json").read_text())
    assert (config["model"]["shape"], config["preset"], config["seed"]) == ([1, 8, 8], "tiny", 1)
    report = json.loads((tiny_run / "report.json").read_text())
    assert report["log_normalizer"]["evidence"].keys() >= {"generator", "pixels", "annealed"}
    assert report["bits_per_dim_uniform"] == 8 and "passed" in report["kl_gate"]
    assert is_png(tiny_run / "samples-000012.png") and is_png(tiny_run / "density.png")


def test_the_last_report_judges_a_loaded_model(tiny_run, tmp_path):
    verdict = load(tiny_run).verdict
    report = json.loads((tiny_run / "report.json").read_text())["log_normalizer"]
    assert verdict == Verdict.from_json(report) and "annealed" in verdict.evidence
    run_copy = shutil.copytree(tiny_run, tmp_path / "run")
    odd = (5, "x", [], {}, {"evidence": {}}, report | {"interval": None}, report | {"interval": [1]})
    broken = [json.dumps({"log_normalizer": value}) for value in (*odd, report | {"value": 0.5})]
    for text in ("{", "[]", "{}", *broken):
        (run_copy / "report.json").write_text(text)  # broken, or not about this log α
        found = load(run_copy)
        assert found.verdict.value == verdict.value and "annealed" not in found.verdict.evidence
    (run_copy / "report.json").unlink()
    assert "annealed" not in load(run_copy).verdict.evidence


def test_a_loaded_model_is_a_density_of_images(tiny_run):
    model = load(tiny_run)
    images = model.sample(5)
    assert images.shape == (5, 1, 8, 8) and images.min() >= 0 and images.max() <= 1
    assert model.log_prob(images).isfinite().all()
    assert (model.log_prob(images + 1) == -torch.inf).all()


def test_evaluate_with_outliers(tiny_run, data, capsys):
    assert run("evaluate", tiny_run, "--ood", data / "noise.npy", "--samples", 200) == 0
    report = json.loads((tiny_run / "report.json").read_text())
    assert (
        report["outliers"].keys() == {"uniform noise", "constant images", str(data / "noise.npy")}
        and report["log_normalizer"]["evidence"]["generator"]["samples"] == 200
    )
    told = capsys.readouterr().out
    assert "AUROC, test against" in told and "by typicality, tilt, ratio" in told


class Quadrants(torch.nn.Module):
    """Features of 8x8 images."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(images.float() / 255, 4).flatten(1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_refined_images_can_be_judged(tiny_run, capsys, refuse, tmp_path):
    assert "--refined: wants --features" in refuse("evaluate", tiny_run, "--refined")
    torch.jit.script(Quadrants()).save(str(tmp_path / "quadrants.pt"))
    options = ("--features", tmp_path / "quadrants.pt", "--refined", "--samples", 100)
    assert run("evaluate", tiny_run, *options) == 0
    report = json.loads((tiny_run / "report.json").read_text())
    assert (
        report["quality_refined"]["transitions"] == 10 and 0 < report["quality_refined"]["ess_fraction"] <= 1
    )
    assert "of refined images" in capsys.readouterr().out


def test_gray_outliers_are_coloured_for_a_model_of_coloured_images(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "gray.npy", rng.integers(0, 256, (120, 32, 32), dtype=np.uint8))
    np.save(tmp_path / "color.npy", rng.integers(0, 256, (120, 3, 32, 32), dtype=np.uint8))
    gray = _open_outliers(str(tmp_path / "gray.npy"), "mnist32").split("test")
    colored = _open_outliers(str(tmp_path / "gray.npy"), "color32").split("test")
    assert gray.shape[1] == 1 and torch.equal(colored, gray.expand(-1, 3, -1, -1))
    with pytest.raises(InputError, match=r"color.npy: mnist32 wants images of shape \(1, 32, 32\)"):
        _open_outliers(str(tmp_path / "color.npy"), "mnist32")


def test_sample_interpolate_and_refine(tiny_run, tmp_path, capsys):
    for suffix in ("png", "npy"):
        assert run("sample", tiny_run, "-n", 12, "--seed", 3, "--out", tmp_path / f"s.{suffix}") == 0
    images = np.load(tmp_path / "s.npy")
    assert images.shape == (12, 1, 8, 8) and images.dtype == np.uint8
    assert run("sample", tiny_run, "-n", 12, "--seed", 3, "--refine", "--out", tmp_path / "refined.npy") == 0
    refined = np.load(tmp_path / "refined.npy")
    assert refined.shape == images.shape and (refined != images).any()
    assert run("interpolate", tiny_run, "--rows", 2, "--steps", 3, "--out", tmp_path / "i.png") == 0
    assert run("refine", tiny_run, "-n", 4, "--steps", 20, "--out", tmp_path / "r.png") == 0
    before, after = (
        float(word) for word in capsys.readouterr().out.split() if word[-1].isdigit() and "." in word
    )
    assert after > before
    assert all(is_png(tmp_path / name) for name in ("s.png", "i.png", "r.png"))


def test_score_ranks_blobs_before_noise(tiny_run, data, tmp_path):
    mixed = np.concatenate([np.load(data / "blobs.npy")[:20, 0], np.load(data / "noise.npy")[:20]])
    np.save(tmp_path / "mixed.npy", mixed)
    assert run("score", tiny_run, tmp_path / "mixed.npy", "--out", tmp_path / "scores.csv") == 0
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(int(row["rank"]) for row in rows) == list(range(1, 41))
    assert sum(int(row["rank"]) <= 20 for row in rows[:20]) >= 18
    values = [float(row["log_density"]) for row in rows]
    assert values[0] == pytest.approx(-(float(rows[0]["bits_per_dim"]) - 8) * 64 * np.log(2), abs=0.01)


def test_a_gan_has_samples_but_no_density(gan_run, data, tmp_path, refuse):
    assert json.loads((gan_run / "report.json").read_text())["quality"] is None
    assert run("sample", gan_run, "-n", 5, "--out", tmp_path / "s.png") == 0 and is_png(tmp_path / "s.png")
    out, no_density = tmp_path / "r.png", "is a plain GAN, which has no density"
    assert no_density in refuse("score", gan_run, data / "blobs.npy")
    assert no_density in refuse("evaluate", gan_run, "--ood", data / "noise.npy")
    assert no_density in refuse("evaluate", gan_run, "--features", "classifier", "--refined")
    assert no_density in refuse("refine", gan_run, "--out", out) and not out.exists()


@pytest.fixture(params=["reliable", "unreliable", "trained", "unchecked"])
def verdict(request, tiny_run):
    """The last report's verdict on log α, else that of training, else none; afterwards all is as it was."""
    path, model = tiny_run / "report.json", tiny_run / "model.safetensors"
    was, model_was = path.read_text(), model.read_bytes()
    report = json.loads(was)
    report["log_normalizer"] |= {"reliable": request.param == "reliable", "reason": "two estimates differ"}
    path.write_text(json.dumps(report))
    if request.param in ("trained", "unchecked"):
        path.unlink()
    if request.param == "unchecked":
        trained = read_model(model)
        trained.model._verdict = None
        write_model(model, trained)
    yield request.param
    path.write_text(was)
    model.write_bytes(model_was)


def test_doubts_go_with_the_numbers(verdict, tiny_run, data, tmp_path, capsys, monkeypatch):
    notes = []
    monkeypatch.setattr(kind, "sorted_figure", lambda *_, note: notes.append(note))
    assert run("score", tiny_run, data / "noise.npy") == 0
    assert run("sample", tiny_run, "-n", 2, "--out", tmp_path / "s.png") == 0
    said = {
        "reliable": "",
        "unreliable": "two estimates differ",
        "trained": "no estimate is reliable",
        "unchecked": "never checked",
    }[verdict]
    for text in (capsys.readouterr().err, *notes):
        assert said in text and bool(said) == bool(text)


def test_score_names_what_it_skips(tiny_run, tmp_path, capsys):
    for name in "ab":
        Image.fromarray(blobs(1)[0, 0]).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert run("score", tiny_run, tmp_path) == 0
    shown = capsys.readouterr()
    assert shown.out.count("\n") == 3 and "broken.png" in shown.err and "1 pictures" in shown.err


def test_a_full_disk_leaves_no_half_written_results(tiny_run, data, tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert run("sample", tiny_run, "-n", 2, "--out", tmp_path / "s.npy") == 2
    assert run("score", tiny_run, data / "noise.npy", "--out", tmp_path / "s.csv") == 2
    assert not list(tmp_path.iterdir())


def test_resume_is_exact(data, tmp_path, monkeypatch, capsys, tiny_run):
    step = Trainer.step

    def interrupted(self):
        if self.steps_done == 7:
            raise KeyboardInterrupt
        return step(self)

    out = ["--out", tmp_path / "run"]
    monkeypatch.setattr("led_fast.training.session.CHECKPOINT_EVERY", 5)
    monkeypatch.setattr(Trainer, "step", interrupted)
    shutil.copy(data / "blobs.npy", tmp_path)
    assert run("train", tmp_path / "blobs.npy", "--preset", "tiny", "--steps", 12, "--seed", 1, *out) == 130
    monkeypatch.setattr(Trainer, "step", step)
    assert load_state(tmp_path / "run" / "checkpoint.safetensors", "checkpoint")["trainer"]["steps_done"] == 5
    moved = (tmp_path / "blobs.npy").rename(tmp_path / "moved.npy")
    assert run("train", moved, "--resume", *out) == 0
    assert run("evaluate", tmp_path / "run", "--samples", 100) == 2
    assert "these are the run's data: --data tells where they are now" in capsys.readouterr().err
    assert run("evaluate", tmp_path / "run", "--data", moved, "--samples", 100) == 0
    states = [
        load_state(path / "model.safetensors", "model")["model"] for path in (tiny_run, tmp_path / "run")
    ]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_full_disk_keeps_the_last_checkpoint(data, tmp_path, monkeypatch, capsys):
    written = []

    def fill(_):
        written.append(1)
        if len(written) > 6:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("led_fast.training.session.CHECKPOINT_EVERY", 2)
    monkeypatch.setattr("os.fsync", fill)
    out = tmp_path / "run"
    assert run("train", data / "blobs.npy", "--preset", "tiny", "--steps", 10, "--out", out) == 2
    assert "No space left on device" in capsys.readouterr().err
    state = load_state(out / "checkpoint.safetensors", "checkpoint")
    assert 0 < state["trainer"]["steps_done"] < 10
    assert not [path for path in out.iterdir() if path.name.startswith(".tmp.")]
    assert not (out / "model.safetensors").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["tiny", "--out", "{new}"],
            "tiny: is a preset; say where its data are, led-fast train DIR --preset",
        ),
        (["ring", "--data", "{blobs}", "--out", "{new}"], "--data: goes with --resume; to begin, led-fast"),
        (["tiny", "--data", "{blobs}", "--preset", "paper", "--out", "{new}"], "tiny: is a preset itself"),
        (
            ["{blobs}", "--preset", "paper", "--out", "{new}"],
            "want an array of shape (rows, columns), got shape (300, 1, 8, 8); images want a --preset of images",
        ),
        (["{blobs}", "--preset", "small", "--out", "{new}"], "for images tiny, mnist32"),
        (["{none}", "--preset", "tiny", "--out", "{new}"], "none: want a folder of images"),
        (["{empty}", "--preset", "tiny", "--out", "{new}"], "holds no images"),
        (["{empty}", "--out", "{new}"], "holds no images"),
        (["{magic}", "--preset", "tiny", "--out", "{new}"], "train-images-idx3-ubyte"),
        (
            ["{large}", "--preset", "tiny", "--out", "{new}"],
            "tiny wants images of shape (1, 8, 8), got (1, 16, 16)",
        ),
        (["{color}", "--preset", "mnist32", "--out", "{new}"], "for these, color32 or paper_color32"),
        (
            ["{blobs}", "--preset", "tiny", "--integral-samples", "0", "--out", "{new}"],
            "--integral-samples: want",
        ),
        (["{noise}", "--resume", "--out", "{run}"], "noise.npy: is not the data, "),
        (["{blobs}", "--preset", "mnist32", "--resume", "--out", "{run}"], "with preset tiny, not mnist32"),
        (["ring", "--resume", "--out", "{run}"], "ring: want a folder of images"),
        (["{blobs}", "--preset", "paper", "--resume", "--out", "{run}"], "with preset tiny, not paper"),
        (
            ["{blobs}", "--objective", "gan", "--resume", "--out", "{run}"],
            "objective led, not gan",
        ),
        (["{blobs}", "--integral-samples", "7", "--resume", "--out", "{run}"], "samples"),
    ],
)
def test_train_refuses(data, tiny_run, tmp_path, refuse, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "magic").mkdir()
    (tmp_path / "magic" / "train-images-idx3-ubyte").write_bytes(b"\0\0\x0d\x03" + bytes(100))
    places = {name: tmp_path / name for name in ("new", "none", "empty", "magic")} | {"run": tiny_run}
    places |= {name: data / f"{name}.npy" for name in ("blobs", "noise", "color", "large")}
    assert message in refuse("train", *[argument.format(**places) for argument in arguments])
    assert not (tmp_path / "new").exists()


def test_the_old_form_may_name_its_folder_after_the_preset(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert run("train", "tiny", "--data", data / "blobs.npy", "--steps", 2, "--out", "tiny") == 0


def test_the_form_that_names_the_preset_first_still_begins_and_resumes(data, tiny_run, tmp_path, capsys):
    before = (tiny_run / "model.safetensors").read_bytes()
    old = ["train", "tiny", "--data", data / "blobs.npy", "--steps", 12, "--seed", 1]
    assert run(*old, "--out", tmp_path / "run") == 0
    assert f"is train {data / 'blobs.npy'} --preset tiny now" in capsys.readouterr().err
    models = [load_state(p / "model.safetensors", "model")["model"] for p in (tiny_run, tmp_path / "run")]
    assert same_state(*models)
    assert run("train", "tiny", "--resume", "--out", tiny_run) == 0
    assert "is train DIR --preset tiny now" in capsys.readouterr().err
    assert run("train", "mnist32", "--resume", "--out", tiny_run) == 2
    assert "was started with preset tiny, not mnist32" in capsys.readouterr().err
    assert (tiny_run / "model.safetensors").read_bytes() == before


def test_other_commands_refuse(tiny_run, data, tmp_path, refuse):
    assert "want a .png or .npy file for images" in refuse("sample", tiny_run)
    assert "want images of shape (1, 8, 8)" in refuse("score", tiny_run, data / "large.npy")
    assert "want a file that ends in .csv" in refuse(
        "score", tiny_run, data / "blobs.npy", "--out", tmp_path / "s.npy"
    )
    assert "--samples: want at least 100" in refuse("evaluate", tiny_run, "--samples", 5)
    assert "--samples: want at least 100, got 0" in refuse("evaluate", tiny_run, "--samples", 0)
    assert "features: want classifier, or a .pth" in refuse("evaluate", tiny_run, "--features", "magic")
    assert "there is no folder" in refuse(
        "score", tiny_run, data / "blobs.npy", "--out", tmp_path / "no" / "s.csv"
    )
    assert "--rows: want at least 1" in refuse(
        "interpolate", tiny_run, "--rows", 0, "--out", tmp_path / "i.png"
    )
    assert "--farthest: want" in refuse("refine", tiny_run, "--farthest", 1, "--out", tmp_path / "r.png")
