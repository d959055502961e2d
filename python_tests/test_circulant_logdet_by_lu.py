"""The circulant log-determinant by PyTorch's factorisation, which the CPU takes where it is told to."""

import importlib
import math
import weakref

import pytest
import torch
from long_double import exact_logdet, needs_long_double
from torch.utils._python_dispatch import TorchDispatchMode

import led_fast
from led_fast import reference
from led_fast.ops import _circulant_logdet_by_lu as by_lu

_op = torch.ops.led_fast


@pytest.fixture(autouse=True)
def _forced(monkeypatch):
    module = importlib.import_module("led_fast.ops.circulant_logdet")
    monkeypatch.setattr(module, "_exceeds_kernels", lambda *_: True)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(by_lu, "_CHUNK_ELEMENTS", 400)


def random_weight(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) / shape[-3] ** 0.5).to(dtype)


def gradient(function, weight: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    weight = weight.detach().requires_grad_()
    return torch.autograd.grad(function(weight, grid).sum(), weight)[0]


@pytest.mark.parametrize(
    "grid", [(1, 1), (1, 6), (7, 1), (2, 2), (3, 5), (4, 4), (4, 7), (6, 3), (9, 14)], ids=str
)
@pytest.mark.parametrize("kernel", [(1, 1), (2, 2), (3, 3), (1, 4), (5, 2)], ids=str)
def test_equals_the_reference(grid, kernel, small_chunks):
    weight = random_weight(2, 5, 5, *kernel)
    with torch.no_grad():
        value = led_fast.circulant_logdet(weight, grid)
    kept = led_fast.circulant_logdet(weight.clone().requires_grad_(), grid)
    wanted = reference.circulant_logdet(weight, grid)
    torch.testing.assert_close(value, wanted, rtol=1e-11, atol=1e-10)
    torch.testing.assert_close(kept, wanted, rtol=1e-11, atol=1e-10)
    wanted = gradient(reference.circulant_logdet, weight, grid)
    torch.testing.assert_close(
        gradient(led_fast.circulant_logdet, weight, grid), wanted, rtol=1e-9, atol=1e-9
    )


@needs_long_double
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("cancelling", [False, True])
def test_is_as_accurate_as_plain_pytorch(dtype, cancelling):
    """By the truth in long double: medians over weights, whose log-determinants are next to nothing if cancelling."""
    grid, errors = (3, 4), []
    for seed in range(12):
        torch.manual_seed(seed)
        weight = torch.randn(24, 24, 3, 3, dtype=torch.float64) / (9 * 24) ** 0.5
        if cancelling:
            weight[:, :, 1, 1] += 2 * torch.eye(24, dtype=torch.float64)
            weight *= (-reference.circulant_logdet(weight, grid) / (12 * 24)).exp()
        weight = weight.to(dtype)
        exact, exact_gradient = exact_logdet(weight, grid)
        for function in (led_fast.circulant_logdet, reference.circulant_logdet):
            off = gradient(function, weight, grid).double().numpy() - exact_gradient
            errors.append(abs(float(function(weight, grid).double().numpy() - exact)))
            errors.append(float((off**2).sum() / (exact_gradient**2).sum()) ** 0.5)
    ours, ours_gradient, plain, plain_gradient = torch.tensor(errors).view(-1, 4).median(0).values
    eps = torch.finfo(dtype).eps
    assert ours <= 2 * plain + eps * max(abs(float(exact)), 1)
    assert ours_gradient <= 2 * plain_gradient + eps


class LiveBytes(TorchDispatchMode):
    """The most bytes that tensors made within it held at once."""

    def __init__(self):
        super().__init__()
        self.live, self.peak, self.known = 0, 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in torch.utils._pytree.tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self._count(value.untyped_storage())
        return result

    def _count(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key, size):
        self.known.discard(key)
        self.live -= size


def test_only_a_chunk_of_the_symbols_is_in_memory(monkeypatch):
    chunk = 1 << 16
    monkeypatch.setattr(by_lu, "_CHUNK_ELEMENTS", chunk)
    weight = random_weight(32, 32, 3, 3, dtype=torch.float32)
    bound = 4 * 8 * chunk + 8 * weight.nbytes
    for function in (by_lu.value, by_lu.value_and_gradient):
        with LiveBytes() as memory:
            function(weight, 32, 32)
        assert 8 * chunk < memory.peak < bound
        assert bound < 514 * 32 * 32 * 8  # the symbols


def test_chunks_are_balanced():
    assert [by_lu.balanced(514, most) for most in (256, 512, 513, 514, 1000, 1)] == [
        172,
        257,
        257,
        514,
        514,
        1,
    ]


def test_a_symbol_that_is_singular_by_cancellation_alone():
    """Frequencies of exact quarter turns are exact: [1, 1] is singular at the highest one."""
    weight = torch.ones(1, 1, 1, 2, dtype=torch.float64)
    assert led_fast.circulant_logdet(weight, (1, 6)) == -math.inf
    assert led_fast.circulant_logdet(weight.mT.contiguous(), (6, 1)) == -math.inf
    assert led_fast.circulant_logdet(weight, (1, 5)).isfinite()
    wave = torch.exp(2j * math.pi * torch.arange(6, dtype=torch.float64) / 6)
    wave = wave[(1 + wave).abs() > 1e-9]
    wanted = torch.stack([(1 / (1 + wave)).real.sum(), (wave / (1 + wave)).real.sum()])
    torch.testing.assert_close(gradient(led_fast.circulant_logdet, weight, (1, 6)).flatten(), wanted)


@pytest.mark.parametrize("grid", [(1, 1), (4, 3)], ids=str)
def test_singular_and_not_finite_weights(grid, small_chunks):
    weight = random_weight(4, 6, 6, 2, 3)
    weight[1, 5], weight[2, 0, 1, 1, 1], weight[3, 3, 4, 0, 2] = 0, math.nan, math.inf
    value = led_fast.circulant_logdet(weight.requires_grad_(), grid)
    (grad,) = torch.autograd.grad(value[:2].clamp(min=-1e9).sum() + value[2:].sum(), weight)
    torch.testing.assert_close(value[0], reference.circulant_logdet(weight[0], grid))
    assert value[1] == -math.inf and value[2:].isnan().all()
    assert grad[0].ne(0).any() and grad[1].eq(0).all() and grad[2:].isnan().all()


def test_derivatives_of_any_order(small_chunks):
    weight = random_weight(2, 2, 2, 2, 3).requires_grad_()
    function = lambda w: led_fast.circulant_logdet(w, (3, 4))  # noqa: E731
    assert torch.autograd.gradcheck(function, weight, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, weight)
    per_sample = torch.vmap(torch.func.hessian(lambda w: function(w)))(weight.detach())
    wanted = [torch.autograd.functional.hessian(function, w) for w in weight.detach()]
    torch.testing.assert_close(per_sample, torch.stack(wanted))


@pytest.mark.parametrize("op", [_op.circulant_logdet_by_lu, _op.circulant_logdet_by_lu_with_grad], ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 3, 3, 3), (3, 3, 1, 1)], ids=str)
def test_opcheck(op, shape):
    torch.library.opcheck(op.default, (random_weight(*shape).requires_grad_(), 4, 5))


