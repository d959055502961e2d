"""Operators run on the caller's stream, do not wait for the GPU, and can be captured in a CUDA graph."""

import pytest
import torch
from cuda_operators import (
    OPERATORS,
    all_operators,
    cotangents_of,
    make_inputs,
    needs_cuda,
    values_and_gradients,
)

pytestmark = needs_cuda

_CYCLES = (
    100_000_000  # some 50 ms: longer than a call's launches take, and than one on another stream would wait
)
# The others are PyTorch's factorisations of large matrices inside: MAGMA waits, and so cannot be captured.
without_waits = pytest.mark.parametrize("operator", [o for o in OPERATORS if not o.waits], ids=str)


@all_operators
def test_work_waits_for_earlier_work_on_its_stream(operator):
    wanted_inputs = make_inputs(operator, torch.float32)
    cotangents = cotangents_of(operator.function(*wanted_inputs))
    wanted = values_and_gradients(operator.function, wanted_inputs, cotangents)
    late = [torch.full_like(x, torch.nan) for x in wanted_inputs]
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(_CYCLES)
        for target, source in zip(late, wanted_inputs, strict=True):
            target.copy_(source)
        results = values_and_gradients(operator.function, late, cotangents)
    stream.synchronize()
    torch.testing.assert_close(results, wanted, rtol=0, atol=0)


@without_waits
def test_launches_do_not_wait_for_the_gpu(operator):
    inputs = make_inputs(operator, torch.float32)
    cotangents = cotangents_of(operator.function(*inputs))
    values_and_gradients(operator.function, inputs, cotangents)
    torch.cuda.synchronize()
    torch.cuda._sleep(_CYCLES)
    slept = torch.cuda.Event()
    slept.record()
    values_and_gradients(operator.function, inputs, cotangents)
    assert not slept.query(), f"{operator} waited for the GPU"
    torch.cuda.synchronize()


@without_waits
def test_cuda_graph(operator):
    inputs = make_inputs(operator, torch.float32)
    cotangents = cotangents_of(operator.function(*inputs))
    warm_up = torch.cuda.Stream()
    warm_up.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm_up):
        for _ in range(3):
            values_and_gradients(operator.function, inputs, cotangents)
    torch.cuda.current_stream().wait_stream(warm_up)

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = values_and_gradients(operator.function, inputs, cotangents)
    for x in inputs:  # the graph reads these tensors again
        x.mul_(0.5).add_(0.25)
    graph.replay()
    wanted = values_and_gradients(operator.function, inputs, cotangents)
    torch.testing.assert_close(results, wanted, rtol=0, atol=0)
