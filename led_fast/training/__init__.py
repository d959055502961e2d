"""Training runs: from a config to a model on disk, interruptible at any moment. It knows no kind of data."""

from led_fast.training.config import CudaGraph, Ops, Reading, TrainConfig
from led_fast.training.descent import DivergenceError
from led_fast.training.model import TrainedModel, load, load_model, read_model, write_model
from led_fast.training.precision import Precision, automatic_precision, check_precision, name_device
from led_fast.training.run import RunDirectory
from led_fast.training.session import Interrupted, fit, steps_in, train
from led_fast.training.settings import ObjectiveName, Recipe
from led_fast.training.task import Source, Task
from led_fast.training.trainer import Trainer
from led_fast.training.world import PeerLostError, World, join_world

__all__ = [
    "CudaGraph",
    "DivergenceError",
    "Interrupted",
    "ObjectiveName",
    "Ops",
    "PeerLostError",
    "Precision",
    "Reading",
    "Recipe",
    "RunDirectory",
    "Source",
    "Task",
    "TrainConfig",
    "TrainedModel",
    "Trainer",
    "World",
    "automatic_precision",
    "check_precision",
    "fit",
    "join_world",
    "load",
    "load_model",
    "name_device",
    "read_model",
    "steps_in",
    "train",
    "write_model",
]
