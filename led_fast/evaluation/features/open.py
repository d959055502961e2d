"""A feature network by name."""

from pathlib import Path

import torch

from led_fast.data.images import ImageSource
from led_fast.errors import InputError
from led_fast.evaluation.features.classifier import train_classifier
from led_fast.evaluation.features.efficientnet_lite import load_efficientnet_lite0
from led_fast.evaluation.features.network import FeatureNetwork
from led_fast.evaluation.features.torchscript import load_torchscript


def open_features(name: str, source: ImageSource, device: torch.device | str = "cpu") -> FeatureNetwork:
    """Opens a feature network.

    Args:
        name: `classifier` (trained on the labels of the data, see `train_classifier`), a `.pth` file with the
            weights of EfficientNet-Lite0, or a `.pt` file with a TorchScript network, such as Inception.
        source: the data.
        device: where to apply it.

    Raises:
        InputError: data without labels for a classifier, or a file that is not what its suffix says.
    """
    if name == "classifier":
        return train_classifier(source, device=device)
    path = Path(name)
    if path.suffix not in (".pth", ".pt"):
        raise InputError(f"features: want classifier, or a .pth or .pt file, got {name!r}")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix == ".pt":
        return FeatureNetwork(f"TorchScript file {path.name}", load_torchscript(path, device))
    network = load_efficientnet_lite0(path).to(device)
    return FeatureNetwork(
        "EfficientNet-Lite0, ImageNet (1280 features)", lambda images: network(images.to(device))
    )
