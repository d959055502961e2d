"""Operators run on the device their inputs lie on, whichever is current."""

import pytest
import torch
from cuda_operators import DEVICE, all_operators, make_inputs, needs_cuda, values_and_gradients

pytestmark = needs_cuda


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs")
@all_operators
def test_second_device(operator):
    assert torch.cuda.current_device() == 0
    first = make_inputs(operator, torch.float32, torch.device("cuda", 0))
    second = make_inputs(operator, torch.float32, torch.device("cuda", 1))
    results = values_and_gradients(operator.function, second)
    assert all(result.device.index == 1 for result in results)
    assert torch.cuda.current_device() == 0
    wanted = values_and_gradients(operator.function, first)
    torch.testing.assert_close([r.cpu() for r in results], [w.cpu() for w in wanted])


@all_operators
def test_inputs_on_cpu_and_gpu_are_refused(operator):
    inputs = make_inputs(operator, torch.float32)
    if len(inputs) < 2:
        pytest.skip(f"{operator} has one tensor input")
    if DEVICE.type == "cpu":
        pytest.skip("needs a second device")
    with pytest.raises((RuntimeError, ValueError), match="device"):
        operator.function(inputs[0].cpu(), *inputs[1:])
