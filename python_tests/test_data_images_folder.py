"""Folders of pictures as image data."""

import os
import zlib
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


# ---- what is passed over is counted and named


def test_hidden_files_are_no_data_and_links_are_followed(tmp_path):
    place = tmp_path / "pets"
    write_pictures(place / "cat", 4)
    write_pictures(tmp_path / "elsewhere" / "dog", 3, seed=1)
    (place / "dog").symlink_to(tmp_path / "elsewhere" / "dog")
    for hidden in (".ipynb_checkpoints", "__MACOSX/cat", "cat/@eaDir"):
        write_pictures(place / hidden, 2)
    (place / "cat" / "._000.png").write_bytes(b"\0\5\x16\7")
    read = read_images(place, size=16)
    assert read.train.labels.tolist() == [0] * 4 + [1] * 3 and not read.skipped
    assert [name.startswith(str(place / "dog")) for name in read.train.names] == [False] * 4 + [True] * 3
    (note,) = read.notes
    assert note.startswith("passed over 4 hidden files and folders: ") and note.endswith(" and 1 more")
    assert str(place / ".ipynb_checkpoints") in note


def test_each_folder_counts_once(tmp_path):
    write_pictures(tmp_path / "a" / "cat", 3)
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "a" / "kitty").symlink_to("cat")
    (tmp_path / "a" / "gone.png").symlink_to("nowhere")
    (tmp_path / "a" / "self").symlink_to("self")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    read = read_images(tmp_path / "a", size=16)
    assert read.train.labels.tolist() == [0] * 3 + [1] * 0
    place = tmp_path / "a"
    assert f"passed over {place / 'kitty'}: it is {place / 'cat'} again" in read.notes
    assert any(
        note.startswith("passed over 3 links and devices that are no files: ")
        and str(place / "gone.png") in note
        for note in read.notes
    )
    assert len(read_images(tmp_path, size=16).train.images) == 3  # the loop leads to the folder itself


def test_links_named_train_and_test(tmp_path):
    for part in ("train", "test"):
        write_pictures(tmp_path / "set" / "data" / part / "cat", 3)
        (tmp_path / "set" / part).symlink_to(Path("data") / part)
    read = read_images(tmp_path / "set", size=16)
    assert len(read.train.images) == len(read.test.images) == 3
    assert sum("again" in note for note in read.notes) == 2


def test_other_files_are_counted(tmp_path):
    for place in ("train/cat", "test/cat", "val/cat", "."):
        write_pictures(tmp_path / place, 2)
    (tmp_path / "labels.csv").write_text("1")
    read = read_images(tmp_path, size=16)
    assert read.notes == (
        f"passed over 1 file that is no picture: {tmp_path / 'labels.csv'}",
        "passed over 4 pictures outside of train and test: "
        f"{tmp_path / '000.png'}, {tmp_path / '001.png'}, {tmp_path / 'val/cat/000.png'} and 1 more",
    )


@pytest.mark.parametrize(
    "files, got",
    [(["a.zip"], "got a.zip; unpack it first"), ([], "got no files"), (["x/b.heic"], "got x/b.heic$")],
)
def test_no_pictures(tmp_path, files, got):
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"")
    with pytest.raises(InputError, match=f"holds no images: .*{got}"):
        read_images(tmp_path)


# ---- transparent, animated, changing


def gradient():
    """A colour and its opacity, from nothing to all."""
    array = np.zeros((16, 16, 4), np.uint8)
    array[..., :3], array[..., 3] = (200, 100, 50), np.arange(256).reshape(16, 16)
    return array


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L"])
def test_transparent_pictures_are_composed_on_white(tmp_path, mode):
    array = gradient()
    seen = array[..., 3:] / 255
    if mode == "RGBA":
        picture, options = Image.fromarray(array), {}
    elif mode == "LA":
        picture, options = Image.fromarray(array[..., [0, 3]]), {}
    elif mode == "P":  # color 3 is transparent
        picture, options = (
            Image.fromarray((array[..., 3] // 64).astype(np.uint8)).convert("P"),
            {"transparency": 3},
        )
        picture.putpalette([200, 100, 50] * 256)
        seen = (array[..., 3:] // 64 != 3).astype(float)
    else:
        picture, options = Image.fromarray(array[..., 3]), {"transparency": 77}
    picture.save(tmp_path / "a.png", **options)
    read = read_images(tmp_path, size=16)
    color = {"LA": array[..., :1], "L": array[..., 3:]}.get(mode, array[..., :3])
    seen = (array[..., 3:] != 77).astype(float) if mode == "L" else seen
    wanted = np.rint(color * seen + 255 * (1 - seen))
    assert np.abs(read.train.images[0].permute(1, 2, 0).numpy() - wanted).max() <= 1
    assert read.notes == ("1 of 1 pictures are transparent: they were composed on white",)


def test_opaque_pictures_keep_their_colours(tmp_path):
    array = random_images(1, 16, 16, 4)[0]
    array[..., 3] = 255
    Image.fromarray(array).save(tmp_path / "a.png")
    read = read_images(tmp_path, size=16)
    assert np.array_equal(read.train.images[0].permute(1, 2, 0), array[..., :3]) and read.notes == ()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".gif"])
def test_the_first_frame_of_animated_pictures(tmp_path, suffix):
    first, *others = [Image.fromarray(array) for array in random_images(3, 16, 16)]
    options = {"lossless": True} if suffix == ".webp" else {}
    first.save(tmp_path / f"a{suffix}", save_all=True, append_images=others, **options)
    first.save(tmp_path / "b.png")
    read = read_images(tmp_path, size=16)
    assert torch.equal(read.train.images[0], read.train.images[1])
    assert read.notes == ("1 of 2 pictures have several frames: the first was taken",)


def test_pictures_that_change_while_they_are_read(tmp_path, monkeypatch):
    write_pictures(tmp_path, 5)
    opened = Image.open

    def change(path, **options):
        if path.name == "001.png":
            path.unlink()
        if path.name == "002.png":
            path.write_bytes(path.read_bytes()[:100])
        if path.name == "003.png":
            path.chmod(0)
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, **options)

    monkeypatch.setattr(Image, "open", change)
    read = read_images(tmp_path, size=16)
    assert [Path(name).name for name in read.train.names] == ["000.png", "004.png"]
    assert [
        f"00{i}.png: not a readable picture" in said for i, said in zip((1, 2, 3), read.skipped, strict=True)
    ]


def test_only_formats_of_pictures_are_decoded(tmp_path):
    """Pillow would call a program for PostScript, whatever the file's name."""
    write_pictures(tmp_path, 1)
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n")
    Image.new("RGB", (16, 16)).save(tmp_path / "b.tga")
    (tmp_path / "b.tga").rename(tmp_path / "b.png")  # which Pillow would decode
    skipped = read_images(tmp_path, size=16).skipped
    assert len(skipped) == 2 and all("not a readable picture" in said for said in skipped)


def test_a_picture_that_claims_to_be_huge(tmp_path):
    write_pictures(tmp_path, 1)
    png = bytearray((tmp_path / "000.png").read_bytes())
    png[16:24] = (12_000).to_bytes(4, "big") * 2
    png[29:33] = zlib.crc32(png[12:29]).to_bytes(4, "big")
    (tmp_path / "huge.png").write_bytes(png)
    (skipped,) = read_images(tmp_path, size=16).skipped
    assert "huge.png: want at most 134217728 pixels, got 12000x12000" in skipped
