"""A cell that trains Glow on images by maximum likelihood and judges it as the rows of Table 2 are judged."""

import copy
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Adam

from led_fast.data.images import ImageSource, open_images
from led_fast.evaluation import ImageEvaluation, evaluate_image_flow, open_features
from led_fast.gpu import gpu_or_cpu
from led_fast.random_state import isolated, random_state, set_random_state, set_seed
from led_fast.reproduce.glow import Glow, GlowConfig
from led_fast.reproduce.selection import evaluate_selected, moments
from led_fast.training import DivergenceError, Interrupted
from led_fast.training.checkpoint import load_state, save_state
from led_fast.training.descent import RunningAverages, check_finite, set_learning_rate
from led_fast.training.interrupt import StopSignal
from led_fast.training.pace import seconds_a_step
from led_fast.training.schedule import cosine_decay
from led_fast.training.session import CHECKPOINT_EVERY

_STARTED_BY = 256  # images, which the activation norms standardise
_CHECKPOINT, _MODEL = "Glow's checkpoint", "Glow"  # kinds of files


def train_glow(folder: Path, config: dict[str, Any], samples: int) -> dict[str, Any]:
    """Trains Glow, or goes on with it; evaluates the model that its validation images select.

    Args:
        folder: of the run; gets `samples.npy`.
        config: of `GlowConfig`; its steps are counted anew where it names minutes.
        samples: number of generated images, and the most held-out ones.

    Returns:
        What `evaluate_selected` does: `quality` of the samples; the exact density of test images, as
        `bits_per_dim_generator` and, with that of the samples, as `bits_per_pixel`. Where training diverged:
        `diverged`, why.
    """
    settings = GlowConfig(**config)
    source = open_images(settings.data, size=settings.shape[-1])
    features = open_features("classifier", source, gpu_or_cpu())
    try:
        with isolated(gpu_or_cpu()):
            models, seconds = _train(folder, settings, source)
    except DivergenceError as error:
        return {"diverged": error.what}

    def evaluate(glow: Glow) -> ImageEvaluation:
        return evaluate_image_flow(glow, source, settings.seed, features, samples)

    return evaluate_selected(folder, models, source, features, settings.seed, seconds, evaluate)


def _train(folder: Path, config: GlowConfig, source: ImageSource) -> tuple[dict[int, Glow], float]:
    """Begins a run, or goes on with it where it is not finished.

    Returns:
        Its averaged models by their steps, and how many seconds it took.
    """
    checkpoint, seconds = folder / "checkpoint.safetensors", 0.0
    if checkpoint.exists():
        state = load_state(checkpoint, _CHECKPOINT)
        trainer = _Trainer(replace(config, steps=state["steps"]), source)
        trainer.load_state_dict(state["trainer"])
        seconds = state["seconds"]
    else:
        trainer = _Trainer(replace(config, steps=_count_steps(config, source)), source)
    steps = trainer.config.steps
    kept = {step: folder / f"glow-{step}.safetensors" for step in [*moments(steps), steps]}
    began = time.monotonic() - seconds
    with StopSignal() as stop:
        while trainer.steps_done < steps:
            trainer.step()
            if trainer.steps_done in kept:
                save_state(kept[trainer.steps_done], _MODEL, trainer.average.state_dict())
            last = trainer.steps_done == steps or stop.received
            if last or trainer.steps_done % CHECKPOINT_EVERY == 0:
                seconds = time.monotonic() - began
                state = {"steps": steps, "seconds": seconds, "trainer": trainer.state_dict()}
                save_state(checkpoint, _CHECKPOINT, state)
            if stop.received:
                raise Interrupted(stop.received, trainer.steps_done)
    return {step: _load(path, config) for step, path in kept.items()}, seconds


def _count_steps(config: GlowConfig, source: ImageSource) -> int:
    if config.minutes is None:
        return config.steps
    return max(1, round(60 * config.minutes / seconds_a_step(_Trainer(config, source).step)))


def _load(path: Path, config: GlowConfig) -> Glow:
    glow = Glow(config)
    glow.load_state_dict(load_state(path, _MODEL))
    return glow.to(gpu_or_cpu())


class _Trainer:
    """Maximum likelihood, and all that its next step depends on; seeds torch's global random numbers."""

    def __init__(self, config: GlowConfig, source: ImageSource) -> None:
        self.config, self.source, self.device = config, source, gpu_or_cpu()
        set_seed(config.seed, self.device)
        self.glow = Glow(config).to(self.device)
        with torch.no_grad():
            self.glow.log_prob(source.sample(_STARTED_BY, self.device))
        self.average = copy.deepcopy(self.glow)
        self._averages = RunningAverages((self.average, self.glow))
        # Not the fused one, which takes a state read from a file for one with the strides of its weights.
        self.optimizer = Adam(self.glow.parameters(), foreach=True)
        self.steps_done = 0

    def step(self) -> None:
        """One step of Adam; DivergenceError where the loss or its gradient is not finite."""
        config, at = self.config, self.steps_done / self.config.steps
        decay = cosine_decay(at, config.decay_from, config.decay_to)
        set_learning_rate(self.optimizer, config.learning_rate * decay)
        self.optimizer.zero_grad()
        loss = -self.glow.log_prob(self.source.sample(config.batch_size, self.device)).mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.glow.parameters(), config.gradient_clip)
        check_finite([("flow", loss.item(), norm.item())])
        self.optimizer.step()
        self._averages.follow(self.steps_done, config.ema)
        self.steps_done += 1

    def state_dict(self) -> dict[str, Any]:
        modules = {name: getattr(self, name).state_dict() for name in ("glow", "average", "optimizer")}
        return {"steps_done": self.steps_done, "random": random_state(self.device), **modules}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps_done = state["steps_done"]
        for name in ("glow", "average", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        set_random_state(state["random"], self.device)
