"""The Fréchet distance between two sets of features."""

import torch
from torch import Tensor


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared Fréchet (2-Wasserstein) distance of the Gaussians with the two sets' means and covariances.

    `‖μ_a - μ_b‖² + tr(Σ_a) + tr(Σ_b) - 2 tr((Σ_a^½ Σ_b Σ_a^½)^½)` (Dowson and Landau 1982; Heusel et al. 2017).
    The product under the root is symmetric, so that eigenvalues give it without the complex rounding errors of
    a root of Σ_a Σ_b. The estimate from n samples is biased up, the more, the fewer and the wider they are:
    compare with a distance between real images of the same numbers.

    Args:
        a: features (n, d), n ≥ 2.
        b: features (m, d), m ≥ 2.

    Example:
        >>> import torch
        >>> from led_fast.evaluation import frechet_distance
        >>> features = torch.randn(100, 3, dtype=torch.float64)
        >>> round(frechet_distance(features, features + 2), 6)  # a shift by 2 in three directions
        12.0
    """
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"frechet_distance: a and b must have shapes (n, d) and (m, d), n and m at least 2, got {tuple(a.shape)} "
            f"and {tuple(b.shape)}"
        )
    a, b = a.double(), b.double()
    cov_a, cov_b = (torch.atleast_2d(torch.cov(x.T)) for x in (a, b))
    values, vectors = torch.linalg.eigh(cov_a)
    root_a = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root_a @ cov_b @ root_a).clamp(min=0).sqrt().sum()
    shift = (a.mean(0) - b.mean(0)).square().sum()
    return (shift + cov_a.trace() + cov_b.trace() - 2 * cross).clamp(min=0).item()  # below 0 by rounding
