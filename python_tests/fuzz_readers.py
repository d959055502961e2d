"""Every reader of files from outside, with valid files for it to be damaged."""

import gzip
import io
import json
import pickle
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from image_files import random_images
from PIL import Image
from torch import Tensor

from led_fast.data.images import ImageCollection, ImageStream, read_images
from led_fast.data.images.idx import read_idx
from led_fast.data.tables import TableSource, read_table
from led_fast.density import Verdict
from led_fast.estimator import LED
from led_fast.files import read_json
from led_fast.training.checkpoint import load_state
from led_fast.training.config import TrainConfig
from led_fast.training.model import load_model, read_model
from led_fast.training.run import RunDirectory, read_metrics

RUNS = Path(__file__).parent / "data" / "runs_0_1_0"


@dataclass(frozen=True)
class Reader:
    """A reader and what it reads.

    Attributes:
        read: of a folder that holds the files.
        target: the file that is damaged.
        contents: valid contents of it; some are the inside of a packed file, which `pack` closes again.
        pack: by position in `contents`, what makes a file of a damaged inside.
        beside: files that are valid throughout.
    """

    read: Callable[[Path], object]
    target: str
    contents: tuple[bytes, ...]
    pack: dict[int, Callable[[bytes], bytes]] = field(default_factory=dict)
    beside: dict[str, bytes] = field(default_factory=dict)

    def content(self, which: int, damage: Callable[[bytes], bytes]) -> bytes:
        which %= len(self.contents)
        return self.pack.get(which, bytes)(damage(self.contents[which]))


