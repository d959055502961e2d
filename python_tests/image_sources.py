"""Images that need no file."""

import torch

from led_fast.data.images import ImageCollection, ImageSet, ImageSource


def noise_source(count=150, shape=(1, 8, 8)):
    images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8)
    return ImageSource("noise", ImageCollection(ImageSet(images)))
