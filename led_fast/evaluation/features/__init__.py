"""Networks that turn images into features, for Fréchet distances; every one has a name."""

from led_fast.evaluation.features.classifier import train_classifier
from led_fast.evaluation.features.network import FeatureNetwork, extract_features
from led_fast.evaluation.features.open import open_features

__all__ = ["FeatureNetwork", "extract_features", "open_features", "train_classifier"]
