"""Configs: what a file of any version says, by the path of the setting, and what is refused."""

import json
import re
from dataclasses import asdict, is_dataclass, replace
from typing import Annotated, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch

from led_fast.data import open_source
from led_fast.data.images import ImageCollection, ImageSet, ImageSource
from led_fast.errors import InputError
from led_fast.kinds import images, points
from led_fast.kinds.tables.settings import Pool
from led_fast.models import ImageGeneratorConfig
from led_fast.models.tables import TableCriticConfig, TableGeneratorConfig
from led_fast.training import Recipe, TrainConfig
from led_fast.training.config import FORMAT

# The fields of version 0.1.0's flat recipe, with its defaults.
RECIPE_1 = {
    "steps": 2000,
    "objective": "led",
    "batch_size": 256,
    "integral_samples": 384,
    "integrals": 1,
    "covering_share": 0.5,
    "broad_share": 0.2,
    "broad_scale": 1.5,
    "blurred_points": 128,
    "blur_widths": 5,
    "balanced": True,
    "generator_batch": 256,
    "generator_steps": 2,
    "critic_learning_rate": 1e-3,
    "generator_learning_rate": 3e-3,
    "betas": [0.9, 0.99],
    "critic_betas": None,
    "decay_from": 0.3,
    "decay_to": 0.02,
    "gradient_clip": 10.0,
    "gradient_penalty": 0.0,
    "penalty_interval": 1,
    "micro_batch": None,
    "likelihood_weight": 0.0,
    "warm_up": 0.0,
    "calibrate_from": 1.0,
    "calibration_samples": 64,
    "calibration_learning_rate": 2e-4,
    "calibration_ess": 0.5,
    "forward_weight": 0.5,
    "entropy_weight": 1.0,
    "max_weight": 20.0,
    "noise_start": 0.6,
    "noise_end": 0.1,
    "noise_until": 0.7,
    "floor_start": 0.01,
    "floor_end": 0.002,
    "floor_from": 0.75,
    "floor_until": 0.9,
    "ema": 0.995,
}
PAPER_1 = {
    "integral_samples": 256,
    "covering_share": 0.1,
    "broad_share": 1.0,
    "balanced": False,
    "generator_steps": 1,
    "generator_learning_rate": 1e-3,
    "forward_weight": 0.0,
    "noise_start": 0.0,
    "floor_start": 0.0,
    "ema": 0.0,
}
IMAGES_1 = {
    "steps": 8000,
    "batch_size": 64,
    "integral_samples": 1,
    "integrals": 64,
    "generator_batch": 64,
    "generator_steps": 1,
    "critic_learning_rate": 1e-3,
    "generator_learning_rate": 2e-3,
    "betas": [0.5, 0.99],
    "critic_betas": [0.0, 0.99],
    "decay_from": 0.6,
    "gradient_clip": 200.0,
    "gradient_penalty": 0.02,
    "penalty_interval": 4,
    "likelihood_weight": 0.25,
    "warm_up": 0.7,
    "calibrate_from": 0.9,
    "forward_weight": 0.0,
    "ema": 0.998,
}
PAPER_IMAGES_1 = {
    **IMAGES_1,
    "integral_samples": 64,
    "integrals": 1,
    "generator_learning_rate": 1e-3,
    "critic_betas": None,
    "gradient_penalty": 0.0,
    "likelihood_weight": 0.0,
    "warm_up": 0.0,
    "calibrate_from": 1.0,
    "ema": 0.0,
}


OTHERS = {"objective": "gan", "betas": [0.25, 0.5], "critic_betas": [0.25, 0.5], "micro_batch": 3}


def source_of(preset):
    if preset in points.PRESETS:
        return open_source("ring")
    noise = np.random.default_rng(0).integers(0, 256, (150, *images.PRESETS[preset].model.shape), np.uint8)
    return ImageSource("noise", ImageCollection(ImageSet(torch.from_numpy(noise))))


