"""The staircase's own conduct, where steps are steep."""

import torch

from led_fast.flows import Staircase
from led_fast.nn import SoftReLU


def test_staircase_steepness_is_capped():
    layer = Staircase(2)
    torch.nn.init.constant_(layer.log_steepness, 10.0)
    out, ladj = layer(torch.randn(100, 2))
    assert out.isfinite().all() and ladj.isfinite().all()
    torch.testing.assert_close(layer.steps_in_use()[2].amax(), torch.tensor(9.0).exp())


def test_steep_stairs_far_out():
    layer = Staircase(1, steps=3).double()
    with torch.no_grad():
        layer.log_steepness.fill_(6.0)
        layer.log_heights.fill_(1.0)
    t = torch.linspace(-50, 50, 1001, dtype=torch.float64)[:, None]
    torch.testing.assert_close(layer.inverse(layer(t)[0])[0], t, rtol=1e-7, atol=1e-7)


def test_scores_in_inference_mode():
    t, score = torch.randn(4, 3), torch.randn(4, 3)
    for layer in (Staircase(3), SoftReLU(), SoftReLU(features=3, learned=True)):
        wanted = layer.forward_with_score(t, score)[2]
        with torch.inference_mode():
            found = layer.forward_with_score(t + 0, score)[2]
        torch.testing.assert_close(found.clone(), wanted)
