"""Every transform of PyTorch, as a check of one case against the reference and plain reverse mode in float64."""

import copy
import io
import pickle
import threading
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.autograd import forward_ad
from torch.export import Dim
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint
from transforms_cases import BothWays, Case, Outputs

import led_fast
from led_fast.flows.contract import invertible

Check = Callable[[Case], None]
TRANSFORMS: dict[str, Check] = {}
OF_LAYERS: dict[str, Check] = {}  # those that only a module can be put through
SLOW: set[str] = set()  # those that take seconds
DIRECTIONS = 2


def transform(name: str, into: dict[str, Check] = TRANSFORMS, slow: bool = False):
    def register(check: Check) -> Check:
        into[name] = check
        if slow:
            SLOW.add(name)
        return check

    return register


def close(got: object, wanted: object, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)


def reference(case: Case) -> Callable[..., Outputs]:
    """The same function of plain PyTorch."""

    def function(*inputs: Tensor) -> Outputs:
        with led_fast.ops.use_reference():
            return case(*inputs)

    return function


def loss(function: Callable[..., Outputs]) -> Callable[..., Tensor]:
    """A number that depends on every output, with derivatives of every order."""
    return lambda *inputs: sum((v + v.square() / 7 + (v / 3).sin()).sum() for v in function(*inputs))


def gradient(value: Tensor, inputs: list[Tensor], **options: bool) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value, inputs, materialize_grads=True, **options)


def leaves(inputs: list[Tensor]) -> list[Tensor]:
    return [v.detach().clone().requires_grad_() for v in inputs]


