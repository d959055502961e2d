"""led-fast reproduce table2 on 8x8 blobs, in a few steps."""

import json
import math
import signal
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from coarse import coarsen
from image_files import write_pictures

from led_fast.cli import main
from led_fast.data.images import ImageCollection, ImageSet, ImageSource, open_images
from led_fast.evaluation import FeatureNetwork
from led_fast.reproduce import glow_cell, selection, table2
from led_fast.reproduce.glow import GlowConfig
from led_fast.training import Interrupted, RunDirectory, TrainConfig, Trainer, load_model


@pytest.fixture
def data(tmp_path):
    torch.manual_seed(0)
    images = torch.nn.functional.interpolate(240 * torch.rand(400, 1, 2, 2), size=8, mode="bilinear")
    np.savez(tmp_path / "blobs.npz", images=images.to(torch.uint8).numpy(), labels=np.arange(400) % 2)
    return tmp_path / "blobs.npz"


@pytest.fixture
def few(monkeypatch):
    """Few images; features that need no training."""
    coarsen(monkeypatch.setattr)
    monkeypatch.setattr(table2, "_QUICK_SIZES", {"samples": 40, "temperatures": 3, "chains": 40})
    monkeypatch.setattr(selection, "_SELECTED_BY", 50)
    network = FeatureNetwork(
        "quadrants", lambda x: x.float().unfold(2, 4, 4).unfold(3, 4, 4).mean((-1, -2)).flatten(1)
    )
    for module in (table2, glow_cell):
        monkeypatch.setattr(module, "open_features", lambda *_: network)


def test_quick_run_of_every_method_but_glow(data, tmp_path, few, monkeypatch):
    monkeypatch.setattr(table2.glow, "available", lambda: False)
    out = tmp_path / "out"
    command = ["reproduce", "table2", "--data", str(data), "--quick", "--jobs", "1", "--out", str(out)]
    assert main(command) == 0
    text = (out / "table2.md").read_text()
    ours = [line for line in text.split("| the paper")[0].splitlines() if line.startswith("|")]
    assert len(ours) == 7 and {line.count("|") for line in ours} == {len(table2._HEADER) + 1}
    for row in (
        "DC-GAN of the same networks",
        "the generator alone, by maximum likelihood",
        "**LED-1**",
        "**LED-64**",
        "**LED-256**",
    ):
        assert f"| {row}" in text
    assert 'Glow was not run: `pip install "led_fast[flow]"` adds its row.' in text
    assert "| Glow, by maximum likelihood" not in text
    assert "features of quadrants, 40 images" in text and "| LED-64 | 4.3 | 0.546 | 0.992 | 8.75 |" in text
    assert matplotlib.image.imread(out / "table2.png")[..., :3].std() > 0.05
    cells = json.loads((out / "table2.json").read_text())["cells"]
    result = cells["led-64-0"]["result"]
    assert result["validation"].keys() == {"8"} and result["selected_step"] == 8
    for name in ("gan-0", "likelihood-0"):
        distances = cells[name]["result"]["validation"]
        assert distances.keys() == {"6", "7", "8"}
        assert cells[name]["result"]["selected_step"] == int(min(distances, key=distances.__getitem__))
    assert result["bits_per_dim_generator"] is not None and "bits_per_dim" not in cells["gan-0"]["result"]
    (row,) = (line for line in ours if "**LED-64**" in line)
    assert f"{result['gain']:.5f} ± {table2._number(result['gain_standard_error'], 5)}" in row
    assert f"{result['quality']['distance']:.2f} / {result['quality_refined']['distance']:.2f}" in row
    monkeypatch.setattr(Trainer, "step", lambda _: pytest.fail("a training step was taken"))
    assert main(command) == 0  # nothing is done twice


