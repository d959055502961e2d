"""Steps of a flow, and what keeps them from building each other up."""

from dataclasses import replace

import pytest
import torch
from flow_oracles import randomize

from led_fast.flows import Coupling, OneWayFlow, StandardNormal, Unflatten
from led_fast.models import IMAGE_PRESETS, ImageGeneratorConfig, ImagePreset, image_generator
from led_fast.models.flow_steps import Limits, PlacedNetwork, coupling_by_place, flow_steps
from led_fast.models.multiscale_generator import multiscale_layers

FAR = 1e4


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_a_network_sees_no_more_than_its_reach():
    network = randomize(PlacedNetwork(2, 4, 4, 8, reach=3.0))
    far = FAR * torch.randn(5, 2, 4, 4)
    torch.testing.assert_close(network(far), network(1e3 * far))
    near = 1e-3 * torch.randn(5, 2, 4, 4)
    unlimited = PlacedNetwork(2, 4, 4, 8)
    unlimited.load_state_dict(network.state_dict())
    torch.testing.assert_close(network(near), unlimited(near))
    assert (unlimited(far) - network(far)).abs().max() > 100


def test_a_coupling_has_the_limits_of_its_steps():
    coupling = coupling_by_place(4, 4, 8, True, Limits(log_scale=0.7, reach=2.0))
    assert (coupling.bound, coupling.network.reach) == (0.7, 2.0)
    couplings = flow_steps(3, 4, 4, 8, 1, Limits(0.7, 2.0))[2::3]
    assert [(c.bound, c.network.reach) for c in couplings] == [(0.7, 2.0)] * 3


def test_all_couplings_of_several_scales_are_limited():
    _, layers = multiscale_layers((3, 8, 8), (2, 1), 8, 1, Limits(1.0, 3.0))
    couplings = [layer for layer in layers if type(layer).__name__ == "Coupling"]
    assert len(couplings) == 4
    assert all(c.bound == 1.0 and c.network.reach == 3.0 for c in couplings)


@pytest.mark.parametrize("preset", ["color32", "color64"])
def test_limits_are_the_presets_and_by_default_those_of_runs_before(preset):
    config = IMAGE_PRESETS[preset].generator
    assert (config.coupling_log_scale, config.coupling_reach) == (1.0, 3.0)
    assert (ImageGeneratorConfig().coupling_log_scale, ImageGeneratorConfig().coupling_reach) == (2.0, None)


@pytest.mark.parametrize(
    "config",
    [
        ImageGeneratorConfig(
            scale_steps=(1,), coupling_width=4, kernel_size=1, activation="learned_soft_relu"
        ),
        ImageGeneratorConfig(local_steps=1, coupling_width=0, latent=4, grid=2, blocks=0),
    ],
    ids=["several scales", "local steps"],
)
def test_limits_of_a_config_are_those_of_its_steps(config):
    limited = replace(config, coupling_log_scale=0.5, coupling_reach=2.0)
    for given, wanted in [(config, (2.0, None)), (limited, (0.5, 2.0))]:
        flow = image_generator(ImagePreset((3, 8, 8), given))
        (coupling,) = (m for m in flow.modules() if isinstance(m, Coupling))
        assert (coupling.bound, coupling.network.reach) == wanted


def test_with_a_reach_steps_do_not_build_each_other_up():
    farthest = []
    for reach in (None, 3.0):
        torch.manual_seed(0)
        steps = flow_steps(12, 4, 4, 16, 1, Limits(0.2, reach))
        for coupling in steps[2::3]:
            randomize(coupling.network, 0.3)
        flow = OneWayFlow(StandardNormal(64), [Unflatten(4, 4, 4), *steps[::-1]])
        farthest.append(flow.sample(500).abs().max().item())
    assert farthest[1] < 1e-2 * farthest[0]
