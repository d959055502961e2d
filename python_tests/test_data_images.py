"""Every form of image data: read right, and refused with a message that names what is wrong."""

import gzip
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import random_images

from led_fast.data.images import dequantize, open_images, quantize, read_images
from led_fast.errors import InputError

FASHION = Path(__file__).parent / "data" / "fashion-mnist"


def idx_bytes(array, magic=None):
    header = struct.pack(f">{1 + array.ndim}I", magic or 0x800 | array.ndim, *array.shape)
    return header + array.tobytes()


def write_idx(folder, train=None, labels=None):
    folder.mkdir(parents=True, exist_ok=True)
    train = random_images(120, 8, 8) if train is None else train
    (folder / "train-images-idx3-ubyte").write_bytes(idx_bytes(train))
    if labels is not None:
        (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return train


NAMES = [
    f"{part}-{what}" for part in ("train", "t10k") for what in ("images-idx3-ubyte", "labels-idx1-ubyte")
]


def write_mnist(*paths):
    """Four files at given paths; returns images and labels of training and test."""
    arrays = random_images(120, 8, 8), np.arange(120, dtype=np.uint8) % 10
    arrays = *arrays, random_images(30, 8, 8, seed=1), np.arange(30, dtype=np.uint8) % 7
    for path, array in zip(paths, arrays, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        content = idx_bytes(array)
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return arrays


def same_images(read, arrays, turned=False):
    for part, images, labels in ((read.train, *arrays[:2]), (read.test, *arrays[2:])):
        images = images.transpose(0, 2, 1) if turned else images
        assert np.array_equal(part.images[:, 0], images) and part.labels.tolist() == labels.tolist()


# --- the source ---------------------------------------------------------------------------------------------


def test_fashion_mnist():
    source = open_images(FASHION)
    assert source.shape == (1, 32, 32) and not source.problems
    assert [len(source.split(s)) for s in ("train", "validation", "test")] == [360, 40, 150]
    assert len(source.labels) == 360 and set(source.labels.tolist()) == set(range(10))
    test = source.split("test")
    assert test[:, :, :2].max() == test[:, :, -2:].max() == test[..., :2].max() == test[..., -2:].max() == 0
    # Ankle boot, pullover, trousers: the first test images by the data set's own documentation.
    assert source.split_labels("test")[:3].tolist() == [9, 2, 1]
    # Trousers stand in the middle, taller than wide.
    trousers = test[2, 0].float()
    assert trousers.sum(1).count_nonzero() > 1.5 * trousers.sum(0).count_nonzero()


def test_splits_are_disjoint_complete_and_the_same_in_every_run(tmp_path):
    array = random_images(500, 8, 8)
    np.save(tmp_path / "a.npy", array)
    source, again = open_images(tmp_path / "a.npy"), open_images(tmp_path / "a.npy")
    rows = []
    for split, size in (("train", 400), ("validation", 50), ("test", 50)):
        assert torch.equal(source.split(split), again.split(split)) and len(source.split(split)) == size
        rows += [image.numpy().tobytes() for image in source.split(split)]
    assert sorted(rows) == sorted(image.tobytes() for image in array)
    assert source.fingerprint == again.fingerprint
    array[17, 3, 3] ^= 1
    np.save(tmp_path / "a.npy", array)
    assert open_images(tmp_path / "a.npy").fingerprint != source.fingerprint


def test_drawing_follows_the_global_seed_and_stays_in_the_split():
    source = open_images(FASHION)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append((source.sample(64), source.held_out(20)))
    assert torch.equal(draws[0][0], draws[1][0]) and torch.equal(draws[0][1], draws[1][1])
    assert not torch.equal(draws[0][0], draws[2][0])
    held_out = [quantize(held_out) for _, held_out in draws]
    assert torch.equal(held_out[0], held_out[2])  # the same images under other noise
    assert not torch.equal(draws[0][1], draws[2][1])
    assert len(source.held_out(1000)) == 150 and source.sample(3).shape == (3, 1, 32, 32)
    train = {image.numpy().tobytes() for image in source.split("train")}
    assert all(image.numpy().tobytes() in train for image in quantize(draws[0][0]))


def test_dequantisation_is_uniform_and_reversible():
    torch.manual_seed(0)
    values = torch.arange(256, dtype=torch.uint8).repeat(20_000)
    x = dequantize(values)
    assert x.dtype == torch.float32 and x.min() > 0 and x.max() < 1
    assert torch.equal(quantize(x), values)
    noise = x.double() * 256 - values
    assert noise.mean().item() == pytest.approx(0.5, abs=5 / (12 * len(x)) ** 0.5)
    assert noise.var().item() == pytest.approx(1 / 12, rel=1e-3)


@pytest.mark.parametrize("default", [torch.bfloat16, torch.float16, torch.float64])
def test_dequantisation_is_in_float32_whatever_torchs_default_is(default):
    values = torch.arange(256, dtype=torch.uint8).repeat(100)
    torch.manual_seed(0)
    wanted = dequantize(values)
    torch.manual_seed(0)
    torch.set_default_dtype(default)
    try:
        x = dequantize(values)
    finally:
        torch.set_default_dtype(torch.float32)
    assert x.dtype == torch.float32 and torch.equal(x, wanted)


def test_the_extreme_noise_stays_in_its_cell(monkeypatch):
    values = torch.arange(256, dtype=torch.uint8)
    for extreme in (0.0, 1 - 2**-24):  # the least and the largest value of torch.rand
        monkeypatch.setattr(torch, "rand", lambda *_, value=extreme, **__: torch.full((256,), value))
        x = dequantize(values)
        assert torch.equal(quantize(x), values) and x.min() > 0 and x.max() < 1


def test_too_few_images(tmp_path):
    np.save(tmp_path / "a.npy", random_images(99, 8, 8))
    with pytest.raises(InputError, match=r"a\.npy: want at least 100 images to learn from, got 99"):
        open_images(tmp_path / "a.npy")


# --- idx ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [".", "raw", "MNIST/raw"])
def test_idx_layouts(tmp_path, layout):
    labels = np.arange(120, dtype=np.uint8) % 10
    train = write_idx(tmp_path / layout, labels=labels)
    read = read_images(tmp_path)
    assert torch.equal(read.train.images[:, 0], torch.from_numpy(train))
    assert read.train.labels.tolist() == labels.tolist() and read.test is None


def test_folders_named_like_the_files_in_them(tmp_path):
    """As some archives of MNIST unpack, with other copies beside or without."""
    nested = [tmp_path / "a" / name / name for name in NAMES]
    arrays = write_mnist(*nested)
    same_images(read_images(tmp_path / "a"), arrays)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    arrays = write_mnist(*(tmp_path / "b" / name.replace("-idx", ".idx") for name in NAMES))
    read = read_images(tmp_path / "b")
    same_images(read, arrays)
    assert len(read.notes) == 1 and read.notes[0].startswith("passed over 4 other files: ")


@pytest.mark.parametrize("place", ["MNIST/MNIST/raw", "archive/data/fashion", "a/b/c/d"])
def test_idx_files_lie_deep(tmp_path, place):
    arrays = write_mnist(*(tmp_path / place / name for name in NAMES))
    same_images(read_images(tmp_path), arrays)


def test_emnist(tmp_path):
    def names(split, suffix=""):
        return [f"emnist-{split}-{name.replace('t10k', 'test')}{suffix}" for name in NAMES]

    arrays = write_mnist(*(tmp_path / "letters" / name for name in names("letters", ".gz")))
    (tmp_path / "letters" / "emnist-letters-mapping.txt").write_text("1 65 97")
    read = read_images(tmp_path / "letters")
    same_images(read, arrays, turned=True)  # its files hold images that lie on their side
    assert read.notes == (f"passed over 1 other file: {tmp_path / 'letters' / 'emnist-letters-mapping.txt'}",)
    for split in ("balanced", "byclass"):
        write_mnist(*(tmp_path / "all" / name for name in names(split)))
    with pytest.raises(InputError, match=r"several data sets \(emnist-balanced, emnist-byclass\)"):
        read_images(tmp_path / "all")


def test_gzipped_whatever_its_name_says(tmp_path):
    paths = [tmp_path / name for name in NAMES]
    arrays = write_mnist(*paths)
    paths[0].write_bytes(gzip.compress(paths[0].read_bytes()))
    paths[1].rename(tmp_path / f"{NAMES[1]}.gz")
    same_images(read_images(tmp_path), arrays)


def test_a_zip_bomb_is_read_no_further_than_its_shape_wants(tmp_path):
    head = idx_bytes(np.zeros((1, 8, 8), np.uint8))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + bytes(1 << 28)))
    with pytest.raises(InputError, match=r"shape \[1, 8, 8\] wants 64 bytes, got 1048640 or more"):
        read_images(tmp_path)


