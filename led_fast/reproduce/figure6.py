"""Figure 6: the soft-ReLU and its derivative."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from led_fast.figures.activation import activation_figure
from led_fast.ops import soft_relu
from led_fast.reproduce.cell import Cell, Finished
from led_fast.reproduce.experiment import Experiment

ALPHA, BETA = 5.8, 1.0  # as printed


def cells(seeds: int, quick: bool) -> list[Cell]:
    """One check of the derivative against autograd; takes no time, so quick is no shorter."""
    return [Cell("activation", check_derivative, {"alpha": ALPHA, "beta": BETA})]


def check_derivative(folder: Path, alpha: float, beta: float) -> dict[str, Any]:
    """Largest relative error of the operator's derivative against autograd's, in float64 on [-10, 10]."""
    u = torch.linspace(-10, 10, 2001, dtype=torch.float64, device="cpu")[:, None].requires_grad_()
    value, log_derivative = soft_relu(u, alpha, beta)
    (slope,) = torch.autograd.grad(value.sum(), u)
    error = (log_derivative.exp() / slope[:, 0] - 1).abs().max().item()
    return {"largest_relative_error": error, "slope_left": slope[0].item(), "slope_right": slope[-1].item()}


def markdown(content: dict[str, Any]) -> str:
    """One sentence."""
    result = content["cells"]["activation"]["result"]
    return (
        f"Slope {result['slope_left']:.4f} far left (β/α = {BETA / ALPHA:.4f}), {result['slope_right']:.4f} far right; "
        f"the operator's derivative is within {result['largest_relative_error']:.0e} of autograd's.\n"
    )


def draw(path: Path, results: Sequence[Finished], note: str) -> None:
    """The function and its derivative."""
    activation_figure(path, ALPHA, BETA)


FIGURE_6 = Experiment("Figure 6: the activation and its derivative", 0, cells, markdown, draw)
