"""Pictures of pictures: grids of samples, in order of their density, along a path, before and after."""

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from led_fast.data.images import quantize
from led_fast.files import replacing

_TILE = 64  # pixels, at least, of a magnified image without a caption
_CAPTIONED_TILE = 96
_GAP = 2
_CAPTION = 16  # pixels above a tile
_FONT_SIZE = 11


def grid_figure(path: Path, images: Tensor, columns: int = 10) -> None:
    """Writes a PNG of images, row by row.

    Args:
        path: the file to write.
        images: (n, C, H, W), n ≥ 1, C is 1 or 3, floating point in [0, 1] or uint8.
        columns: images a row.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from led_fast.figures import grid_figure
        >>> path = Path(tempfile.mkdtemp()) / "grid.png"
        >>> grid_figure(path, torch.rand(20, 1, 8, 8))
        >>> path.exists()
        True
    """
    _write(_mosaic(images.split(columns)), path)


def sorted_figure(path: Path, images: Tensor, log_prob: Tensor, columns: int = 10, note: str = "") -> None:
    """Writes a PNG of images from the densest to the least dense, the log density in nats above each.

    Args:
        path: the file to write.
        images: as for `grid_figure`.
        log_prob: their log densities, (n,).
        columns: images a row.
        note: text above all of them.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from led_fast.figures import sorted_figure
        >>> path = Path(tempfile.mkdtemp()) / "sorted.png"
        >>> sorted_figure(path, torch.rand(20, 1, 32, 32), log_prob=torch.randn(20))
        >>> path.exists()
        True
    """
    order = (-log_prob).argsort(stable=True)  # NaN last
    captions = [[f"{value:.0f}" for value in row.tolist()] for row in log_prob[order].split(columns)]
    _write(_mosaic(images[order.to(images.device)].split(columns), captions, note), path)


def interpolation_figure(path: Path, strips: Tensor) -> None:
    """Writes a PNG with one path from image to image in each row.

    Args:
        path: the file to write.
        strips: (rows, steps, C, H, W), values as for `grid_figure`.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from led_fast.figures import interpolation_figure
        >>> path = Path(tempfile.mkdtemp()) / "walk.png"
        >>> interpolation_figure(path, torch.rand(3, 8, 1, 8, 8))
        >>> path.exists()
        True
    """
    _write(_mosaic(list(strips)), path)


def refinement_figure(
    path: Path, before: Tensor, after: Tensor, before_score: Tensor, after_score: Tensor, columns: int = 8
) -> None:
    """Writes a PNG of images above their refined versions, each with its score.

    Args:
        path: the file to write.
        before: as for `grid_figure`.
        after: what became of each, of the same shape.
        before_score: the critic's values f(x), (n,), in nats.
        after_score: the same for `after`.
        columns: images a row.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from led_fast.figures import refinement_figure
        >>> path = Path(tempfile.mkdtemp()) / "refined.png"
        >>> refinement_figure(path, torch.rand(8, 1, 32, 32), torch.rand(8, 1, 32, 32), torch.zeros(8), torch.ones(8))
        >>> path.exists()
        True
    """
    parts = (("before", before, before_score), ("after", after, after_score))
    rows, captions = [], []
    for start in range(0, len(before), columns):
        for title, images, scores in parts:
            rows.append(images[start : start + columns])
            captions.append([f"{title} {score:.0f}" for score in scores[start : start + columns].tolist()])
    _write(_mosaic(rows, captions), path)


def _write(picture: Image.Image, path: Path) -> None:
    with replacing(path) as file:
        picture.save(file)


def _mosaic(
    rows: Sequence[Tensor], captions: Sequence[Sequence[str]] | None = None, note: str = ""
) -> Image.Image:
    """Rows of magnified images on white, with a line of text above each if there are captions."""
    height, width = rows[0].shape[-2:]
    scale = max(1, -(-(_CAPTIONED_TILE if captions else _TILE) // width))
    top = _CAPTION if captions else 0
    step_x, step_y = scale * width + _GAP, scale * height + _GAP + top
    font = ImageFont.truetype(findfont("DejaVu Sans"), _FONT_SIZE)  # Pillow's own has no Greek
    full_width = max(map(len, rows)) * step_x + _GAP
    lines = _wrapped(note, full_width, font)
    head = len(lines) * _CAPTION
    canvas = Image.new("RGB", (full_width, head + len(rows) * step_y + _GAP), "white")
    draw = ImageDraw.Draw(canvas)
    for i, line in enumerate(lines):
        draw.text((_GAP, i * _CAPTION + _CAPTION // 2), line, fill="red", font=font, anchor="lm")
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            x, y = _GAP + column * step_x, head + _GAP + row * step_y
            canvas.paste(
                _tile(image).resize((scale * width, scale * height), Image.Resampling.NEAREST), (x, y + top)
            )
            if captions:
                center = (x + scale * width // 2, y + top // 2)
                draw.text(center, captions[row][column], fill="black", font=font, anchor="mm")
    return canvas


def _wrapped(note: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """The words of a note in lines that fit."""
    lines: list[str] = []
    for word in note.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width - 2 * _GAP:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _tile(image: Tensor) -> Image.Image:
    pixels = image if image.dtype == torch.uint8 else quantize(image)
    return Image.fromarray(pixels.cpu().expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())
