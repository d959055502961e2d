"""What every reader of images returns."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ImageSet:
    """Images that belong together.

    Attributes:
        images: (N, C, H, W) uint8, C is 1 or 3.
        labels: class of each image, (N,) int64, or None.
        names: the file of each image, or None where one file holds many.
    """

    images: Tensor
    labels: Tensor | None = None
    names: list[str] | None = None


@dataclass(frozen=True)
class ImageCollection:
    """Images from one place.

    Attributes:
        train: all images, less those of `test`.
        test: the data's own test images, None where it has none.
        skipped: one message a picture that could not be used; each names its file.
        notes: what else was passed over, and what was done to the pictures, one sentence each.
    """

    train: ImageSet
    test: ImageSet | None = None
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
