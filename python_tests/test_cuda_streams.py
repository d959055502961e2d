"""Operators run on the caller's stream, and can be captured in a CUDA graph."""

import torch
from cuda_operators import all_operators, as_tuple, make_inputs, needs_cuda, values_and_gradients

pytestmark = needs_cuda

_CYCLES = 50_000_000  # some 30 ms: longer than any launch on another stream would wait


@all_operators
def test_work_waits_for_earlier_work_on_its_stream(operator):
    wanted_inputs = make_inputs(operator, torch.float32)
    wanted = values_and_gradients(operator.function, wanted_inputs)
    late = [torch.full_like(x, torch.nan) for x in wanted_inputs]
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(_CYCLES)
        for target, source in zip(late, wanted_inputs, strict=True):
            target.copy_(source)
        results = values_and_gradients(operator.function, late)
    stream.synchronize()
    torch.testing.assert_close(results, wanted, rtol=0, atol=0)


@all_operators
def test_launches_do_not_wait_for_the_gpu(operator):
    inputs = make_inputs(operator, torch.float32)
    operator.function(*inputs)
    torch.cuda.synchronize()
    torch.cuda._sleep(_CYCLES)
    slept = torch.cuda.Event()
    slept.record()
    operator.function(*inputs)
    assert not slept.query(), f"{operator} waited for the GPU"
    torch.cuda.synchronize()


@all_operators
def test_cuda_graph(operator):
    inputs = make_inputs(operator, torch.float32)
    warm_up = torch.cuda.Stream()
    warm_up.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm_up):
        for _ in range(3):
            values_and_gradients(operator.function, inputs)
    torch.cuda.current_stream().wait_stream(warm_up)

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = as_tuple(operator.function(*inputs))
    for x in inputs:  # the graph reads these tensors again
        x.mul_(0.5).add_(0.25)
    graph.replay()
    wanted = as_tuple(operator.function(*inputs))
    torch.testing.assert_close(results, wanted, rtol=0, atol=0)
