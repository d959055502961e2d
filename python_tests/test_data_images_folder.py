"""Folders of pictures as image data."""

from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import random_images, write_pictures
from PIL import Image

from led_fast.data.images import open_images, read_images
from led_fast.errors import InputError


def test_folder_keeps_pictures_of_the_right_size(tmp_path):
    arrays = write_pictures(tmp_path / "deep" / "er", 5)
    read = read_images(tmp_path, size=16)
    assert torch.equal(read.train.images, torch.from_numpy(arrays).permute(0, 3, 1, 2))
    assert [Path(name).name for name in read.train.names] == [f"{i:03}.png" for i in range(5)]
    assert read.train.labels.tolist() == [0] * 5


def test_folder_crops_the_centre_then_resizes(tmp_path):
    # The central 32x32 is grey, and so are the 8 columns on either side that the filter may look at.
    array = np.full((32, 64), 255, np.uint8)
    array[:, 8:56] = 77
    Image.fromarray(array).save(tmp_path / "a.png")
    images = read_images(tmp_path, size=16).train.images
    assert images.shape == (1, 1, 16, 16) and images.unique().tolist() == [77]


def test_folder_turns_pictures_upright(tmp_path):
    array = random_images(1, 16, 16, 3)[0]
    picture = Image.fromarray(np.rot90(array).copy())
    exif = picture.getexif()
    exif[0x0112] = 6  # turn by 90 degrees to the right
    picture.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_images(tmp_path, size=16).train.images[0].permute(1, 2, 0), array)


def test_folder_mixes_grey_and_colour(tmp_path):
    color = write_pictures(tmp_path / "c", 2)
    gray = write_pictures(tmp_path / "g", 2, color=False)
    images = read_images(tmp_path, size=16).train.images
    assert torch.equal(images[:2], torch.from_numpy(color).permute(0, 3, 1, 2))
    assert torch.equal(images[2:], torch.from_numpy(gray)[:, None].expand(-1, 3, -1, -1))


def test_folder_splits_and_classes(tmp_path):
    for i, place in enumerate(["train/dog", "train/cat", "test/dog", "test/ant"]):
        write_pictures(tmp_path / place, 2 + i, seed=i)
    read = read_images(tmp_path, size=16)
    assert read.train.labels.tolist() == [1] * 3 + [2] * 2  # ant, cat, dog
    assert read.test.labels.tolist() == [0] * 5 + [2] * 4
    write_pictures(tmp_path / "train", 1)
    assert read_images(tmp_path, size=16).train.labels is None


def test_folder_skips_what_it_cannot_use(tmp_path):
    write_pictures(tmp_path, 3)
    truncated = (tmp_path / "000.png").read_bytes()
    (tmp_path / "broken.png").write_bytes(truncated[: len(truncated) // 2])
    (tmp_path / "text.jpg").write_text("no picture at all")
    Image.new("RGB", (40, 15)).save(tmp_path / "flat.png")
    Image.fromarray(np.zeros((16, 16), np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "notes.txt").write_text("not meant as a picture")
    read = read_images(tmp_path, size=16)
    assert len(read.train.images) == 3
    broken, deep, flat, text = read.skipped
    assert "broken.png: not a readable picture" in broken and "text.jpg: not a readable picture" in text
    assert "flat.png: want at least 16x16 pixels, got 40x15" in flat
    assert "deep.png: want 8 bits a channel" in deep
    with pytest.raises(InputError, match=r"4 of 7 pictures .*broken\.png.* \(and 1 more\)"):
        read_images(tmp_path, size=16, strict=True)
    with pytest.raises(InputError, match="7 of 7 pictures are of no use"):
        read_images(tmp_path, size=64)


def test_source_counts_what_was_skipped(tmp_path):
    write_pictures(tmp_path, 100)
    (tmp_path / "broken.png").write_bytes(b"")
    source = open_images(tmp_path, size=16)
    assert len(source.problems) == 1 and "broken.png" in source.problems[0] and source.shape == (3, 16, 16)
