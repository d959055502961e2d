"""Training runs: from a config to a model on disk, interruptible at any moment."""

from led_fast.training.config import PRESETS, Ops, Recipe, TrainConfig
from led_fast.training.model import load, load_model
from led_fast.training.run import RunDirectory
from led_fast.training.session import Interrupted, steps_in, train
from led_fast.training.trainer import DivergenceError, Trainer
from led_fast.training.world import PeerLostError, World, join_world

__all__ = [
    "PRESETS",
    "DivergenceError",
    "Interrupted",
    "Ops",
    "PeerLostError",
    "Recipe",
    "RunDirectory",
    "TrainConfig",
    "Trainer",
    "World",
    "join_world",
    "load",
    "load_model",
    "steps_in",
    "train",
]