def test_a_selected_model_is_the_one_of_its_step(data, tmp_path, few, monkeypatch):
    distances, judged = iter([3.0, 1.0, 2.0, 4.0]), []
    seeds = []
    draw = selection.evaluate_image_samples
    monkeypatch.setattr(
        selection, "evaluate_image_samples", lambda *a, **b: seeds.append(a[2]) or draw(*a, **b)
    )
    monkeypatch.setattr(
        selection,
        "SampleJudge",
        lambda *_, split: lambda images: {"distance": next(distances), split: images},
    )
    evaluate = table2.evaluate_image_flow
    monkeypatch.setattr(table2, "evaluate_image_flow", lambda *a: judged.append(a[0]) or evaluate(*a))
    source = table2.open_images(data)
    (config,) = [
        cell.settings["config"]
        for cell in table2.cells(1, True, source=source, presets=["tiny"], budget=1)
        if cell.name == "likelihood-0"
    ]
    (tmp_path / "cell").mkdir()
    config["steps"] = 10
    result = table2.train_images(tmp_path / "cell", config, samples=40, temperatures=2, chains=40)
    assert result["validation"] == {"7": 3.0, "8": 1.0, "9": 2.0, "10": 4.0} and result["selected_step"] == 8
    (density,) = judged
    assert len(seeds) == 4 and config["seed"] not in seeds  # what selects does not judge
    at_8, at_10 = (
        load_model(RunDirectory(path)).model.generator
        for path in (tmp_path / "cell" / "8", tmp_path / "cell")
    )
    x = source.held_out(40)
    assert torch.equal(density.log_prob(x), at_8.log_prob(x))
    assert not torch.equal(density.log_prob(x), at_10.log_prob(x))
    bits = -at_8.log_prob(source.split("test") / 256 + 1 / 512).mean().item() / (64 * math.log(2)) + 8
    assert result["bits_per_dim_generator"] == pytest.approx(bits, abs=0.3)  # by noise of its own
    assert result["bits_per_pixel"]["test"] == pytest.approx(result["bits_per_dim_generator"] - 7)
    assert 0 < result["training_seconds"] < 600


def test_both_families_have_rows_where_there_is_a_preset_of_each(tmp_path):
    np.savez(tmp_path / "d.npz", images=np.zeros((300, 1, 32, 32), np.uint8), labels=np.arange(300) % 3)
    source = table2.open_images(str(tmp_path / "d.npz"))
    cells = table2.table2(str(tmp_path / "d.npz"), 1).cells(1, True)
    configs = {cell.name: cell.settings["config"] for cell in cells if "preset" in cell.settings["config"]}
    for s in (1, 64, 256):
        for family, preset in (("led", "mnist32"), ("paper", "paper_mnist32")):
            config = configs[f"{family}-{s}-0"]
            assert config["preset"] == preset and config["recipe"]["batches"]["integral_samples"] == s
    assert not any(cell.name.startswith("paper") for cell in table2.cells(1, True, source, ["mnist32"], 1))


def test_a_gain_that_is_a_bound_is_left_out_and_one_of_doubt_is_marked():
    result = {"gain": 0.5, "gain_standard_error": 0.1, "generator_density": "surrogate"}
    assert table2._gain(result, " (unreliable)") == "—"
    assert (
        table2._gain(result | {"generator_density": "exact"}, " (unreliable)")
        == "0.50000 ± 0.10000 (unreliable)"
    )
    unknown = {"generator_density": "exact", "gain_standard_error": None}
    assert table2._gain(result | unknown, " (unreliable)") == "0.50000 ± — (unreliable)"


def test_where_the_data_have_a_last_map_of_their_own_a_row_is_without_it(data, monkeypatch):
    monkeypatch.setattr(table2.glow, "available", lambda: False)
    ink = (200 * (torch.rand(400, 1, 8, 8) < 0.2)).to(torch.uint8)
    for source, dark in (
        (ImageSource("ink", ImageCollection(ImageSet(ink))), True),
        (table2.open_images(data), False),
    ):
        made = {cell.name: cell for cell in table2.cells(1, True, source, ["tiny"], 1.0)}
        maps = {
            name: cell.settings["config"]["model"]["generator"]["last_map"] for name, cell in made.items()
        }
        assert maps.pop("sigmoid-0", None) == ("sigmoid" if dark else None)
        assert set(maps.values()) == {"dark" if dark else "sigmoid"}


def test_quick_run_of_glow(data, tmp_path, few, monkeypatch):
    pytest.importorskip("normflows")
    monkeypatch.setattr(table2, "_METHODS", {"glow": table2._METHODS["glow"]})
    out = tmp_path / "out"
    command = ["reproduce", "table2", "--data", str(data), "--quick", "--jobs", "1", "--out", str(out)]
    assert main(command) == 0
    cell = json.loads((out / "table2.json").read_text())["cells"]["glow-0"]
    assert cell["settings"]["config"]["shape"] == [1, 8, 8]
    assert cell["result"]["validation"].keys() == {"6", "7", "8"}
    exact, pixel = cell["result"]["bits_per_dim_generator"], cell["result"]["bits_per_pixel"]
    assert pixel["test"] == pytest.approx(exact - 7)
    (row,) = [
        line for line in (out / "table2.md").read_text().splitlines() if line.startswith("| Glow, by max")
    ]
    assert f"| {exact - 7:.3f} | {pixel['samples_generator']:.3f} / — | — / {exact:.3f} | — |" in row
    text = (out / "table2.md").read_text()
    assert "Glow was not run" not in text and "the last map `sigmoid`, has 3 levels of 4 steps" in text
    assert matplotlib.image.imread(out / "table2.png")[..., :3].std() > 0.05