def directions(inputs: list[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn((DIRECTIONS, *v.shape), generator=generator, dtype=v.dtype) / 4 for v in inputs]


def inputs_of(case: Case, batch: int = 2, size: int = 6) -> list[Tensor]:
    torch.manual_seed(batch + size)
    return case.inputs(batch, size)


def along(function: Callable, inputs: list[Tensor]) -> Callable[[Tensor], object]:
    """The function of three numbers that move all inputs along random directions."""
    paths = directions(inputs)

    def moved(s: Tensor) -> object:
        return function(*(v + torch.tensordot(s, p, 1) for v, p in zip(inputs, paths, strict=True)))

    return moved


def sketch(outputs: Outputs) -> Tensor:
    """Three sums of each output, with weights of all signs."""
    rows = [
        torch.cos(torch.arange(v.numel() * 3, dtype=v.dtype, device=v.device) ** 1.1).reshape(3, *v.shape)
        for v in outputs
    ]
    return torch.cat([(v * row).reshape(3, -1).sum(1) for v, row in zip(outputs, rows, strict=True)])


ORIGIN = torch.zeros(DIRECTIONS, dtype=torch.float64)


def jacobian(function: Callable[[Tensor], Tensor], order: int = 1) -> Tensor:
    """By reverse mode, number by number."""
    s = ORIGIN.clone().requires_grad_()
    value = function(s)
    for _ in range(order):
        rows = [
            torch.autograd.grad(v, s, create_graph=True, materialize_grads=True)[0] for v in value.flatten()
        ]
        value = torch.stack(rows).reshape(*value.shape, DIRECTIONS)
    return value.detach()


# ---- values and gradients ---------------------------------------------------------------------------------


@transform("forward and backward")
def _(case: Case) -> None:
    inputs = leaves(inputs_of(case))
    ours, plain = case(*inputs), reference(case)(*inputs)
    close(ours, plain)
    close(*(gradient(loss(lambda o=o: o)(), inputs) for o in (ours, plain)))


@transform("no_grad and inference_mode")
def _(case: Case) -> None:
    inputs = inputs_of(case)
    wanted = reference(case)(*inputs)
    with torch.no_grad():
        outputs = case(*leaves(inputs))
        assert not any(v.requires_grad and not v._is_view() for v in outputs)  # as of torch.nn.Unflatten
        close(outputs, wanted)
    with torch.inference_mode():
        outputs = case(*inputs)
    close(tuple(v.clone() for v in outputs), wanted)


@transform("gradients of gradients")
def _(case: Case) -> None:
    inputs = leaves(inputs_of(case))

    def second(function: Callable[..., Outputs]) -> tuple[Tensor, ...]:
        first = gradient(loss(function)(*inputs), inputs, create_graph=True)
        return gradient(sum(g.square().sum() for g in first), inputs)

    close(second(case), second(reference(case)))


@transform("batched gradients (is_grads_batched)")
def _(case: Case) -> None:
    inputs, batch = leaves(inputs_of(case)), torch.arange(1, 4, dtype=torch.float64)

    def batched(function: Callable[..., Outputs]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            loss(function)(*inputs), inputs, batch, is_grads_batched=True, allow_unused=True
        )

    close(batched(case), batched(reference(case)))


@transform("in-place changes of outputs")
def _(case: Case) -> None:
    inputs = leaves(inputs_of(case))

    def changed(in_place: bool) -> tuple[Tensor, ...]:
        # Not the leaves themselves, because some outputs are views of their input, as of torch.nn.Unflatten.
        outputs = [v.mul_(2).sin_() if in_place else (2 * v).sin() for v in case(*(1 * v for v in inputs))]
        return gradient(sum(v.sum() for v in outputs), inputs)

    close(changed(True), changed(False))


@transform("saved_tensors_hooks")
def _(case: Case) -> None:
    inputs = leaves(inputs_of(case))
    wanted = gradient(loss(case)(*inputs), inputs)
    with torch.autograd.graph.save_on_cpu():
        value = loss(case)(*inputs)
    close(gradient(value, inputs), wanted)


@transform("checkpoint, both kinds")
def _(case: Case) -> None:
    inputs = leaves(inputs_of(case))
    wanted = gradient(loss(case)(*inputs), inputs)
    for reentrant in (False, True):
        for v in inputs:
            v.grad = None
        checkpoint(loss(case), *inputs, use_reentrant=reentrant).backward()
        close(tuple(v.grad if v.grad is not None else torch.zeros_like(v) for v in inputs), wanted)


# ---- forward mode -----------------------------------------------------------------------------------------


@transform("dual tensors")
def _(case: Case) -> None:
    inputs = inputs_of(case)
    plain = along(reference(case), inputs)
    wanted = jacobian(lambda s: sketch(plain(s)))[:, 0]
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(v, d[0]) for v, d in zip(inputs, directions(inputs), strict=True)]
        pairs = [forward_ad.unpack_dual(v) for v in case(*duals)]
    tangents = [
        torch.zeros_like(v) if tangent is None else tangent for v, tangent in pairs
    ]  # a constant has none
    close(sketch(tuple(tangents)), wanted)


@transform("dual tensors through backward")
def _(case: Case) -> None:
    inputs = inputs_of(case)
    wanted = jacobian(loss_along(reference(case), inputs), order=2)[0]
    with forward_ad.dual_level():
        s = forward_ad.make_dual(ORIGIN.clone().requires_grad_(), torch.eye(DIRECTIONS)[0].double())
        (first,) = torch.autograd.grad(loss_along(case, inputs)(s), s)
        close(forward_ad.unpack_dual(first).tangent, wanted)


@transform("backward through dual tensors", slow=True)
def _(case: Case) -> None:
    inputs = inputs_of(case)
    wanted = jacobian(loss_along(reference(case), inputs), order=2)[0]
    s = ORIGIN.clone().requires_grad_()
    with forward_ad.dual_level():
        value = loss_along(case, inputs)(forward_ad.make_dual(s, torch.eye(DIRECTIONS)[0].double()))
        (second,) = torch.autograd.grad(forward_ad.unpack_dual(value).tangent, s)
    close(second, wanted)


