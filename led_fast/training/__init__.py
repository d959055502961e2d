"""Training runs: from a config to a model on disk, interruptible at any moment. It knows no kind of data."""

from led_fast.training.compiled import Compile, why_not_compile
from led_fast.training.config import CudaGraph, Ops, Reading, TrainConfig
from led_fast.training.descent import DivergenceError
from led_fast.training.model import TrainedModel, load, load_model, read_model, write_model
from led_fast.training.pace import Pace, measure_pace, steps_in
from led_fast.training.precision import Precision, automatic_precision, check_precision, name_device
from led_fast.training.run import RunDirectory
from led_fast.training.session import Interrupted, fit, train
from led_fast.training.settings import ObjectiveName, Recipe
from led_fast.training.task import Source, Task
from led_fast.training.trainer import Trainer
from led_fast.training.world import PeerLostError, World, join_world

__all__ = [
    "Compile",
    "CudaGraph",
    "DivergenceError",
    "Interrupted",
    "ObjectiveName",
    "Ops",
    "Pace",
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
    "measure_pace",
    "name_device",
    "read_model",
    "steps_in",
    "train",
    "why_not_compile",
    "write_model",
]
