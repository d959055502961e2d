"""A small classifier, trained on the data's own labels: features where no pretrained network fits."""

import contextlib
import hashlib
import os
from itertools import pairwise
from pathlib import Path

import torch
from rich.progress import track
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from led_fast.data.images import ImageSource
from led_fast.errors import InputError
from led_fast.evaluation.features.network import FeatureNetwork
from led_fast.random_state import seeded
from led_fast.terminal import console

_WIDTH = 128  # features
_WIDTHS, _STRIDES = (32, 64, _WIDTH, _WIDTH), (2, 2, 1, 2)
_STEPS, _BATCH, _LEARNING_RATE = 800, 128, 2e-3
_SEED = 0


class _Classifier(nn.Module):
    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
                for (i, o), stride in zip(pairwise((channels, *_WIDTHS)), _STRIDES, strict=True)
            )
        )
        self.head = nn.Linear(_WIDTH, classes)

    def features(self, images: Tensor) -> Tensor:
        return self.body(images.to(self.head.weight) / 255 - 0.5).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def train_classifier(
    source: ImageSource, cache: Path | None = None, device: torch.device | str = "cpu", steps: int = _STEPS
) -> FeatureNetwork:
    """A classifier of the source's labels, trained once (about a minute of a CPU) and then read from a cache.

    Four 3x3 convolutions with batch norm, 128 features averaged over the picture, and a linear head. The
    weights depend on the data and a fixed seed alone, so distances of several models of the same data can be
    compared; they cannot be compared with distances by any other network.

    Args:
        source: its training images and labels are learned, its test images measure the accuracy.
        cache: folder to keep the trained network in; None: `$XDG_CACHE_HOME/led_fast` or `~/.cache/led_fast`.
        device: where to train and to apply it.
        steps: number of training steps.

    Raises:
        InputError: the data has no labels, or only one class.
    """
    labels = source.labels
    if labels is None:
        raise InputError(f"{source.name}: has no labels to train a classifier on: name a file with features")
    classes = int(labels.max()) + 1
    if classes < 2 or int(labels.min()) < 0:
        raise InputError(f"{source.name}: want labels 0, 1, ..., got {labels.unique().tolist()}")
    folder = cache or _user_cache()
    path = None if folder is None else folder / f"classifier-{_key(source, labels, steps)}.safetensors"
    with seeded(_SEED, device):
        network = _Classifier(source.shape[0], classes).to(device)
        if path is None or not _load(network, path):
            _train(network, source.split("train"), labels, steps)
            if path is not None:
                _save(network, path)
    network.eval()
    accuracy = _accuracy(network, source)
    place = Path(source.name).name
    return FeatureNetwork(
        name=f"classifier of {place} ({_WIDTH} features)",
        network=lambda images: network.features(images.to(device)),
        accuracy=accuracy,
    )


def _train(network: _Classifier, images: Tensor, labels: Tensor, steps: int) -> None:
    device = network.head.weight.device
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps)
    about = "training a classifier for features"
    for _ in track(range(steps), about, console=console(stderr=True), transient=True):
        index = torch.randint(len(images), (_BATCH,), device="cpu")
        loss = F.cross_entropy(network(images[index].to(device)), labels[index].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _load(network: _Classifier, path: Path) -> bool:
    """Whether it was there, and whole."""
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError):
        return False
    return True


def _save(network: _Classifier, path: Path) -> None:
    """Where it cannot be written it costs a minute the next time."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")  # another run may be writing the same network
    with contextlib.suppress(OSError, SafetensorError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_file(network.state_dict(), temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@torch.no_grad()
def _accuracy(network: _Classifier, source: ImageSource) -> float | None:
    labels = source.split_labels("test")
    if labels is None:
        return None
    guesses = [
        network(batch.to(network.head.weight.device)).argmax(1).cpu()
        for batch in source.split("test").split(500)
    ]
    return (torch.cat(guesses) == labels).double().mean().item()


def _key(source: ImageSource, labels: Tensor, steps: int) -> str:
    recipe = (_WIDTHS, _STRIDES, _BATCH, _LEARNING_RATE, _SEED, steps)
    content = f"{source.fingerprint} {recipe}".encode() + labels.numpy().tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def _user_cache() -> Path | None:
    """None where there is no home."""
    if root := os.environ.get("XDG_CACHE_HOME"):
        return Path(root) / "led_fast"
    home = os.path.expanduser("~")
    return None if home == "~" else Path(home) / ".cache" / "led_fast"
