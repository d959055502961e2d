"""Images as training data: idx files, CIFAR-10, arrays, and folders of pictures."""

from led_fast.data.images.collection import ImageCollection, ImageSet
from led_fast.data.images.dequantize import LEVELS, dequantize, quantize
from led_fast.data.images.read import read_images
from led_fast.data.images.source import ImageSource, Split, open_images
from led_fast.data.images.stream import ImageStream

__all__ = [
    "LEVELS",
    "ImageCollection",
    "ImageSet",
    "ImageSource",
    "ImageStream",
    "Split",
    "dequantize",
    "open_images",
    "quantize",
    "read_images",
]