def as_json(content):
    return json.loads(json.dumps(content))


def format_1(config):
    """What version 0.1.0 wrote of a preset; it had no other settings."""
    is_image, paper = config.kind == "images", config.preset.startswith("paper")
    of_images, of_points = (PAPER_IMAGES_1, PAPER_1) if paper else (IMAGES_1, {})
    recipe = RECIPE_1 | (of_images if is_image else of_points)
    content = {
        name: getattr(config, name)
        for name in ("data", "data_fingerprint", "preset", "seed", "steps", "minutes", "ops")
    }
    return as_json(
        {
            **content,
            "shape": config.model.shape if is_image else [2],
            "generator": asdict(config.model.generator),
            "critic": asdict(config.model.critic),
            "recipe": recipe,
        }
    )


@pytest.fixture(params=[*points.PRESETS, *images.PRESETS])
def config(request):
    return TrainConfig.of(source_of(request.param), request.param, seed=7)


@pytest.fixture
def ring():
    return TrainConfig.of(open_source("ring"), seed=7)


def test_a_preset_comes_back_as_it_was_written(config):
    content = as_json(config.to_json())
    assert content["format"] == FORMAT == 2
    assert TrainConfig.from_json(content, "c.json") == config


def test_a_preset_of_version_0_1_0_is_the_one_of_today(config):
    if config.preset == "paper" or (config.kind == "images" and config.preset != "tiny"):
        pytest.skip("was another")
    found = TrainConfig.from_json(format_1(config), "c.json")
    changes = {"cuda_graph": "off"}  # it recorded no steps
    if config.kind == "points":
        changes["recipe.batches.shared"] = False  # its two steps had samples of their own
    assert found == config.changed(changes)


WITH_STEPS = ["mnist32", "color32", "color64"]


@pytest.mark.parametrize("preset", WITH_STEPS)
def test_a_run_of_version_0_1_0_keeps_the_networks_that_its_preset_had(preset):
    """And the recipe, which is that of `tiny` today."""
    generator = ImageGeneratorConfig(local_couplings=1, kernel_size=3 if preset == "mnist32" else 7)
    model = replace(images.PRESETS[preset].model, generator=generator)
    today = TrainConfig.of(source_of(preset), preset, seed=7)
    older = replace(today, recipe=images.PRESETS["tiny"].recipe, model=model, cuda_graph="off")
    content = format_1(older)
    for newer in ("local_steps", "scale_steps"):
        del content["generator"][newer]
    assert TrainConfig.from_json(content, "c.json") == older != today


def test_the_paper_preset_of_version_0_1_0_is_what_is_printed():
    printed = TrainConfig.of(open_source("ring"), "paper_printed", seed=7)
    assert not printed.recipe.batches.shared
    found = TrainConfig.from_json(format_1(printed) | {"preset": "paper"}, "c.json")
    assert found == replace(printed, preset="paper", cuda_graph="off")


@pytest.mark.parametrize("integrals, samples, shared", [(64, 1, True), (16, 4, True), (21, 3, False)])
def test_images_of_version_0_1_0_shared_samples_where_both_steps_took_as_many(integrals, samples, shared):
    content = format_1(TrainConfig.of(source_of("tiny"), "tiny"))
    content["recipe"] |= {"integrals": integrals, "integral_samples": samples, "generator_batch": 64}
    assert TrainConfig.from_json(content, "c.json").recipe.batches.shared == shared
    content["recipe"]["objective"] = "gan"
    assert not TrainConfig.from_json(content, "c.json").recipe.batches.shared


def test_every_flat_setting_goes_to_a_place_of_its_own(ring):
    before = TrainConfig.from_json(format_1(ring), "c.json")
    places = set()
    for name, value in RECIPE_1.items():
        other = OTHERS[name] if name in OTHERS else another(value)
        content = format_1(ring)
        content["recipe"][name] = other
        after = TrainConfig.from_json(content, "c.json")
        moved = [
            path for path, leaf in leaves(as_json(after.to_json())).items() if leaf != leaves_of(before)[path]
        ]
        assert len(moved) == 1, (name, moved)
        assert leaves(as_json(after.to_json()))[moved[0]] == other
        places.add(moved[0])
    assert len(places) == len(RECIPE_1)


