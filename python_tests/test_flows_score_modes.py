"""Samples with scores where no gradient is asked for: layers whose score rule differentiates do so all the same."""

import pytest
import torch
from layers import LAYERS, trained_like

from led_fast.flows import OneWayFlow, StandardNormal
from led_fast.ops import use_reference


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


ONE_BY_ONE = [
    "SoftReLU",
    "SoftReLU, learned",
    "Staircase",
    "Linear",
    "Linear, lu",
    "Linear, woodbury",
    "BatchNorm",
]


def layer_with_score(name: str):
    torch.manual_seed(0)
    layer, t = trained_like(name)
    score = torch.randn_like(t)
    return layer, t, score, layer.forward_with_score(t, score)


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_scores_are_compiled_in_one_graph(name):
    layer, t, score, wanted = layer_with_score(name)
    torch._dynamo.reset()
    found = torch.compile(layer.forward_with_score, fullgraph=True, backend="aot_eager")(t, score)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_scores_are_mapped(name):
    layer, t, score, wanted = layer_with_score(name)
    found = torch.vmap(layer.forward_with_score)(t[:, None], score[:, None])
    torch.testing.assert_close(tuple(part.squeeze(1) for part in found), wanted)


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_scores_of_the_reference(name):
    layer, t, score, wanted = layer_with_score(name)
    with use_reference():
        torch.testing.assert_close(layer.forward_with_score(t, score), wanted)


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_value_and_ladj_beside_a_score_have_tangents(name):
    layer, t, score, _ = layer_with_score(name)
    wanted = torch.func.jvp(layer, (t,), (score,))
    found = torch.func.jvp(lambda t: layer.forward_with_score(t, score)[:2], (t,), (score,))
    torch.testing.assert_close(found, wanted)
