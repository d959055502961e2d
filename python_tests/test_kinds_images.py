"""Images as a kind of data: which networks suit a folder of pictures, and the recipe of each preset."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from image_sources import noise_source
from PIL import Image
from rich.console import Console
from tilting_images import tilting_model

from led_fast.data.images import ImageCollection, ImageSet, ImageSource, quantize
from led_fast.errors import InputError
from led_fast.kinds import images
from led_fast.kinds.images import kind
from led_fast.kinds.images.kind import _open_outliers
from led_fast.kinds.kind import EvaluateOptions
from led_fast.training import Reading, TrainConfig


def pictures(folder, *groups):
    """Noise of some numbers, sizes and modes as .png files in a folder."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for group, (count, width, height, mode) in enumerate(groups):
        for i in range(count):
            shape = (height, width, 3) if mode == "RGB" else (height, width)
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode).save(
                folder / f"{group}-{i}.png"
            )
    return folder


@pytest.mark.parametrize(
    "groups, preset, skipped",
    [
        ([(140, 70, 64, "RGB")], "color64", 0),
        ([(140, 48, 40, "RGB")], "color32", 0),
        ([(140, 70, 64, "L")], "mnist32", 0),
        ([(150, 64, 64, "RGB"), (20, 40, 40, "RGB")], "color64", 20),
        ([(135, 64, 64, "RGB"), (150, 40, 40, "RGB")], "color32", 0),
    ],
)
def test_without_a_preset_pictures_are_as_large_as_most_of_them(tmp_path, groups, preset, skipped):
    source = images.KIND.open(str(pictures(tmp_path, *groups)), None, Reading())
    assert images.KIND.configure(source, None)[0] == preset
    assert len(source.problems) == skipped


def test_where_all_pictures_must_be_used_the_size_stays_and_small_ones_are_refused(tmp_path):
    folder = pictures(tmp_path, (150, 64, 64, "RGB"), (2, 40, 40, "RGB"))
    with pytest.raises(InputError, match="want at least 64x64 pixels"):
        images.KIND.open(str(folder), None, Reading(strict=True))
    assert images.KIND.open(str(folder), "color32", Reading(strict=True)).shape == (3, 32, 32)


def test_pictures_that_suit_no_preset_are_refused_by_the_smallest_size(tmp_path):
    with pytest.raises(InputError, match=r"140 of 140 pictures are of no use: .*want at least 32x32 pixels"):
        images.KIND.open(str(pictures(tmp_path, (140, 20, 20, "RGB"))), None, Reading())


RESTING, HELD = (2e-4, 0.5, 0.0), (1e-3, 0.0, 0.25)


@pytest.mark.parametrize(
    ("preset", "base", "warm_up", "samples", "rate", "rate_of_critic", "likelihood", "cap", "calibration"),
    [
        ("tiny", "first", 0.7, 1, 2e-3, 1e-3, 0.25, None, RESTING),
        ("mnist32", "current", 0.5, 64, 1e-2, 1e-3, 0.15, None, HELD),
        ("color32", "current", 0.5, 64, 4e-3, 1e-3, 0.25, 5.0, RESTING),
        ("color64", "current", 0.5, 64, 4e-3, 1e-3, 0.25, 5.0, RESTING),
        ("paper_mnist32", "first", 0.0, 64, 3e-3, 1e-4, 0.8, None, RESTING),
    ],
)
def test_every_generator_of_images_has_the_recipe_that_was_chosen_for_it(
    preset, base, warm_up, samples, rate, rate_of_critic, likelihood, cap, calibration
):
    recipe = images.PRESETS[preset].recipe
    assert (recipe.base, recipe.warm_up) == (base, warm_up)
    assert recipe.batches.integral_samples == samples
    assert recipe.optimizer.generator_learning_rate == rate
    assert recipe.optimizer.critic_learning_rate == rate_of_critic
    assert recipe.generator_loss.likelihood_weight == likelihood
    assert images.PRESETS[preset].model.critic.cap == cap
    settings = recipe.calibration
    assert (settings.learning_rate, settings.ess, settings.held_ess) == calibration


def test_a_single_test_image_is_refused_before_anything_is_measured():
    image = noise_source().split("test")[:1]
    source = ImageSource("single", ImageCollection(ImageSet(noise_source().split("train")), ImageSet(image)))
    trained = SimpleNamespace(model=torch.nn.Identity(), config=None)  # nothing is asked of them
    options = EvaluateOptions(features="classifier")
    with pytest.raises(InputError, match="single: want at least 2 test images"):
        images.KIND.evaluate(trained, source, options, Console(quiet=True))


@pytest.mark.parametrize(
    ("first", "cap", "temperatures", "chains"),
    [(False, None, 500, 300), (True, None, 200, 200), (False, 5.0, 200, 200)],
)
def test_a_full_report_anneals_longer_unless_a_bound_decides(monkeypatch, first, cap, temperatures, chains):
    class Asked(Exception):
        pass

    def evaluate_images(*_, **options):
        raise Asked(options["temperatures"], options["chains"])

    monkeypatch.setattr(kind, "evaluate_images", evaluate_images)
    config = TrainConfig.of(noise_source(), "tiny", changes={"model.critic.cap": cap})
    trained = SimpleNamespace(model=torch.nn.Identity(), config=config)
    with pytest.raises(Asked) as asked:
        images.KIND.evaluate(trained, noise_source(), EvaluateOptions(first=first), Console(quiet=True))
    assert asked.value.args == (temperatures, chains)


@pytest.mark.parametrize("count", [1, 30, 150])
def test_outliers_may_be_few_and_are_all_taken(tmp_path, count):
    found = _open_outliers(str(pictures(tmp_path, (count, 8, 8, "L"))), "tiny")
    assert found.held_out(1000).shape == (count, 1, 8, 8)
    with pytest.raises(InputError, match="want at least 100 images to learn from"):
        images.KIND.open(str(pictures(tmp_path / "few", (30, 8, 8, "L"))), "tiny", Reading())


@pytest.mark.parametrize("suffix", [".png", ".npy"])
def test_samples_are_drawn_and_scored_a_few_at_a_time(tmp_path, suffix):
    model, at_once = tilting_model(), []
    model.set_log_normalizer(0.0)
    for network in (model.critic, model.generator):
        network.register_forward_pre_hook(lambda _, inputs: at_once.append(len(inputs[0])))
    trained, out = SimpleNamespace(model=model), tmp_path / f"samples{suffix}"
    images.KIND.write_samples(trained, 600, refine=False, seed=3, out=out, note="")
    scored = suffix == ".png"
    assert sum(at_once) == 600 * (1 + scored) and max(at_once) <= 250
    if not scored:
        assert len(np.load(out)) == 600
    # As many as there are in a part are those of one draw.
    images.KIND.write_samples(trained, 40, refine=False, seed=3, out=tmp_path / "few.npy", note="")
    torch.manual_seed(3)
    assert np.array_equal(np.load(tmp_path / "few.npy"), quantize(model.sample(40)).numpy())


def test_a_gans_logit_has_no_cap():
    source = noise_source(shape=(3, 32, 32))
    assert TrainConfig.of(source, "color32", changes=images.GAN).model.critic.cap is None