def loss_along(function: Callable[..., Outputs], inputs: list[Tensor]) -> Callable[[Tensor], Tensor]:
    return along(loss(function), inputs)


@transform("jvp")
def _(case: Case) -> None:
    inputs = inputs_of(case)
    plain = along(reference(case), inputs)
    wanted = jacobian(lambda s: sketch(plain(s)))[:, 1]
    tangents = tuple(d[1] for d in directions(inputs))
    close(sketch(torch.func.jvp(case, tuple(inputs), tangents)[1]), wanted)


def first_order(name: str, derive: Callable) -> None:
    @transform(name)
    def _(case: Case) -> None:
        ours, plain = (along(f, inputs_of(case)) for f in (case, reference(case)))
        close(derive(lambda s: sketch(ours(s)))(ORIGIN), jacobian(lambda s: sketch(plain(s))))


def second_order(name: str, derive: Callable, slow: bool = True) -> None:
    @transform(name, slow=slow)
    def _(case: Case) -> None:
        inputs = inputs_of(case)
        wanted = jacobian(loss_along(reference(case), inputs), order=2)
        close(derive(loss_along(case, inputs))(ORIGIN), wanted)


jacfwd, jacrev = torch.func.jacfwd, torch.func.jacrev
first_order("jacfwd", jacfwd)
first_order("jacrev", jacrev)
second_order("hessian (jacfwd ∘ jacrev)", torch.func.hessian, slow=False)
second_order("jacrev ∘ jacrev", lambda f: jacrev(jacrev(f)))
second_order("jacrev ∘ jacfwd", lambda f: jacrev(jacfwd(f)))
second_order("jacfwd ∘ jacfwd", lambda f: jacfwd(jacfwd(f)))


@transform("third order, mixed", slow=True)
def _(case: Case) -> None:
    inputs = inputs_of(case, batch=1)
    wanted = jacobian(loss_along(reference(case), inputs), order=3)
    close(jacfwd(jacrev(jacfwd(loss_along(case, inputs))))(ORIGIN), wanted, 1e-5)


# ---- vmap -------------------------------------------------------------------------------------------------


def ensemble(case: Case) -> tuple[Tensor, ...]:
    inputs = inputs_of(case)
    return tuple(torch.stack([v, v + d[0]], -1) for v, d in zip(inputs, directions(inputs), strict=True))


def one_by_one(function: Callable, stacked: tuple[Tensor, ...]) -> object:
    """As `vmap` over the last dimension of all inputs."""
    results = [function(*(v.select(-1, i) for v in stacked)) for i in range(stacked[0].shape[-1])]
    if isinstance(results[0], Tensor):
        return torch.stack(results)
    return tuple(torch.stack(v) for v in zip(*results, strict=True))


def all_gradients(function: Callable[..., Outputs], inputs: int) -> Callable:
    return torch.func.grad(loss(function), argnums=tuple(range(inputs)))


@transform("vmap (ensembles)")
def _(case: Case) -> None:
    stacked = ensemble(case)
    close(torch.vmap(case.__call__, in_dims=-1)(*stacked), one_by_one(reference(case), stacked))
    with torch.no_grad():
        close(torch.vmap(case.__call__, in_dims=-1)(*stacked), one_by_one(reference(case), stacked))


def over_one_input(function: Callable, plain: Callable, stacked: tuple[Tensor, ...]) -> None:
    """Maps over each input in turn, while the others stay as they are."""
    for i in range(len(stacked)):
        one = [v[..., 0] for v in stacked]
        one[i] = stacked[i]
        in_dims = tuple(-1 if j == i else None for j in range(len(stacked)))
        results = [plain(*(v[..., k] if j == i else v for j, v in enumerate(one))) for k in range(2)]
        wanted = tuple(map(torch.stack, zip(*results, strict=True)))
        close(torch.vmap(function, in_dims=in_dims)(*one), wanted)


