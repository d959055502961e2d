"""Pictures of images: every image in its place, as it is; captions above it."""

import numpy as np
import pytest
import torch
from PIL import Image

from led_fast.figures import grid_figure, interpolation_figure, refinement_figure, sorted_figure


def tiles(path, columns, rows, caption=0):
    """The colour in the middle of each tile, row by row; None where the picture is white."""
    picture = np.asarray(Image.open(path))
    height, width = (picture.shape[0] - 2) / rows, (picture.shape[1] - 2) / columns
    assert height == int(height) and width == int(width)
    found = []
    for row in range(rows):
        for column in range(columns):
            tile = picture[
                int(2 + row * height) : int((row + 1) * height),
                int(2 + column * width) : int((column + 1) * width),
            ]
            colors = np.unique(tile[caption:].reshape(-1, 3), axis=0)
            assert len(colors) == 1
            found.append(None if (colors == 255).all() else tuple(colors[0].tolist()))
            if caption:
                assert (tile[:caption] < 128).any() == (found[-1] is not None)  # there is text above it
    return found


def plain_images(values, channels=1, size=8):
    return torch.tensor(values)[:, None, None, None].expand(-1, channels, size, size)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 32, 64])
def test_grid(tmp_path, channels, size):
    values = [0.1, 0.3, 0.5, 0.7, 0.9]
    grid_figure(tmp_path / "a.png", plain_images(values, channels, size), columns=3)
    assert tiles(tmp_path / "a.png", 3, 2) == [(int(256 * v),) * 3 for v in values] + [None]


def test_a_note_stands_above_all(tmp_path):
    images, log_prob = plain_images([0.1, 0.9, 0.5]), torch.tensor([1.0, 3.0, 2.0])
    sorted_figure(tmp_path / "plain.png", images, log_prob)
    sorted_figure(tmp_path / "noted.png", images, log_prob, note="by a log α that is not reliable, " * 4)
    plain, noted = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("plain", "noted"))
    head = len(noted) - len(plain)
    assert head >= 32 and (noted[head:] == plain).all()  # more words than a line holds
    assert all((noted[i : i + 16, :, 0] > noted[i : i + 16, :, 1]).any() for i in range(0, head, 16))


def test_colours_and_whole_numbers(tmp_path):
    image = torch.tensor([10, 20, 30], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 8, 8)
    grid_figure(tmp_path / "a.png", image)
    assert tiles(tmp_path / "a.png", 1, 1) == [(10, 20, 30)]
    picture = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    grid_figure(tmp_path / "a.png", picture)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png"))[2:-2, 2:-2], picture[0].permute(1, 2, 0))


def test_sorted_by_density(tmp_path):
    values = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.2])
    sorted_figure(tmp_path / "a.png", plain_images(values.tolist()), values * 1000 - 500, columns=2)
    expected = [(int(256 * v),) * 3 for v in values.sort(descending=True).values.tolist()]
    assert tiles(tmp_path / "a.png", 2, 3, caption=16) == [*expected, None]
    unknown = torch.where(values > 0.6, torch.nan, values)  # the last of all
    sorted_figure(tmp_path / "a.png", plain_images(values.tolist()), unknown, columns=2)
    assert tiles(tmp_path / "a.png", 2, 3, caption=16) == [*expected[1:], expected[0], None]


def test_interpolation(tmp_path):
    strips = plain_images([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]).unflatten(0, (2, 3))
    interpolation_figure(tmp_path / "a.png", strips)
    assert tiles(tmp_path / "a.png", 3, 2) == [(int(256 * v),) * 3 for v in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)]


def test_refinement_pairs_before_and_after(tmp_path):
    before, after = plain_images([0.1, 0.2, 0.3]), plain_images([0.5, 0.6, 0.7])
    refinement_figure(tmp_path / "a.png", before, after, torch.arange(3), torch.arange(3), columns=2)
    expected = [0.1, 0.2, 0.5, 0.6, 0.3, None, 0.7, None]
    assert tiles(tmp_path / "a.png", 2, 4, caption=16) == [
        v if v is None else (int(256 * v),) * 3 for v in expected
    ]
