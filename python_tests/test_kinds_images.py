"""Images as a kind of data: which networks suit a folder of pictures."""

import numpy as np
import pytest
from PIL import Image

from led_fast.errors import InputError
from led_fast.kinds import images
from led_fast.training import Reading


def pictures(folder, *groups):
    """Noise of some numbers, sizes and modes as .png files in a folder."""
    rng = np.random.default_rng(0)
    for group, (count, width, height, mode) in enumerate(groups):
        for i in range(count):
            shape = (height, width, 3) if mode == "RGB" else (height, width)
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode).save(
                folder / f"{group}-{i}.png"
            )
    return folder


@pytest.mark.parametrize(
    "groups, preset, skipped",
    [
        ([(140, 70, 64, "RGB")], "color64", 0),
        ([(140, 48, 40, "RGB")], "color32", 0),
        ([(140, 70, 64, "L")], "mnist32", 0),
        ([(150, 64, 64, "RGB"), (20, 40, 40, "RGB")], "color64", 20),
        ([(135, 64, 64, "RGB"), (150, 40, 40, "RGB")], "color32", 0),
    ],
)
def test_without_a_preset_pictures_are_as_large_as_most_of_them(tmp_path, groups, preset, skipped):
    source = images.KIND.open(str(pictures(tmp_path, *groups)), None, Reading())
    assert images.KIND.configure(source, None)[0] == preset
    assert len(source.problems) == skipped


def test_where_all_pictures_must_be_used_the_size_stays_and_small_ones_are_refused(tmp_path):
    folder = pictures(tmp_path, (150, 64, 64, "RGB"), (2, 40, 40, "RGB"))
    with pytest.raises(InputError, match="want at least 64x64 pixels"):
        images.KIND.open(str(folder), None, Reading(strict=True))
    assert images.KIND.open(str(folder), "color32", Reading(strict=True)).shape == (3, 32, 32)


def test_pictures_that_suit_no_preset_are_refused_by_the_smallest_size(tmp_path):
    with pytest.raises(InputError, match=r"140 of 140 pictures are of no use: .*want at least 32x32 pixels"):
        images.KIND.open(str(pictures(tmp_path, (140, 20, 20, "RGB"))), None, Reading())
