"""A start for generators of the paper's family, at which Eq. 8 holds and log q is nearly right (not in the paper)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from led_fast.flows import Linear, SoftReLU

_SAMPLES = 4096


@torch.no_grad()
def start_near_identity(
    blocks: Sequence[tuple[Linear, SoftReLU]], last: Linear, dim: int, slices: Sequence[tuple[int, int]] = ()
) -> None:
    """Starts {linear, soft-ReLU} blocks and a last linear layer near the map for which Eq. 8 is true.

    Their input is standard normal: D coordinates of the latent space, then noise. Each linear layer turns the D
    coordinates among themselves and leaves the noise alone, with pre-activations of mean 0 and variance 1; and the
    noise's soft-ReLUs are straight lines. The last layer is the least squares' way from the activations back to
    the input. After it, what a slice drops takes up what it keeps, `t_j = η_j + t_i`, so that `r(t_j | t_i)` of Eq. 8,
    N(t_j; t_i, 1), is as right as the way back.

    The input is drawn here, from torch's global generator, so that processes of one seed start alike.

    Args:
        blocks: dense linear layers of F features, each with the learned soft-ReLU behind it.
        last: the dense linear layer behind them.
        dim: D, at most F.
        slices: of Eq. 8, as (width, how many of them are kept), in their order; the last one keeps D.

    Example:
        >>> import torch
        >>> from led_fast.flows import Linear, SoftReLU
        >>> blocks, last = [(Linear(3), SoftReLU(features=3, learned=True)) for _ in range(2)], Linear(3)
        >>> start_near_identity(blocks, last, 2, [(3, 2)])
        >>> t = torch.randn(100, 3)
        >>> y = t
        >>> for layer in (*blocks[0], *blocks[1], last):
        ...     y, _ = layer(y)
        >>> bool((y[:, :2] - t[:, :2]).square().mean() < 0.1)
        True
    """
    features, weight = last.features, last.weight
    samples = max(_SAMPLES, 8 * features)
    t = latent = torch.randn(samples, features, dtype=weight.dtype, device=weight.device)
    for linear, activation in blocks:
        nn.init.eye_(linear.weight)
        nn.init.orthogonal_(linear.weight[:dim, :dim])
        var, mean = torch.var_mean(t @ linear.weight.mT, 0)
        linear.weight.div_(var.sqrt()[:, None])
        linear.bias.copy_(-mean / var.sqrt())
        activation.log_ratio[dim:] = 0
        t = activation(linear(t)[0])[0]
    way_back = _least_squares(t, latent)
    for width, keep in reversed(slices):
        way_back[:, keep:width] += way_back[:, : width - keep]
    last.weight.copy_(way_back[:-1].mT)
    last.bias.copy_(way_back[-1])


def _least_squares(t: Tensor, target: Tensor) -> Tensor:
    """The affine map from rows of t to rows of the target: matrix (F, F), and below it the shift."""
    rows = torch.cat([t, torch.ones_like(t[:, :1])], 1)
    return torch.linalg.lstsq(rows.double(), target.double()).solution