def test_two_data_sets_in_one_folder(tmp_path):
    for name in ("MNIST", "FashionMNIST"):
        write_idx(tmp_path / name / "raw")
    with pytest.raises(InputError, match=r"several data sets \(FashionMNIST/raw, MNIST/raw\)"):
        read_images(tmp_path)


@pytest.mark.parametrize(
    "content, message",
    [
        (idx_bytes(random_images(120, 8, 8), magic=2052), "want magic number 2051 .*, got 2052"),
        (idx_bytes(random_images(120, 8, 8))[:-1], r"shape \[120, 8, 8\] wants 7680 bytes, got 7679"),
        (idx_bytes(random_images(120, 8, 8)) + b"x", "wants 7680 bytes, got 7681"),
        (b"\x00\x00\x08", "want a header of 16 bytes, got a file of 3"),
        (b"", "want a header of 16 bytes, got a file of 0"),
        (idx_bytes(random_images(0, 8, 8)), "holds nothing"),
    ],
    ids=["magic", "short", "long", "header", "empty file", "no images"],
)
def test_bad_idx(tmp_path, content, message):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(InputError, match=f"train-images-idx3-ubyte: .*{message}"):
        read_images(tmp_path)


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b[1:], lambda b: b[:40] + b"\0" * 9 + b[49:]]
)
def test_bad_gzip(tmp_path, damage):
    content = gzip.compress(idx_bytes(random_images(120, 8, 8)))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(damage(content))
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz: (cannot be read|want)"):
        read_images(tmp_path)


