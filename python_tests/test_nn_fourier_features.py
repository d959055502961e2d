"""Fourier features of the critic."""

import math

import pytest
import torch

from led_fast.nn import FourierFeatures


def test_features_are_sines_and_cosines():
    layer, x = FourierFeatures(2, directions=5), torch.randn(3, 7, 2)
    out = layer(x)
    assert out.shape == (3, 7, 12) == (3, 7, layer.out_features)
    phase = x @ layer.projection
    torch.testing.assert_close(out, torch.cat([x, phase.sin(), phase.cos()], -1))


@pytest.mark.parametrize("features", [1, 2, 3])
def test_frequencies_span_the_range_evenly(features):
    layer = FourierFeatures(features, directions=64, lowest=0.5, highest=30.0)
    log_length = layer.projection.norm(dim=0).log()
    gaps = log_length.diff()
    torch.testing.assert_close(gaps, torch.full_like(gaps, math.log(60) / 64), atol=1e-4, rtol=0)
    assert math.log(0.5) < log_length.min() and log_length.max() < math.log(30)


def test_every_octave_of_the_plane_sees_every_direction():
    layer = FourierFeatures(2, directions=128)
    angle = torch.atan2(layer.projection[1], layer.projection[0])
    for octave in angle.split(22):
        ordered = octave.sort().values
        wrapped = torch.cat([ordered, ordered[:1] + math.pi]).diff()
        assert wrapped.max() < 2.5 * math.pi / 22


def test_bad_frequencies():
    with pytest.raises(ValueError, match=r"0 < lowest <= highest must hold, got 3\.0 and 1\.0"):
        FourierFeatures(2, lowest=3.0, highest=1.0)
