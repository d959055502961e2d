"""What all pictures share: colours that colour-blind readers can tell apart, fonts, axes of the plane."""

from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from led_fast.files import replacing

COLORMAP = "magma"  # of densities; perceptually uniform
BLUE, VERMILION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#767676"  # Okabe and Ito's
STYLE: Any = {"font.size": 9, "axes.titlesize": 10, "axes.linewidth": 0.6, "legend.frameon": False}

Window = tuple[float, float, float, float]  # left, right, bottom, top


def window_around(points: Tensor) -> Window:
    """A window around points, a quarter wider than they are; one unit along an axis that they do not spread over."""
    low, high = points.double().min(0).values, points.double().max(0).values
    pad = torch.where(high > low, (high - low) / 8, 0.5)
    (left, bottom), (right, top) = (low - pad).tolist(), (high + pad).tolist()
    return left, right, bottom, top


def scatter(axes: Axes, points: Tensor, window: Window, title: str) -> None:
    """Points (n, 2) as dots; those outside the window are cut off."""
    axes.plot(*points.numpy().T, ".", color=BLUE, markersize=3, alpha=0.6, markeredgewidth=0)
    axes.set(title=title, xlim=window[:2], ylim=window[2:], box_aspect=1)


def write_figure(figure: Figure, path: Path) -> None:
    """Writes a picture, whole or not at all, in the format that its name ends in."""
    with replacing(path) as file:
        figure.savefig(file)


def add_note(figure: Figure, note: str) -> None:
    """A line over the whole figure, for what a reader must not miss; nothing where it is empty."""
    if note:
        figure.suptitle(note, color=VERMILION, fontsize=10)
