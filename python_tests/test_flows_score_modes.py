"""Samples with scores where no gradient is asked for: layers whose score rule differentiates do so all the same."""

import pytest
import torch
from layers import LAYERS, trained_like

from led_fast.flows import OneWayFlow, StandardNormal


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", LAYERS)
def test_scores_are_the_same_without_gradients(name, mode):
    torch.manual_seed(0)
    layer, _ = trained_like(name)
    flow = OneWayFlow(StandardNormal(*LAYERS[name].shape).double(), [layer]).eval()
    torch.manual_seed(1)
    wanted = flow.rsample_with_score(3)
    torch.manual_seed(1)
    with mode():
        found = flow.rsample_with_score(3)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
