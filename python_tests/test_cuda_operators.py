"""Every operator on a GPU: accuracy in all dtypes, empty and very large inputs, reproducibility."""

import pytest
import torch
from cuda_operators import (
    DEVICE,
    FLOATING,
    OPERATORS,
    all_operators,
    as_tuple,
    assert_as_accurate,
    make_inputs,
    needs_cuda,
    truth,
    values_and_gradients,
)

import led_fast

pytestmark = needs_cuda
COMPILER = "inductor" if DEVICE.type == "cuda" else "aot_eager"  # which needs no compiler


def test_cuda_module_is_loaded():
    if DEVICE.type == "cpu":
        pytest.skip("the CPU needs no CUDA module")
    assert led_fast.cuda_error is None


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
@all_operators
def test_values_and_gradients(operator, dtype):
    if dtype not in operator.dtypes:
        pytest.skip(f"{operator} takes no {dtype}")
    inputs = make_inputs(operator, dtype)
    ours, plain = (values_and_gradients(f, inputs) for f in (operator.function, operator.reference))
    assert_as_accurate(operator, ours, plain, truth(operator, inputs))


@pytest.mark.parametrize("operator", [o for o in OPERATORS if o.alone], ids=str)
def test_kernels_alone(operator):
    """No library beside them: what compute-sanitizer can run in its time. Values are compared elsewhere."""
    for dtype in operator.dtypes:
        inputs = make_inputs(operator, dtype)
        assert all(x.isfinite().all() for x in values_and_gradients(operator.function, inputs))


@all_operators
def test_strided_inputs(operator):
    inputs = make_inputs(operator, torch.float32)
    strided = [x.repeat_interleave(2, -1)[..., ::2] for x in inputs]
    wanted = values_and_gradients(operator.function, inputs)
    torch.testing.assert_close(values_and_gradients(operator.function, strided), wanted)


@all_operators
def test_empty_inputs(operator):
    inputs = operator.empty_inputs()
    results = as_tuple(operator.function(*(x.to(DEVICE) for x in inputs)))
    wanted = as_tuple(operator.function(*inputs))
    torch.testing.assert_close([y.cpu() for y in results], list(wanted))


@all_operators
def test_every_run_gives_the_same_bits(operator, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)  # of convolutions in perpendicular_norm
    inputs = make_inputs(operator, torch.float32)
    first = values_and_gradients(operator.function, inputs)
    for _ in range(10):
        again = values_and_gradients(operator.function, inputs)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@all_operators
def test_double_backward(operator):
    inputs = [x.requires_grad_() for x in make_inputs(operator, torch.float64)]

    def second_gradients(function):
        outputs = as_tuple(function(*inputs))
        gradients = torch.autograd.grad([y.square().sum() for y in outputs], inputs, create_graph=True)
        return torch.autograd.grad([g.square().sum() for g in gradients], inputs)

    torch.testing.assert_close(second_gradients(operator.function), second_gradients(operator.reference))


@pytest.mark.parametrize("samples", [1, 3])
def test_soft_relu_beyond_32_bit_indices(samples):
    size = 2**31 // samples + 5
    if DEVICE.type == "cpu" or torch.cuda.mem_get_info()[0] < 20 * 2**30:
        pytest.skip("needs 20 GiB of free GPU memory")
    x = torch.empty(samples, size, dtype=torch.bfloat16, device=DEVICE).normal_()
    y, log_abs_det = led_fast.soft_relu(x)
    for part in (x.narrow(1, size - 1000, 1000), x.narrow(1, 0, 1000)):
        offset = (part.data_ptr() - x.data_ptr()) // x.element_size()
        torch.testing.assert_close(y.narrow(1, offset, 1000), led_fast.soft_relu(part.contiguous())[0])
    chunks = [led_fast.soft_relu(chunk.contiguous())[1].double() for chunk in x.split(2**28, dim=1)]
    torch.testing.assert_close(log_abs_det.double(), torch.stack(chunks).sum(0), rtol=1e-6, atol=0)


# Last, because it takes longest.
@all_operators
def test_compiled(operator):
    torch.compiler.reset()
    inputs = make_inputs(operator, torch.float32)
    compiled = torch.compile(operator.function, fullgraph=True, backend=COMPILER)
    wanted = values_and_gradients(operator.function, inputs)
    torch.testing.assert_close(values_and_gradients(compiled, inputs), wanted)