def another(value):
    """A value that is as good."""
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else value / 2 or 0.5


def leaves(content, path=""):
    if not isinstance(content, dict):
        return {path: content}
    return {
        key: leaf
        for name, value in content.items()
        for key, leaf in leaves(value, f"{path}.{name}" if path else name).items()
    }


def leaves_of(config):
    return leaves(as_json(config.to_json()))


def put(content, path, value):
    *groups, name = path.split(".")
    for group in groups:
        content = content[group]
    content[name] = value


def drop(content, path):
    *groups, name = path.split(".")
    for group in groups:
        content = content[group]
    del content[name]


@pytest.mark.parametrize(
    "path, value, said",
    [
        ("extra", 1, "unknown: extra"),
        ("recipe.speed", 1, "unknown: recipe.speed"),
        ("recipe.optimizer.rate", 1, "unknown: recipe.optimizer.rate"),
        ("model.noise.colour", "pink", "unknown: model.noise.colour"),
        ("model.critic.widt", 3, "unknown: model.critic.widt"),
        ("seed", "one", "seed: Expected `int`, got `str`"),
        ("ops", "slow", "ops: Invalid enum value 'slow'"),
        ("recipe.objective", "vae", "recipe.objective: Invalid enum value 'vae'"),
        ("recipe.batches.data", 2.5, "recipe.batches.data: Expected `int`, got `float`"),
        ("recipe.optimizer.betas", [0.5], "recipe.optimizer.betas: Expected `array` of length 2"),
        ("recipe.batches.data", 0, "recipe.batches.data: Expected `int` >= 1"),
        ("recipe.ema", 1.0, "recipe.ema: Expected `float` < 1.0"),
        ("recipe.optimizer.betas", [0.5, -0.1], "recipe.optimizer.betas[1]: Expected `float` >= 0.0"),
        ("recipe.optimizer", 3, "recipe.optimizer: Expected `object`, got `int`"),
        ("model.noise.start", "loud", "model.noise.start: Expected `float`, got `str`"),
        ("model.critic.width", None, "model.critic.width: Expected `int`, got `null`"),
        ("model", [], "model: Expected `object`, got `array`"),
        ("kind", "sounds", "kind of data: want one of points, images, tables, got 'sounds'"),
        ("steps", 0, "steps: want a number from 1 to 2^63 - 1, got 0"),
        ("steps", -3, "steps: want a number from 1"),
        ("seed", -1, "seed: want a number from 0 to 2^63 - 1, got -1"),
        ("seed", 2**63, "seed: want a number from 0"),
        ("kind", [], "kind: Expected `str`, got `array`"),
        ("preset", "best", "want preset default, inflated, "),
        ("preset", "tiny", "want preset default, inflated, "),
        ("format", 3, "is of format 3, which this version of led_fast cannot read"),
        ("format", "1", "is of format '1', which"),
    ],
)
def test_a_setting_that_is_not_right_is_named_by_its_path(ring, path, value, said):
    content = as_json(ring.to_json())
    put(content, path, value)
    with pytest.raises(InputError) as error:
        TrainConfig.from_json(content, "c.json")
    assert str(error.value).startswith("c.json: ") and said in str(error.value)


def test_what_version_0_1_0_did_not_know_is_named_too(ring):
    content = format_1(ring)
    content["recipe"]["speed"] = 1
    with pytest.raises(InputError, match=r"c.json: .*unknown: recipe.speed"):
        TrainConfig.from_json(content, "c.json")