def test_glow_is_said_to_have_the_last_map_of_its_cell():
    results = Path(__file__).parents[1] / "docs" / "results" / "mnist" / "table2.json"
    text = table2.markdown(json.loads(results.read_text()))
    assert "the last map `dark`, has 3 levels of 4 steps" in text and "logits" not in text


def train_glow(folder, data, **changes):
    folder.mkdir(exist_ok=True)
    settings = {
        "seed": 0,
        "steps": 60,
        "minutes": None,
        "shape": (1, 8, 8),
        "depth": 2,
        "width": 8,
        **changes,
    }
    config = GlowConfig(str(data), "", **settings)
    return glow_cell.train_glow(folder, config.to_json(), samples=40)


def test_glow_learns(data, tmp_path, few):
    pytest.importorskip("normflows")
    first, last = (
        train_glow(tmp_path / str(steps), data, steps=steps)["bits_per_dim_generator"] for steps in (1, 60)
    )
    assert last < first - 0.5


def test_glow_goes_on_where_it_was_stopped(data, tmp_path, few, monkeypatch):
    pytest.importorskip("normflows")
    whole = train_glow(tmp_path / "whole", data, steps=10)
    step = glow_cell._Trainer.step

    def interrupted(trainer):
        step(trainer)
        if trainer.steps_done == 8:  # one model is kept by then
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(glow_cell._Trainer, "step", interrupted)
    with pytest.raises(Interrupted):
        train_glow(tmp_path / "stopped", data, steps=10)
    stopped = train_glow(tmp_path / "stopped", data, steps=10)
    assert stopped | {"training_seconds": 0} == whole | {"training_seconds": 0}
    monkeypatch.setattr(glow_cell._Trainer, "step", lambda _: pytest.fail("a training step was taken"))
    assert train_glow(tmp_path / "stopped", data, steps=10) == stopped


def test_glows_steps_are_counted_once(data, tmp_path, few, monkeypatch):
    pytest.importorskip("normflows")
    seconds = iter([24.0])
    monkeypatch.setattr(glow_cell, "seconds_a_step", lambda _: next(seconds))
    for _ in range(2):
        assert train_glow(tmp_path / "run", data, minutes=2)["steps"] == 5


def test_glow_that_diverges_says_so(data, tmp_path, few):
    pytest.importorskip("normflows")
    assert "the flow's loss is" in train_glow(tmp_path / "run", data, learning_rate=1e6)["diverged"]


@pytest.mark.parametrize(
    "options, message",
    [
        (["table2"], "--data: want DIR for table2, got none"),
        (["table1", "--data", "{data}"], "is for table2, tables and penalty"),
        (["table2", "--data", "{data}", "--budget", "0"], "--budget: want a positive number"),
        (["table2", "--data", "{unlabelled}"], "has no labels"),
        (["table2", "--data", "{odd}"], "no preset is for images of shape (1, 9, 9)"),
    ],
)
def test_refused(data, tmp_path, capsys, options, message):
    np.save(tmp_path / "unlabelled.npy", np.zeros((200, 8, 8), np.uint8))
    np.savez(tmp_path / "odd.npz", images=np.zeros((200, 9, 9), np.uint8), labels=np.zeros(200, int))
    places = {"data": data, "unlabelled": tmp_path / "unlabelled.npy", "odd": tmp_path / "odd.npz"}
    assert (
        main(["reproduce", *[option.format(**places) for option in options], "--out", str(tmp_path / "o")])
        == 2
    )
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("side", "preset"), [(32, "color32"), (64, "color64")])
def test_takes_folders_of_pictures_of_every_size_that_a_preset_is_for(tmp_path, side, preset):
    for name in "ab":
        (tmp_path / name).mkdir()
        write_pictures(tmp_path / name, 60, (side, side))
    experiment = table2.table2(str(tmp_path), budget=1.0)
    configs = [cell.settings["config"] for cell in experiment.cells(1, True)]
    assert {config["preset"] for config in configs if "preset" in config} == {preset, f"paper_{preset}"}


def test_of_a_run_that_calibrates_only_the_last_model_may_be_selected(data):
    source = open_images(data)
    config = TrainConfig.of(source, "tiny", steps=100)
    assert table2._moments(config) == []
    for name, value in (("warm_up", 1.0), ("objective", "gan"), ("calibration.begin", 1.0)):
        assert table2._moments(config.changed({f"recipe.{name}": value})) == [70, 80, 90]
    assert selection.moments(1) == [] and selection.moments(3) == [2]
