"""The learned density in log scale, beside the truth and the samples."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from torch import Tensor

from led_fast.data import GaussianMixture
from led_fast.figures.style import BLUE, COLORMAP, STYLE, Window, scatter, window_around, write_figure

DEPTH = 20.0  # nats below the highest density that the colours reach
_PIXELS = 400

LogDensity = Callable[[Tensor], Tensor]


def density_figure(
    path: Path,
    log_density: LogDensity,
    truth: GaussianMixture | None,
    data: Tensor,
    samples: dict[str, Tensor],
) -> None:
    """Writes a PNG of the densities (first row) over the points (second row).

    Args:
        path: the file to write.
        log_density: the learned log density of points (B, 2), in nats; (B,).
        truth: the exact density, None where it is unknown.
        data: points of the training distribution, (n, 2).
        samples: two sets of draws by title, (n, 2) each.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from led_fast.data import ring
        >>> from led_fast.figures import density_figure
        >>> truth, path = ring(), Path(tempfile.mkdtemp()) / "density.png"
        >>> samples = {"generator": truth.sample(500), "refined": truth.sample(500)}
        >>> density_figure(path, truth.log_prob, truth, truth.sample(500), samples)
        >>> path.exists()
        True
    """
    window = window_around(data if truth is None else truth.centers)
    columns = 2 if truth is None else 3
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * columns, 7.2), dpi=160, layout="constrained")
        densities, points = figure.subplots(2, columns)
        learned = on_pixels(log_density, window)
        top = learned.max().item()
        if truth is None:
            learned_axes, data_axes = densities
            sample_axes = points
        else:
            truth_axes, learned_axes, section_axes = densities
            data_axes, *sample_axes = points
            exact = on_pixels(truth.log_prob, window)
            top = exact.max().item()
            heat_map(truth_axes, exact, window, top, r"true density, $\log p^*(x)$ / nats")
            _sections(section_axes, log_density, truth)
        image = heat_map(learned_axes, learned, window, top, r"learned density, $\log p_\theta(x)$ / nats")
        scale = learned_axes.inset_axes((1.03, 0, 0.04, 1))
        figure.colorbar(image, cax=scale, extend="min", ticks=MultipleLocator(5)).ax.tick_params(labelsize=7)
        scatter(data_axes, data, window, "data")
        for axes, (title, drawn) in zip(sample_axes, samples.items(), strict=True):
            scatter(axes, drawn, window, title)
        write_figure(figure, path)


def sample_figure(path: Path, points: Tensor, log_density: LogDensity) -> None:
    """Writes a PNG of points (n, 2), coloured by their log density in nats, the densest in front.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from led_fast.data import ring
        >>> from led_fast.figures import sample_figure
        >>> path = Path(tempfile.mkdtemp()) / "samples.png"
        >>> sample_figure(path, ring().sample(500), ring().log_prob)
        >>> path.exists()
        True
    """
    values = in_chunks(log_density, points)
    order = values.argsort()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 4.6), dpi=160, layout="constrained")
        axes = figure.subplots()
        top = values.max().item()
        dots = axes.scatter(
            points[order, 0].numpy(),
            points[order, 1].numpy(),
            c=values[order].numpy(),
            s=3,
            cmap="viridis",
            vmin=top - DEPTH,
            vmax=top,
            lw=0,
        )
        window = window_around(points)
        axes.set(title=f"{len(points)} samples", xlim=window[:2], ylim=window[2:], box_aspect=1)
        figure.colorbar(dots, label=r"$\log p_\theta(x)$ / nats", extend="min", shrink=0.8)
        write_figure(figure, path)


@torch.no_grad()
def in_chunks(log_density: LogDensity, points: Tensor) -> Tensor:
    """Values at points (n, 2), some at a time; (n,) float64."""
    return torch.cat([log_density(chunk).double() for chunk in points.float().split(16384)])


def on_pixels(log_density: LogDensity, window: Window, side: int = _PIXELS) -> Tensor:
    """Values at the centres of side x side pixels of a window, rows from bottom to top."""
    left, right, bottom, top = window
    center = (torch.arange(side, dtype=torch.float64, device="cpu") + 0.5) / side
    y, x = torch.meshgrid(bottom + (top - bottom) * center, left + (right - left) * center, indexing="ij")
    return in_chunks(log_density, torch.stack([x, y], dim=-1).reshape(-1, 2)).reshape(side, side)


def heat_map(axes: Axes, values: Tensor, window: Window, top: float, title: str) -> Any:
    """Draws values at the pixels of a window, `top` nats the brightest; returns matplotlib's image."""
    axes.set(title=title, box_aspect=1)
    return axes.imshow(
        values.numpy(),
        origin="lower",
        extent=window,
        aspect="auto",
        interpolation="none",
        cmap=COLORMAP,
        vmin=top - DEPTH,
        vmax=top,
    )


def _sections(axes: Axes, log_density: LogDensity, truth: GaussianMixture) -> None:
    """Log density along a horizontal line through every mode, under the one curve that all should be."""
    offset = torch.linspace(-8, 8, 321, dtype=torch.float64, device="cpu")
    line = torch.stack([offset * truth.std, torch.zeros_like(offset)], dim=1)
    for i, center in enumerate(truth.centers):
        label = f"learned, {len(truth.centers)} modes" if i == 0 else None
        values = in_chunks(log_density, center + line).numpy()
        axes.plot(offset.numpy(), values, color=BLUE, lw=0.6, alpha=0.6, label=label)
    exact = truth.log_prob(truth.centers[0] + line).numpy()
    axes.plot(offset.numpy(), exact, color="black", linestyle=(0, (4, 3)), linewidth=1.2, label="true")
    axes.set(
        xlim=(-8, 8), xticks=range(-8, 9, 2), ylim=(exact.max() - 1.5 * DEPTH, exact.max() + 2), box_aspect=1
    )
    axes.set(title="sections through the modes / nats", xlabel="distance from the centre / σ")
    axes.legend(loc="lower center")
