"""Images that are read some at a time, and arrays that are cut short meanwhile.

That streams give what `read_images` gives is tested for every form, valid and damaged, in test_fuzz.py.
"""

import subprocess
import sys

import numpy as np
import pytest
import torch
from fuzz import memory
from image_files import random_images, write_pictures
from test_data_images import write_mnist

from led_fast.data.images import ImageStream, read_images
from led_fast.errors import InputError
from led_fast.evaluation import score_image_batches


def test_batches_are_whole_but_for_the_last_of_train_and_of_test(tmp_path):
    train, test = random_images(23, 28, 28), random_images(8, 28, 28, seed=1)
    np.savez(tmp_path / "a.npz", x_train=train, x_test=test)
    stream = ImageStream(tmp_path / "a.npz", (1, 32, 32))
    parts = list(stream.parts(5))
    assert [len(part) for part in parts] == [5, 5, 5, 5, 3, 5, 3]
    read = read_images(tmp_path / "a.npz")
    assert torch.equal(torch.cat(parts), torch.cat([read.train.images, read.test.images]))
    assert len(stream.names) == 31 and stream.names[22:24] == ["train[22]", "test[0]"]
    assert stream.names[-1] == "test[7]"
    with pytest.raises(IndexError):
        stream.names[31]


def test_emnist_and_train_and_test_folders(tmp_path):
    names = [f"emnist-letters-{part}-ubyte" for part in ("train-images-idx3", "train-labels-idx1")]
    names += [f"emnist-letters-{part}-ubyte" for part in ("test-images-idx3", "test-labels-idx1")]
    write_mnist(*(tmp_path / "emnist" / name for name in names))
    write_pictures(tmp_path / "folder" / "train" / "a", 5)
    write_pictures(tmp_path / "folder" / "test" / "a", 3, color=False)
    for place, shape in (("emnist", (1, 8, 8)), ("folder", (3, 16, 16))):
        stream, read = ImageStream(tmp_path / place, shape), read_images(tmp_path / place, size=shape[-1])
        wanted = torch.cat([read.train.images, read.test.images])
        assert torch.equal(torch.cat(list(stream.parts(4))), wanted)
        assert len(stream.names) == len(wanted)


def test_the_models_images_say_what_becomes_of_a_picture(tmp_path):
    arrays = write_pictures(tmp_path, 3, color=False)
    rgb = torch.cat(list(ImageStream(tmp_path, (3, 16, 16)).parts(9)))
    assert np.array_equal(rgb, np.repeat(arrays[:, None], 3, axis=1))
    write_pictures(tmp_path / "z", 1)
    with pytest.raises(InputError, match=r"z/000\.png: want a gray picture, because .*; got RGB"):
        list(ImageStream(tmp_path, (1, 16, 16)).parts(9))


def test_another_shape_is_refused_at_the_first_part(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=random_images(9, 8, 8), x_test=random_images(9, 8, 9))
    with pytest.raises(InputError, match=r"a\.npz: want images of shape \(1, 16, 16\), got \(1, 8, 8\)"):
        next(ImageStream(tmp_path / "a.npz", (1, 16, 16)).parts(4))
    with pytest.raises(InputError, match=r"a\.npz: want images of shape \(1, 8, 8\), got \(1, 8, 9\)"):
        list(ImageStream(tmp_path / "a.npz", (1, 8, 8)).parts(4))


CUT = """
import os, sys
from pathlib import Path
import numpy as np
import torch
from led_fast.data.images import ImageStream, read_images
from led_fast.data.tables import TableSource, read_table
from led_fast.errors import InputError
from led_fast.training.checkpoint import load_state, save_state
folder = sys.argv[1]
images = np.random.default_rng(0).integers(0, 256, (4000, 64, 64), dtype=np.uint8)
rows = images[:, 0, :3] + images[:, 1, :3] / 256 + images[:, 2, :3] / 65536
for order in "CF":
    path = f"{folder}/{order}.npy"
    np.save(path, np.asarray(images, order=order))
    parts = ImageStream(path, (1, 64, 64)).parts(100)
    next(parts)
    os.truncate(path, 5000)
    try:
        list(parts)
    except InputError as error:
        print(error)
    np.save(path, np.asarray(images, order=order))
    read = read_images(path).train.images
    os.truncate(path, 5000)
    assert (read.numpy()[:, 0] == images).all()
    np.save(path, np.asarray(rows, order=order))
    table = read_table(path)
    source = TableSource(path, table)
    os.truncate(path, 200)
    assert (table.mapped() == rows).all() and source.sample(1000).shape == (1000, 3)
path = Path(folder, "state.safetensors")
save_state(path, "model", {"ones": torch.ones(100_000)})
state = load_state(path, "model")
os.truncate(path, 500)
assert state["ones"].sum() == 100_000
"""


def test_a_file_that_is_cut_short_kills_nobody(tmp_path):
    """In a process of its own: one that touches a mapped file's lost part gets SIGBUS."""
    done = subprocess.run([sys.executable, "-c", CUT, tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(
        f"{tmp_path / order}.npy: was cut short while it was read\n" for order in "CF"
    )


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_memory_does_not_grow_with_images_that_are_scored(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    for count in (5000, 80_000):  # of 1 KiB; the first ones, to load whatever is loaded once
        images = np.zeros((count, 32, 32), np.uint8)
        np.save(path, images) if suffix == "npy" else np.savez_compressed(path, images=images)
        del images
        before = memory(reset=True)
        stream = ImageStream(path, (1, 32, 32))
        found = score_image_batches(lambda x: x.flatten(1).mean(1), stream.parts(250))
        grown = memory() - before
        assert len(found.rank) == len(stream.names) == count
    assert grown < 16 * 1024  # KiB
