"""Random images, and folders of them as pictures."""

import numpy as np
from PIL import Image


def random_images(n, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def write_pictures(folder, count, size=(16, 16), suffix=".png", color=True, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    arrays = random_images(count, size[1], size[0], *([3] if color else []), seed=seed)
    for i, array in enumerate(arrays):
        Image.fromarray(array).save(folder / f"{i:03}{suffix}")
    return arrays