def _idx(array: np.ndarray) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", 0x800 | array.ndim, *array.shape) + array.tobytes()


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _zip(inside: bytes, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("images.npy", inside)
        archive.writestr("labels.npy", _npy(np.arange(20)))
    return file.getvalue()


def _picture(form: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(random_images(1, 16, 16, 3)[0]).save(file, form, **options)
    return file.getvalue()


def _with_checksums(png: bytes) -> bytes:
    """A PNG whose damaged chunks have right checksums, so that a decoder goes on to what is in them."""
    out, at = bytearray(png[:8]), 8
    while at + 12 <= len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        if at + 12 + length > len(png):
            break
        body = png[at + 4 : at + 8 + length]
        out += png[at : at + 4] + body + zlib.crc32(body).to_bytes(4, "big")
        at += 12 + length
    return bytes(out + png[at:])


def _with_length(header: bytes) -> Callable[[bytes], bytes]:
    """A safetensors file of a damaged header: its length is right."""
    return lambda damaged: len(damaged).to_bytes(8, "little") + damaged + header


def _split(path: Path) -> tuple[bytes, bytes]:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return content[8 : 8 + length], content[8 + length :]


def _batch(images: int, protocol: int) -> bytes:
    rows = random_images(images, 3072)
    content = pickle.dumps({b"data": rows, b"labels": [i % 10 for i in range(images)]}, protocol=protocol)
    if protocol < 4:  # CIFAR's own files were written by an old NumPy
        content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    return content


def _frame() -> dict[str, list]:
    rng = np.random.default_rng(0)
    return {
        "a": rng.normal(size=120).round(4).tolist(),
        "b": rng.integers(0, 50, 120).tolist(),
        "c": ["u", "v", "ä"] * 40,
    }


def _csv(separator: str = ",", decimal: str = ".", encoding: str = "utf-8", quote: str = "") -> bytes:
    frame = _frame()
    lines = [separator.join(frame)]
    for row in zip(*frame.values(), strict=True):
        fields = [f"{quote}{str(value).replace('.', decimal)}{quote}" for value in row]
        lines.append(separator.join(fields))
    return ("\n".join(lines) + "\n").encode(encoding)


def _parquet(**options: object) -> bytes:
    import pandas

    file = io.BytesIO()
    pandas.DataFrame(_frame()).to_parquet(file, **options)
    return file.getvalue()


def _table_model() -> tuple[bytes, bytes]:
    """(length and header, data) of a table's model."""
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.normal(size=100), rng.integers(0, 5, 100), np.full(100, 3.0)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        LED(steps=2, random_state=0).fit(rows).save(path)
        header, rest = _split(path)
    return len(header).to_bytes(8, "little") + header, rest


def _report(run: Path) -> bytes:
    value = read_model(run / "model.safetensors").model.log_normalizer.item()
    verdict = Verdict(value, (value - 1, value + 1), True, "", {"generator": {"value": value}})
    return json.dumps({"schema": 2, "log_normalizer": verdict.to_json(), "seconds": 1.5}).encode()


def _open_config(folder: Path) -> TrainConfig:
    content = read_json(folder / "config.json")
    content.pop("version", None)  # as the command does
    return TrainConfig.from_json(content, "config.json")


def _read_twice(path: Path, shape: tuple[int, int, int]) -> ImageCollection:
    """Images at once, and again some at a time, which must be the same where both can be read."""
    stream = ImageStream(path, shape)
    parts: list[Tensor] = []
    try:
        found = read_images(path, size=shape[-1])
    finally:
        parts += stream.parts(7)
    sets = [found.train] if found.test is None else [found.train, found.test]
    assert torch.equal(torch.cat(parts), torch.cat([part.images for part in sets]))
    assert [*stream.names] == [
        name
        for title, part in zip(("train", "test"), sets, strict=False)
        for name in part.names or [f"{title}[{i}]" for i in range(len(part.images))]
    ]
    assert (stream.skipped, stream.notes) == (found.skipped, found.notes)
    return found


def _open_table(path: Path) -> object:
    return TableSource(str(path), read_table(path, drop_missing=True))


def _open_labelled(path: Path) -> object:
    """Without rows that lack a value for every second file, because each opening takes long."""
    drop_missing = bool(zlib.crc32(path.read_bytes()) & 1)
    return TableSource(str(path), read_table(path, ignore=["c"], drop_missing=drop_missing))


@cache
def readers() -> dict[str, Reader]:
    """All readers, by name."""
    images, labels = random_images(20, 28, 28), np.arange(20, dtype=np.uint8)
    idx, arrays = _idx(images), _npy(images)
    batches = {f"data_batch_{i}": _batch(1, 3) for i in range(2, 6)} | {"test_batch": _batch(1, 3)}
    rows = random_images(120, 1024, 3)[:2]
    strip = io.BytesIO()
    Image.fromarray(rows).save(strip, "PNG")
    strips = {f"data_batch_{i}.png": strip.getvalue() for i in range(2, 6)} | {
        "test_batch.png": strip.getvalue()
    }
    numbers = np.random.default_rng(0).normal(size=(120, 3))
    stacked = [Image.fromarray(a) for a in random_images(3, 16, 16, 3)]
    animated = {"save_all": True, "append_images": stacked}
    pictures = (
        *(_picture(form) for form in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")),
        _picture("GIF", **animated),
        _picture("PNG", **animated),
        _picture("TIFF", compression="tiff_deflate", **animated),
        _picture("PNG"),
    )
    runs = [RUNS / name / "model.safetensors" for name in ("points", "images")]
    headers = [_split(path) for path in runs]
    checkpoints = [
        RUNS / "points_stopped" / "checkpoint.safetensors",
        RUNS / "images_stopped" / "checkpoint.safetensors",
    ]
    configs = [RUNS / name / "config.json" for name in ("points", "images", "ring_gan")]
    reports, table = RUNS / "points", _table_model()
    return {
        "idx": Reader(
            lambda f: read_idx(f / "train-images-idx3-ubyte", 3), "train-images-idx3-ubyte", (idx,)
        ),
        "idx folder": Reader(
            lambda f: _read_twice(f, (1, 32, 32)),
            "train-labels-idx1-ubyte",
            (_idx(labels),),
            beside={"train-images-idx3-ubyte": idx},
        ),
        "idx.gz": Reader(
            lambda f: read_idx(f / "t.gz", 3), "t.gz", (gzip.compress(idx), idx), {1: gzip.compress}
        ),
        "CIFAR batches": Reader(
            lambda f: _read_twice(f, (3, 32, 32)),
            "data_batch_1",
            tuple(_batch(2, p) for p in (0, 2, 3, 4, 5)),
            beside=batches,
        ),
        "CIFAR PNG": Reader(
            lambda f: _read_twice(f, (3, 32, 32)),
            "data_batch_1.png",
            (strip.getvalue(), strip.getvalue()),
            {1: _with_checksums},
            beside=strips,
        ),
        "CIFAR labels": Reader(
            read_images,
            "train_labels.json",
            (json.dumps([i % 10 for i in range(10)]).encode(),),
            beside={**strips, "data_batch_1.png": strip.getvalue()},
        ),
        "npy images": Reader(
            lambda f: _read_twice(f / "a.npy", (1, 32, 32)),
            "a.npy",
            (arrays, _npy(np.asfortranarray(images))),
        ),
        "npz": Reader(
            lambda f: _read_twice(f / "a.npz", (1, 32, 32)),
            "a.npz",
            (_zip(arrays), _zip(_npy(np.asfortranarray(images)), zipfile.ZIP_STORED), arrays),
            {2: _zip},
        ),
        "pictures": Reader(
            lambda f: _read_twice(f, (3, 16, 16)),
            "a.png",
            pictures,
            {len(pictures) - 1: _with_checksums},
            beside={"b.png": _picture("PNG")},
        ),
        "npy table": Reader(
            lambda f: _open_table(f / "t.npy"), "t.npy", (_npy(numbers), _npy((100 * numbers).astype(int)))
        ),
        "CSV": Reader(
            lambda f: _open_labelled(f / "t.csv"),
            "t.csv",
            (
                _csv(),
                _csv(";", ","),
                _csv("\t", encoding="utf-16"),
                _csv(quote='"'),
                _csv(" ", encoding="cp1252"),
            ),
        ),
        "CSV.gz": Reader(
            lambda f: _open_labelled(f / "t.csv.gz"),
            "t.csv.gz",
            (gzip.compress(_csv()), _csv()),
            {1: gzip.compress},
        ),
        "parquet": Reader(
            lambda f: _open_labelled(f / "t.parquet"),
            "t.parquet",
            (_parquet(), _parquet(compression=None), _parquet(engine="pyarrow", row_group_size=50)),
        ),
        "model.safetensors": Reader(
            lambda f: read_model(f / "m.safetensors"),
            "m.safetensors",
            (*(path.read_bytes() for path in runs), *(header for header, _ in headers)),
            {2 + i: _with_length(rest) for i, (_, rest) in enumerate(headers)},
        ),
        "table.safetensors": Reader(
            lambda f: LED.load(f / "m.safetensors"),
            "m.safetensors",
            (b"".join(table), table[0][8:]),
            {1: _with_length(table[1])},
        ),
        "checkpoint.safetensors": Reader(
            lambda f: load_state(f / "c.safetensors", "checkpoint"),
            "c.safetensors",
            (*(path.read_bytes() for path in checkpoints), *(_split(path)[0] for path in checkpoints)),
            {2 + i: _with_length(_split(path)[1]) for i, path in enumerate(checkpoints)},
        ),
        "config.json": Reader(
            _open_config,
            "config.json",
            tuple(path.read_bytes() for path in configs),
        ),
        "report.json": Reader(
            lambda f: load_model(RunDirectory.open(f)),
            "report.json",
            (_report(reports),),
            beside={name: (reports / name).read_bytes() for name in ("config.json", "model.safetensors")},
        ),
        "metrics.jsonl": Reader(
            lambda f: read_metrics(f / "metrics.jsonl"),
            "metrics.jsonl",
            ((reports / "metrics.jsonl").read_bytes()[:3000],),
        ),
    }
