"""Makes the runs of this folder, by version 0.1.0 of led_fast: see README.md.

python make.py, where `import led_fast` is version 0.1.0, in a folder without files of it.
"""

import json
import os
import shutil
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from safetensors.torch import save_file

import led_fast
from led_fast.data import open_source
from led_fast.data.images import open_images
from led_fast.flows import flow_log_prob
from led_fast.training import IMAGE_GAN, Interrupted, RunDirectory, TrainConfig, load_model, train
from led_fast.training.run import write_json

assert led_fast.__version__ == "0.1.0"
HERE = Path(__file__).parent
CONSOLE = Console(quiet=True)
STEPS, STOPPED_AFTER = 40, 30
EXPECTED: dict[str, dict[str, object]] = {}


def write_data() -> None:
    random = np.random.default_rng(0)
    angle = random.uniform(0, np.pi, 120)
    moon = np.stack([20 + 3 * np.cos(angle), 0.5 * np.sin(angle)], 1) + random.normal(0, 0.1, (120, 2))
    np.savetxt("points.csv", moon, fmt="%.4f", delimiter=",", header="x,y", comments="")
    row, column = np.mgrid[:8, :8]
    centre = random.uniform(2, 5, (110, 2, 1, 1))
    spot = 255 * np.exp(-((row - centre[:, 0]) ** 2 + (column - centre[:, 1]) ** 2) / 4)
    np.savez_compressed("images.npz", images=spot.astype(np.uint8))


def points(place: str, objective: str = "led") -> TrainConfig:
    config = TrainConfig.from_preset(place, open_source(place).fingerprint, steps=STEPS)
    return replace(
        config,
        generator=replace(config.generator, components=4, steps=3),
        critic=replace(config.critic, width=8, depth=2, directions=4, highest=8.0),
        recipe=replace(config.recipe, objective=objective, batch_size=64, integral_samples=64),
    )


def images(objective: str = "led") -> TrainConfig:
    config = TrainConfig.from_preset(
        "images.npz", open_images("images.npz", size=8).fingerprint, "tiny", steps=STEPS
    )
    return replace(
        config,
        generator=replace(config.generator, coupling_width=2, local_width=2, steps=2),
        critic=replace(config.critic, width=2),
        recipe=replace(config.recipe, batch_size=16, **(IMAGE_GAN if objective == "gan" else {})),
    )


def source_of(config: TrainConfig):
    return open_images(config.data, size=8) if config.is_image else open_source(config.data)


def finish(name: str, config: TrainConfig) -> None:
    """A finished run, without its checkpoint, and what its model says."""
    run = RunDirectory.create(HERE / name)
    write_json(run.config, {"version": led_fast.__version__, **config.to_json()})
    train(run, config, source_of(config), CONSOLE)
    run.checkpoint.unlink()
    tidy(run)
    EXPECTED[name] = says(run, config)


def tidy(run: RunDirectory) -> None:
    """Removes what no command reads, and pictures."""
    shutil.rmtree(run.path / "tensorboard")
    for picture in run.path.glob("*.png"):
        picture.unlink()


def says(run: RunDirectory, config: TrainConfig) -> dict[str, object]:
    model = load_model(run).model
    if config.is_image:
        x = (torch.from_numpy(np.load("images.npz")["images"][:6]).float()[:, None] + 0.5) / 256
    else:
        x = source_of(config).shift + source_of(config).scale * torch.randn(6, 2).double()
    with torch.no_grad():
        said = {"x": None if config.is_image else x.tolist(), "critic": model.critic(x).tolist()}
        if config.recipe.objective == "led":
            said["log_prob"] = model.log_prob(x).tolist()
        said["generator_log_prob"] = flow_log_prob(model.generator.double(), x.double()).tolist()
    return said


def stop(name: str, config: TrainConfig) -> None:
    """A run that was stopped, and beside it the weights at which it ends."""
    run = RunDirectory.create(HERE / name)
    write_json(run.config, {"version": led_fast.__version__, **config.to_json()})

    def interrupt(trainer) -> None:
        if trainer.steps_done == STOPPED_AFTER:
            os.kill(os.getpid(), signal.SIGINT)

    with suppress(Interrupted):
        train(run, config, source_of(config), CONSOLE, interrupt)
    tidy(run)
    resumed = RunDirectory(Path(shutil.copytree(run.path, HERE / "resumed")))
    train(resumed, config, source_of(config), CONSOLE)
    weights = load_model(resumed).model.state_dict()
    save_file({key: value.contiguous() for key, value in weights.items()}, HERE / f"{name}.end.safetensors")
    shutil.rmtree(resumed.path)


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    os.chdir(HERE)
    write_data()
    finish("ring", points("ring"))
    finish("points", points("points.csv"))
    finish("ring_gan", points("ring", "gan"))
    stop("points_stopped", points("points.csv"))
    finish("images", images())
    finish("images_gan", images("gan"))
    stop("images_stopped", images())
    Path("expected.json").write_text(json.dumps(EXPECTED, indent=1) + "\n")
