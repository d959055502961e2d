"""AUROC, against a count of all pairs."""

import math

import pytest
import torch

from led_fast.evaluation import auroc


def test_auroc_counts_pairs():
    torch.manual_seed(0)
    inside, outside = torch.randint(0, 9, (60,)).double() + 2, torch.randint(0, 9, (41,)).double()
    inside[0] = outside[0] = -math.inf
    wins = (inside[:, None] > outside).double() + 0.5 * (inside[:, None] == outside)
    assert auroc(inside, outside) == pytest.approx(wins.mean().item(), abs=1e-12)
    assert auroc(outside, inside) == pytest.approx(1 - wins.mean().item(), abs=1e-12)


def test_auroc_of_nothing_or_of_nan():
    for bad in (torch.tensor([]), torch.tensor([math.nan])):
        with pytest.raises(ValueError, match="auroc: inside and outside must hold"):
            auroc(torch.zeros(3), bad)