@transform("vmap over one input")
def _(case: Case) -> None:
    over_one_input(case.__call__, case.__call__, ensemble(case))


@transform("vmap over one input ∘ vjp, under no_grad")
def _(case: Case) -> None:
    def pulled(function: Callable[..., Outputs]) -> Callable[..., tuple[Tensor, ...]]:
        def pull_back(*inputs: Tensor) -> tuple[Tensor, ...]:
            value, pull = torch.func.vjp(loss(function), *inputs)
            return pull(torch.ones_like(value))

        return pull_back

    with torch.no_grad():
        over_one_input(pulled(case.__call__), pulled(reference(case)), ensemble(case))


@transform("vmap ∘ vmap", slow=True)
def _(case: Case) -> None:
    stacked = tuple(torch.stack([v, v / 2]) for v in ensemble(case))
    wanted = tuple(
        torch.stack(v)
        for v in zip(*(one_by_one(reference(case), [w[i] for w in stacked]) for i in range(2)), strict=True)
    )
    close(torch.vmap(torch.vmap(case.__call__, in_dims=-1))(*stacked), wanted)


@transform("vmap ∘ grad (per-sample gradients)")
def _(case: Case) -> None:
    stacked = ensemble(case)
    mapped = torch.vmap(all_gradients(case, len(stacked)), in_dims=-1)(*stacked)
    close(mapped, one_by_one(all_gradients(reference(case), len(stacked)), stacked))


@transform("grad ∘ vmap")
def _(case: Case) -> None:
    stacked = ensemble(case)
    through = all_gradients(torch.vmap(case.__call__, in_dims=-1), len(stacked))(*stacked)
    apart = all_gradients(lambda *v: one_by_one(reference(case), v), len(stacked))(*stacked)
    close(through, apart)


@transform("vmap ∘ jvp")
def _(case: Case) -> None:
    stacked = ensemble(case)
    tangent = lambda f: lambda *v: torch.func.jvp(f, v, v)[1]  # noqa: E731
    close(
        torch.vmap(tangent(case.__call__), in_dims=-1)(*stacked),
        one_by_one(tangent(reference(case)), stacked),
    )


@transform("jvp ∘ vmap")
def _(case: Case) -> None:
    stacked = ensemble(case)
    mapped = torch.vmap(case.__call__, in_dims=-1)
    apart = torch.func.jvp(lambda *v: one_by_one(reference(case), v), stacked, stacked)[1]
    close(torch.func.jvp(mapped, stacked, stacked)[1], apart)


# ---- compilers --------------------------------------------------------------------------------------------


def compiled(function: Callable, dynamic: bool = False) -> tuple[Callable, CompileCounterWithBackend]:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    return torch.compile(function, fullgraph=True, dynamic=dynamic, backend=counter), counter


@transform("compile", slow=True)
def _(case: Case) -> None:
    inputs = leaves(inputs_of(case))
    function, _ = compiled(case.function)
    ours = Case(function, case.inputs)
    close(ours(*inputs), case(*inputs))
    close(gradient(loss(ours)(*inputs), inputs), gradient(loss(case)(*inputs), inputs))


@transform("compile, one graph for all sizes", slow=True)
def _(case: Case) -> None:
    function, counter = compiled(case.function, dynamic=True)
    ours, graphs = Case(function, case.inputs), set()
    # No two sizes alike, nor like any number of channels: the compiler would take them for one.
    for batch, size in [(8, 10), (9, 14), (11, 16)] if case.sizes else [(9, 6), (10, 6)]:
        inputs = leaves(inputs_of(case, batch, size))
        close(ours(*inputs), case(*inputs))
        close(gradient(loss(ours)(*inputs), inputs), gradient(loss(case)(*inputs), inputs))
        graphs.add(counter.frame_count)
    assert len(graphs) == 1


