"""Images, gray or in colour, of a few sizes."""

from led_fast.kinds.images.kind import KIND
from led_fast.kinds.images.settings import GAN, PRESETS, ImagesModel
from led_fast.kinds.images.task import ImagesTask

__all__ = ["GAN", "KIND", "PRESETS", "ImagesModel", "ImagesTask"]
