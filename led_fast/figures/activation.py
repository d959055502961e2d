"""The soft-ReLU and its derivative (the paper's Figure 6)."""

from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure

from led_fast.figures.style import BLUE, STYLE, VERMILION, write_figure
from led_fast.ops import soft_relu


def activation_figure(path: Path, alpha: float, beta: float) -> None:
    """Writes a PNG of the function and of the exponential of its log-derivative, as the operator gives them."""
    u = torch.linspace(-3, 3, 601, dtype=torch.float64, device="cpu")
    value, log_derivative = soft_relu(u[:, None], alpha, beta)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 3.2), dpi=110, layout="constrained")
        axes = figure.subplots()
        axes.axhline(0, color="black", lw=0.4)
        axes.axvline(0, color="black", lw=0.4)
        axes.plot(u, value[:, 0], color=BLUE, label="soft-ReLU $L(u)$")
        axes.plot(u, log_derivative.exp(), color=VERMILION, linestyle="--", label="derivative $L'(u)$")
        axes.set(xlabel="$u$", xlim=(-3, 3), title=rf"$\alpha = {alpha:g}$, $\beta = {beta:g}$")
        axes.annotate(f"slope β/α = {beta / alpha:.3f}", (-2.9, beta / alpha + 0.08), fontsize=8)
        axes.legend(loc="upper left")
        write_figure(figure, path)