def test_idx_parts_that_do_not_fit(tmp_path):
    write_idx(tmp_path / "a", labels=np.zeros(119, dtype=np.uint8))
    with pytest.raises(InputError, match="120 training images but 119 labels"):
        read_images(tmp_path / "a")
    write_idx(tmp_path / "b")
    (tmp_path / "b" / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(random_images(10, 9, 8)))
    with pytest.raises(InputError, match=r"differ in shape: \(1, 8, 8\) and \(1, 9, 8\)"):
        read_images(tmp_path / "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "t10k-images-idx3-ubyte").write_bytes(b"")
    with pytest.raises(InputError, match=r"want train-images-idx3-ubyte .*, got only \['t10k-images'\]"):
        read_images(tmp_path / "c")


# --- CIFAR-10 -----------------------------------------------------------------------------------------------


# --- arrays -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 1), (8, 9, 3), (1, 8, 9), (3, 8, 9)])
def test_npy_shapes(tmp_path, shape):
    array = random_images(7, *shape)
    np.save(tmp_path / "a.npy", array)
    images = read_images(tmp_path / "a.npy").train.images
    channels = 3 if 3 in shape else 1
    assert images.shape == (7, channels, 8, 9)
    flat = array.reshape(7, 8, 9, channels).transpose(0, 3, 1, 2) if shape[0] == 8 else array
    assert images.numpy().tobytes() == np.ascontiguousarray(flat).tobytes()


@pytest.mark.parametrize(
    "keys",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
    ],
)
def test_npz(tmp_path, keys):
    train, test = random_images(30, 28, 28), random_images(10, 28, 28, seed=1)
    values = (train, np.arange(30)[:, None], test, np.arange(10))
    np.savez(tmp_path / "a.npz", **dict(zip(keys, values, strict=True)))
    read = read_images(tmp_path / "a.npz")
    assert read.train.images.shape == (30, 1, 32, 32) and read.test.images.shape == (10, 1, 32, 32)
    assert torch.equal(read.test.images[:, 0, 2:-2, 2:-2], torch.from_numpy(test))
    assert read.train.labels.tolist() == list(range(30)) and read.test.labels.tolist() == list(range(10))


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"images": np.zeros((4, 8, 8), np.float32)}, "images: want uint8 images.*, got float32"),
        ({"images": np.zeros((4, 8, 8, 4), np.uint8)}, r"want shape .*, got \(4, 8, 8, 4\)"),
        ({"images": np.zeros((4, 64), np.uint8)}, r"got \(4, 64\)"),
        ({"images": np.zeros((0, 8, 8), np.uint8)}, "holds no pixels"),
        ({"pixels": np.zeros((4, 8, 8), np.uint8)}, r"want an array called x_train or .*, got \['pixels'\]"),
        ({"images": np.array([None] * 4)}, "not a readable"),
        (
            {"images": np.zeros((4, 8, 8), np.uint8), "labels": np.zeros(3, int)},
            "4 training images but 3 labels",
        ),
        (
            {"images": np.zeros((4, 8, 8), np.uint8), "labels": np.zeros(4)},
            "labels: want integer labels, got float64",
        ),
        (
            {"images": np.zeros((4, 8, 8), np.uint8), "labels": np.eye(4, dtype=int)},
            r"want one label an image, got shape \(4, 4\)",
        ),
        (
            {"images": np.zeros((4, 8, 8), np.uint8), "labels": np.array(3)},
            r"want one label an image, got shape \(\)",
        ),
        (
            {"x_train": np.zeros((4, 8, 8), np.uint8), "x_test": np.zeros((4, 8, 8, 3), np.uint8)},
            r"differ in shape: \(1, 8, 8\) and \(3, 8, 8\)",
        ),
    ],
)
def test_bad_npz(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(InputError, match=rf"bad\.npz: .*{message}"):
        read_images(tmp_path / "bad.npz")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("keep", [0, 300])
def test_truncated_arrays(tmp_path, suffix, keep):
    path = tmp_path / f"bad{suffix}"
    (np.save if suffix == ".npy" else np.savez)(path, random_images(20, 8, 8))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"bad\.np[yz]: not a readable (array file|\.npy array)"):
        read_images(path)


def test_nothing_to_read(tmp_path):
    for path, message in (
        (tmp_path / "missing", "got nothing"),
        (FASHION / "LICENSE", "got another kind of file"),
        (tmp_path, "holds no images"),
    ):
        with pytest.raises(InputError, match=message):
            open_images(path)


def test_padding_to_32_is_for_28_only(tmp_path):
    shutil.copytree(FASHION, tmp_path / "f")
    assert read_images(tmp_path / "f").train.images.shape == (400, 1, 32, 32)
    np.save(tmp_path / "a.npy", random_images(3, 27, 28))
    assert read_images(tmp_path / "a.npy").train.images.shape == (3, 1, 27, 28)