@transform("compile ∘ vmap ∘ grad", slow=True)
def _(case: Case) -> None:
    stacked = ensemble(case)
    mapped = torch.vmap(all_gradients(case.function_of_tuples(), len(stacked)), in_dims=-1)
    close(compiled(mapped)[0](*stacked), mapped(*stacked))


@transform("compile ∘ jvp", slow=True)
def _(case: Case) -> None:
    inputs = tuple(inputs_of(case))
    tangent = lambda *v: torch.func.jvp(case.function_of_tuples(), v, v)[1]  # noqa: E731
    close(compiled(tangent)[0](*inputs), tangent(*inputs))


@transform("compile ∘ hessian", slow=True)
def _(case: Case) -> None:
    function = torch.func.hessian(along(loss(case.function_of_tuples()), inputs_of(case)))
    close(compiled(function)[0](ORIGIN), function(ORIGIN))


class _Module(nn.Module):
    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case

    def forward(self, *inputs: Tensor) -> Outputs:
        return self.case(*inputs)


def same_sizes(case: Case) -> tuple[tuple[int, int], tuple[int, int]]:
    return ((8, 10), (9, 14)) if case.sizes else ((9, 6), (10, 6))


@transform("export, dynamic sizes", slow=True)
def _(case: Case) -> None:
    first, second = same_sizes(case)
    a, b = inputs_of(case, *first), inputs_of(case, *second)
    # Whatever differs between the two is dynamic.
    shapes = tuple(
        {i: Dim.DYNAMIC for i in range(v.dim()) if v.shape[i] != w.shape[i]}
        for v, w in zip(a, b, strict=True)
    )
    exported = torch.export.export(_Module(case), tuple(a), dynamic_shapes=(shapes,), strict=False).module()
    for inputs in (a, b):
        close(tuple(exported(*inputs)), case(*inputs))


@transform("jit.trace, other sizes", slow=True)
def _(case: Case) -> None:
    first, second = same_sizes(case)
    a, b = inputs_of(case, *first), inputs_of(case, *second)
    if case.layer:
        torch.manual_seed(0)
        traced = torch.jit.trace(case.layer().double(), a[0])
        a, b = a[:1], b[:1]
    else:
        traced = torch.jit.trace(case.function, tuple(a))
    for inputs in (a, b):
        outputs = traced(*inputs)
        wanted = case(*inputs, *inputs_of(case)[1:]) if case.layer else case(*inputs)
        close(outputs if isinstance(outputs, tuple) else (outputs,), wanted)


@transform("make_fx", slow=True)
def _(case: Case) -> None:
    inputs = inputs_of(case)
    for mode in ("real", "symbolic"):
        traced = make_fx(case.function_of_tuples(), tracing_mode=mode, _allow_non_fake_inputs=True)(*inputs)
        close(tuple(traced(*inputs)), case(*inputs))


# ---- tensors without values, threads, dtypes --------------------------------------------------------------


@transform("fake tensors leave nothing behind")
def _(case: Case) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    inputs = inputs_of(case)
    with torch.no_grad():
        wanted = case(*inputs)
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            outputs = case(*(mode.from_tensor(v) for v in inputs))
        for fake, real in zip(outputs, wanted, strict=True):
            assert (fake.shape, fake.dtype) == (real.shape, real.dtype)
        close(case(*inputs), wanted)


@transform("meta tensors")
def _(case: Case) -> None:
    inputs = inputs_of(case)
    for meta, real in zip(case(*(v.to("meta") for v in inputs)), case(*inputs), strict=True):
        assert (meta.shape, meta.dtype, meta.is_meta) == (real.shape, real.dtype, True)