def test_compiles_in_one_graph():
    compiled = torch.compile(
        lambda w: led_fast.circulant_logdet(w, (4, 5)).square().sum(), fullgraph=True, backend="aot_eager"
    )
    weight = random_weight(2, 3, 3, 3, 3).requires_grad_()
    wanted = gradient(lambda w, grid: reference.circulant_logdet(w, grid).square(), weight, (4, 5))
    torch.testing.assert_close(torch.autograd.grad(compiled(weight), weight)[0], wanted)


def test_no_setting_makes_it_less_exact():
    weight, grid = random_weight(20, 20, 3, 3, dtype=torch.float32), (4, 5)
    run = lambda: (led_fast.circulant_logdet(weight, grid), gradient(led_fast.circulant_logdet, weight, grid))  # noqa: E731
    wanted, before = run(), torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = run()
    finally:
        torch.set_float32_matmul_precision(before)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_empty_batches_and_channels():
    assert gradient(led_fast.circulant_logdet, random_weight(0, 5, 5, 3, 3), (4, 3)).shape == (0, 5, 5, 3, 3)
    assert led_fast.circulant_logdet(torch.empty(2, 0, 0, 3, 3), (4, 3)).eq(0).all()
    assert gradient(led_fast.circulant_logdet, torch.empty(2, 0, 0, 3, 3), (4, 3)).shape == (2, 0, 0, 3, 3)