@pytest.mark.parametrize(
    "content", [{}, {"recipe": 3}, {"shape": 2}, {"recipe": {"betas": 1}}, {"shape": [1, 8, 8]}]
)
def test_a_file_that_is_no_config_is_refused(content):
    with pytest.raises(InputError, match=r"c.json: "):
        TrainConfig.from_json(content, "c.json")


def test_settings_that_are_missing_take_their_defaults(ring):
    content = as_json(ring.to_json())
    for path in ("recipe.selection", "recipe.optimizer.rise", "model.floor", "reading", "precision"):
        drop(content, path)
    assert TrainConfig.from_json(content, "c.json") == ring
    for path in ("seed", "recipe", "model", "data_fingerprint"):
        content = as_json(ring.to_json())
        drop(content, path)
        with pytest.raises(InputError, match=f"c.json: .*missing required field `{path}`"):
            TrainConfig.from_json(content, "c.json")


def test_changes_by_dotted_names(ring):
    changes = {"recipe.batches.data": 3, "recipe.batches.generated": 4, "model.noise.start": 0.0, "seed": 2}
    changed = ring.changed(changes)
    before, after = leaves_of(ring), leaves_of(changed)
    assert {path for path in after if after[path] != before[path]} == set(changes)
    assert all(after[path] == value for path, value in changes.items())
    assert ring.changed({}) == ring
    assert TrainConfig.of(open_source("ring"), seed=7, changes=changes) == changed


@pytest.mark.parametrize(
    "name", ["speed", "recipe.speed", "recipe.noise.start", "model.noise.colour", "seed.a"]
)
def test_a_change_of_what_there_is_not_raises(ring, name):
    with pytest.raises((TypeError, AttributeError)):
        ring.changed({name: 1})


def test_a_preset_of_another_kind_is_refused():
    with pytest.raises(InputError, match=r"--preset: want one of default, .*, got 'tiny'"):
        TrainConfig.of(open_source("ring"), "tiny")
    with pytest.raises(InputError, match=r"want one of tiny, .* for images, got 'paper'"):
        TrainConfig.of(source_of("tiny"), "paper")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"recipe.warm_up": -0.1}, "recipe.warm_up: Expected `float` >= 0.0"),
        ({"recipe.calibration.begin": 1.5}, "recipe.calibration.begin: Expected `float` <= 1.0"),
        ({"recipe.penalty.interval": 0}, "recipe.penalty.interval: Expected `int` >= 1"),
        ({"recipe.batches.data": "many"}, "recipe.batches.data: Expected `int`, got `str`"),
        ({"model.critic.width": 1.5}, "model.critic.width: Expected `int`, got `float`"),
    ],
)
def test_a_change_must_make_sense(ring, change, message):
    with pytest.raises(InputError, match=re.escape(message)):
        ring.changed(change)


def numbers_without_a_range(kind, path=""):
    """Names of numbers, in nested dataclasses, that may be anything."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        for part in (hint, *get_args(hint)):
            if is_dataclass(part):
                yield from numbers_without_a_range(part, f"{path}{name}.")
            elif part in (int, float) and get_origin(hint) is not Annotated:
                yield path + name


@pytest.mark.parametrize(
    "kind",
    [Recipe, points.PointsModel, images.ImagesModel, TableGeneratorConfig, TableCriticConfig, Pool],
)
def test_every_number_says_what_it_may_be(kind):
    assert not list(numbers_without_a_range(kind))


@pytest.mark.parametrize("preset", ["mnist32", "paper_mnist32"])
@pytest.mark.parametrize(("brightest", "last_map"), [(1, "dark"), (256, "sigmoid")])
def test_the_last_map_is_the_one_that_suits_the_data(preset, brightest, last_map):
    images = np.random.default_rng(0).integers(0, brightest, (150, 1, 32, 32), np.uint8)
    source = ImageSource("images", ImageCollection(ImageSet(torch.from_numpy(images))))
    assert TrainConfig.of(source, preset).model.generator.last_map == last_map
