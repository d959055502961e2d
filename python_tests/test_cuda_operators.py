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
    values_and_gradients,
)

import led_fast

pytestmark = needs_cuda


def test_cuda_module_is_loaded():
    assert led_fast.cuda_error is None


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
@all_operators
def test_values_and_gradients(operator, dtype):
    if dtype not in operator.dtypes:
        pytest.skip(f"{operator} takes no {dtype}")
    inputs = make_inputs(operator, dtype)
    exact = values_and_gradients(operator.reference, [x.double() for x in inputs])
    plain = values_and_gradients(operator.reference, inputs)
    assert_as_accurate(values_and_gradients(operator.function, inputs), plain, exact)


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
def test_every_run_gives_the_same_bits(operator):
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


@pytest.mark.parametrize("operator", {str(o).split()[0]: o for o in OPERATORS}.values(), ids=str)
def test_compiled(operator):
    inputs = make_inputs(operator, torch.float32)
    compiled = torch.compile(operator.function, fullgraph=True)
    torch.testing.assert_close(compiled(*inputs), operator.function(*inputs))


@pytest.mark.parametrize("samples", [1, 3])
def test_soft_relu_beyond_32_bit_indices(samples):
    size = 2**31 // samples + 5
    if torch.cuda.mem_get_info()[0] < 20 * 2**30:
        pytest.skip("needs 20 GiB of free GPU memory")
    x = torch.empty(samples, size, dtype=torch.bfloat16, device=DEVICE).normal_()
    y, log_abs_det = led_fast.soft_relu(x)
    for part in (x.narrow(1, size - 1000, 1000), x.narrow(1, 0, 1000)):
        offset = (part.data_ptr() - x.data_ptr()) // x.element_size()
        torch.testing.assert_close(y.narrow(1, offset, 1000), led_fast.soft_relu(part.contiguous())[0])
    chunks = [led_fast.soft_relu(chunk.contiguous())[1].double() for chunk in x.split(2**28, dim=1)]
    torch.testing.assert_close(log_abs_det.double(), torch.stack(chunks).sum(0), rtol=1e-6, atol=0)
