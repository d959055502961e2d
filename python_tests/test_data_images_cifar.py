"""CIFAR-10 and CIFAR-100 in each of their forms: read right, and refused with a message that names what is wrong."""

import json
import os
import pickle

import numpy as np
import pytest
import torch
from image_files import random_images
from PIL import Image

from led_fast.data.images import read_images
from led_fast.errors import InputError


def write_cifar(folder, form, protocol=3):
    """Five batches of 25 images and a test batch; returns images by channel and labels."""
    folder.mkdir(parents=True)
    images, labels = random_images(150, 3, 32, 32), np.arange(150) % 10
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for name, batch, of_batch in zip(names, np.split(images, 6), np.split(labels, 6), strict=True):
        if form == "pickle":
            batch = {b"data": batch.reshape(25, -1), b"labels": of_batch.tolist()}
            content = pickle.dumps(batch, protocol=protocol)
            if protocol < 4:  # CIFAR-10's own files were written by an old NumPy
                content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            (folder / name).write_bytes(content)
        elif form == "binary":
            rows = np.column_stack([of_batch.astype(np.uint8), batch.reshape(25, -1)])
            (folder / f"{name}.bin").write_bytes(rows.tobytes())
        else:
            rows = batch.transpose(0, 2, 3, 1).reshape(25, 1024, 3)
            Image.fromarray(rows).save(folder / f"{name}.png")
    if form == "png":
        (folder / "train_lables.json").write_text(json.dumps(labels[:125].tolist()))
        (folder / "test_lables.json").write_text(json.dumps(labels[125:].tolist()))
    return images, labels


@pytest.mark.parametrize(
    "form, layout, protocol",
    [
        ("pickle", ".", 3),
        ("pickle", "cifar-10-batches-py", 2),
        ("pickle", "cifar-10-python/cifar-10-batches-py", 0),
        ("pickle", ".", 4),
        ("pickle", ".", 5),
        ("png", ".", 3),
        ("binary", "cifar-10-batches-bin", 3),
    ],
)
def test_cifar(tmp_path, form, layout, protocol):
    images, labels = write_cifar(tmp_path / "data" / layout, form, protocol)
    read = read_images(tmp_path / "data")
    assert torch.equal(read.train.images, torch.from_numpy(images[:125]))
    assert torch.equal(read.test.images, torch.from_numpy(images[125:]))
    assert read.train.labels.tolist() + read.test.labels.tolist() == labels.tolist()


@pytest.mark.parametrize("suffix", ["", ".bin"])
def test_cifar_100(tmp_path, suffix):
    parts = {"train": random_images(25, 3, 32, 32), "test": random_images(20, 3, 32, 32, seed=1)}
    for name, images in parts.items():
        fine, rows = list(range(len(images))), images.reshape(-1, 3072)
        batch = {b"fine_labels": fine, b"coarse_labels": [0] * len(fine), b"data": rows}
        packed = np.column_stack(
            [np.zeros((len(fine), 1), np.uint8), np.array(fine, np.uint8)[:, None], rows]
        )
        content = packed.tobytes() if suffix else pickle.dumps(batch, protocol=2)
        (tmp_path / f"{name}{suffix}").write_bytes(content)
    (tmp_path / ("fine_label_names.txt" if suffix else "meta")).write_bytes(b"")
    read = read_images(tmp_path)
    for part, images in ((read.train, parts["train"]), (read.test, parts["test"])):
        assert np.array_equal(part.images, images) and part.labels.tolist() == list(range(len(images)))
    if suffix:
        (tmp_path / "test.bin").write_bytes(b"x" * 3075)
        with pytest.raises(InputError, match=r"test\.bin: want rows of 3074 bytes, got 3075 bytes"):
            read_images(tmp_path)


def test_two_cifars(tmp_path):
    for name in ("a", "b"):
        write_cifar(tmp_path / name, "pickle")
    with pytest.raises(InputError, match=r"several data sets \(a, b\)"):
        read_images(tmp_path)


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.mark.parametrize(
    "content, message",
    [
        (pickle.dumps(Malicious()), r"it would call (os|posix)\.mkdir"),
        (pickle.dumps({b"labels": [1]}), "b'data'"),
        (pickle.dumps({b"data": np.zeros((2, 3072)), b"labels": [1, 2]}), "want uint8 data, got 'f8'"),
        (pickle.dumps({b"data": [[0] * 3072], b"labels": [1]}), "got list"),
        (
            pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": ["cat"]}),
            "want a list of classes",
        ),
        (pickle.dumps({b"data": np.zeros((0, 3072), np.uint8), b"labels": []}), "holds no images"),
        (b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".", "expected 1099511627776 bytes"),
        (
            pickle.dumps({b"data": np.zeros((2, 5), np.uint8), b"labels": [1, 2]}),
            r"want .*3072.*, got uint8 \(2, 5\)",
        ),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}), "2 images but 1 labels"),
        (b"garbage", "not a batch of CIFAR"),
        (b"", "not a batch of CIFAR"),
    ],
    ids=["code", "keys", "floats", "lists", "words", "none", "bomb", "shape", "labels", "garbage", "empty"],
)
def test_bad_cifar_pickle(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    write_cifar(tmp_path / "data", "pickle")
    (tmp_path / "data" / "data_batch_3").write_bytes(content)
    with pytest.raises(InputError, match=f"data_batch_3: .*{message}"):
        read_images(tmp_path / "data")
    assert not (tmp_path / "harm").exists()


def test_bad_cifar_png(tmp_path):
    folder = tmp_path / "data"
    write_cifar(folder, "png")
    batch = folder / "data_batch_2.png"
    whole = batch.read_bytes()
    batch.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"data_batch_2\.png: not a readable picture"):
        read_images(folder)
    Image.new("RGB", (1000, 25)).save(batch)
    with pytest.raises(InputError, match=r"data_batch_2\.png: want .* 1024 pixels a row, got rows of 1000"):
        read_images(folder)
    batch.unlink()
    with pytest.raises(InputError, match=r"data_batch_2\.png: no such file"):
        read_images(folder)
    batch.write_bytes(whole)
    (folder / "train_lables.json").write_text('["cat"')
    with pytest.raises(InputError, match=r"train_lables\.json: not a list of labels"):
        read_images(folder)
    (folder / "train_lables.json").write_text("[[1, 2], [3, 4]]")
    with pytest.raises(InputError, match=r"train_lables\.json: not a list of labels"):
        read_images(folder)
    (folder / "train_lables.json").write_text("[1, 2]")
    with pytest.raises(InputError, match="125 training images but 2 labels"):
        read_images(folder)