@transform("threads")
def _(case: Case) -> None:
    """Three at once, each with sizes of its own."""
    every = [inputs_of(case, batch, size if case.sizes else 6) for batch, size in [(2, 6), (3, 8), (4, 10)]]
    wanted, wrong = [case(*inputs) for inputs in every], []

    def work(inputs: list[Tensor], right: Outputs) -> None:
        for _ in range(30):
            wrong.extend(1 for v, w in zip(case(*inputs), right, strict=True) if not torch.allclose(v, w))

    workers = [threading.Thread(target=work, args=pair) for pair in zip(every, wanted, strict=True)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def autocast(dtype: torch.dtype) -> Check:
    def check(case: Case) -> None:
        """float32 parameters, an input of the low precision: what a layer meets in the middle of a net."""
        inputs = [v.to(dtype) if i == 0 else v.float() for i, v in enumerate(inputs_of(case))]
        inputs = leaves(inputs)
        with torch.autocast("cpu", dtype):
            outputs = case(*inputs)
        wanted = case(*(v.double() for v in inputs))
        for got, right in zip(outputs, wanted, strict=True):
            assert got.dim() != 1 or got.dtype == torch.float32  # norms and log-determinants
            assert (got.double() - right).abs().max() <= 0.03 * right.abs().max() + 1e-5
        gradients = gradient(sum(v.float().sum() for v in outputs), inputs)
        assert all(g.dtype == v.dtype and g.isfinite().all() for g, v in zip(gradients, inputs, strict=True))

    return check


TRANSFORMS["autocast, bfloat16"] = autocast(torch.bfloat16)
TRANSFORMS["autocast, float16"] = autocast(torch.float16)


# ---- modules ----------------------------------------------------------------------------------------------


def module_and_input(case: Case) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    module = case.layer().double()
    return module, inputs_of(case)[0]


@transform("deepcopy, pickle, state_dict", OF_LAYERS)
def _(case: Case) -> None:
    module, x = module_and_input(case)
    with torch.no_grad():
        wanted = module(x)
        for same in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            close(same(x), wanted)
        buffer = io.BytesIO()
        torch.save(module.state_dict(), buffer)
        buffer.seek(0)
        fresh = case.layer().double()
        fresh.load_state_dict(torch.load(buffer))
        close(fresh(x), wanted)


@transform("meta construction, load_state_dict(assign=True)", OF_LAYERS)
def _(case: Case) -> None:
    module, x = module_and_input(case)
    with torch.device("meta"):
        empty = case.layer()
    empty.load_state_dict(module.state_dict(), assign=True)
    close(empty(x), module(x))


@transform("set_default_dtype, set_default_device", OF_LAYERS)
def _(case: Case) -> None:
    _, x = module_and_input(case)
    torch.set_default_dtype(torch.float64)
    try:
        outputs = case.layer()(x)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(v.dtype == torch.float64 for v in (outputs if isinstance(outputs, tuple) else [outputs]))
    module = case.layer()
    torch.set_default_device("meta")  # of which a forged tensor would show on a CPU's layer
    try:
        outputs = module(x.float())
        loss(lambda: outputs if isinstance(outputs, tuple) else (outputs,))()
        assert all(v.is_meta for v in case.layer().parameters())
    finally:
        torch.set_default_device(None)
    assert all(v.is_cpu for v in (outputs if isinstance(outputs, tuple) else [outputs]))


@transform("parametrisations are computed once", OF_LAYERS)
def _(case: Case) -> None:
    module, x = module_and_input(case)
    calls = []

    class Counted(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            calls.append(1)
            return weight

    owners = [m for m in module.modules() if isinstance(getattr(m, "weight", None), nn.Parameter)]
    for owner in owners:
        nn.utils.parametrize.register_parametrization(owner, "weight", Counted())
    calls.clear()
    module(x)
    directions = 2 if isinstance(module, BothWays) and invertible(module.layer) else 1
    assert len(calls) == directions * len(owners)


@transform("nothing new in the layer after a call", OF_LAYERS)
def _(case: Case) -> None:
    module, x = module_and_input(case)
    before = [set(vars(m)) for m in module.modules()]
    module.requires_grad_(False)(x)
    assert [set(vars(m)) for m in module.modules()] == before
