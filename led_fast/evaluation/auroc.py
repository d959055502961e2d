"""How well a score tells two sets apart."""

import torch
from torch import Tensor


def auroc(inside: Tensor, outside: Tensor) -> float:
    """Share of pairs in which the inside's score is the higher one, a tie counting half.

    The area under the receiver operating characteristic: 1 is perfect, ½ is chance, below ½ the outside
    scores higher.

    Args:
        inside: scores (n,), n ≥ 1; -inf is allowed, NaN is not.
        outside: scores (m,), m ≥ 1.

    Example:
        >>> import torch
        >>> from led_fast.evaluation import auroc
        >>> auroc(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 2.0]))
        0.875
    """
    if min(inside.numel(), outside.numel()) == 0 or bool(inside.isnan().any() | outside.isnan().any()):
        raise ValueError(
            f"auroc: inside and outside must hold a score or more each, none of them NaN, got "
            f"{inside.numel()} and {outside.numel()}"
        )
    ordered = outside.flatten().double().sort().values
    inside = inside.flatten().double()
    lower = torch.searchsorted(ordered, inside)
    not_higher = torch.searchsorted(ordered, inside, right=True)
    return ((lower + not_higher).double().mean() / (2 * len(ordered))).item()
