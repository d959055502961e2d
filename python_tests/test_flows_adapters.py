"""Our layers in flows of normflows, zuko and nflows: the same densities and draws, and what these ask of a layer."""

import copy
import pickle
import subprocess
import sys

import nflows.distributions
import nflows.flows
import nflows.transforms
import normflows
import pytest
import torch
import zuko
from flow_oracles import randomize
from layers import BIJECTIVE, IMAGE, LAYERS, trained_like
from normflows.flows.flow_test import FlowTest
from torch import nn
from torch.distributions import Independent, Normal, TransformedDistribution

from led_fast import flows
from led_fast.flows import NotInvertibleError, OneWayFlow, StandardNormal
from led_fast.flows.adapters import to_nflows, to_zuko

VECTOR = ["ActNorm, flat", "SoftReLU, flat", "Staircase, flat", "Affine, flat", "Marginal, mixed"]
PICTURE = ["CircularConv2d", "SoftReLU", "ActNorm", "Coupling, whitens", "CircularConv2d, wraps", "BatchNorm"]
PICTURE += ["PairNeighbors, rows", "PixelShuffle", "Sigmoid"]
COMPOSITIONS = {"vector": (4, VECTOR), "image": (96, PICTURE)}
LIBRARIES = ["normflows", "zuko", "nflows"]
ROUNDING = {"rtol": 0, "atol": 1e-12}


@pytest.fixture(autouse=True)
def _double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def composition(name):
    """Our flow of these layers, from flat noise to vectors or images, its parameters moved off their start."""
    features, names = COMPOSITIONS[name]
    layers = [trained_like(part)[0] for part in names]
    to_image = [flows.Unflatten(*IMAGE)] if name == "image" else []
    return OneWayFlow(StandardNormal(features).double(), [*to_image, *layers]).eval()


def in_zuko(layers, shape, turned=True):
    """A zuko flow whose data are what our layers, in this order, make of latent values; or the other way about."""
    transforms, dims = [], 1
    for layer in layers:
        dims_after = 3 if isinstance(layer, flows.Unflatten) else dims
        transforms.append(to_zuko(layer, (dims, dims_after)))
        dims = dims_after
    base = zuko.lazy.UnconditionalDistribution(
        zuko.distributions.DiagNormal, torch.zeros(shape), torch.ones(shape), buffer=True, ndims=len(shape)
    )
    return zuko.flows.Flow([t.inv for t in reversed(transforms)] if turned else transforms, base)


def in_nflows(layers, shape, turned=True):
    transforms = [to_nflows(layer) for layer in layers]
    if turned:
        transforms = [nflows.transforms.InverseTransform(t) for t in reversed(transforms)]
    return nflows.flows.Flow(
        nflows.transforms.CompositeTransform(transforms), nflows.distributions.StandardNormal(shape)
    )


def in_normflows(layers, shape, turned=False):
    layers = [normflows.flows.Reverse(layer) for layer in reversed(layers)] if turned else layers
    return normflows.NormalizingFlow(normflows.distributions.DiagGaussian(shape, trainable=False), layers)


def log_prob(library, flow, y):
    return flow().log_prob(y) if library == "zuko" else flow.log_prob(y)


def sample(library, flow, n):
    """Draws and their log density."""
    if library == "zuko":
        return flow().rsample_and_log_prob((n,))
    return flow.sample(n) if library == "normflows" else flow.sample_and_log_prob(n)


def as_generator(library, layers, shape):
    """A flow whose draws are our layers' `forward` of noise."""
    return {"normflows": in_normflows, "zuko": in_zuko, "nflows": in_nflows}[library](layers, shape)


def as_encoder(library, layers, shape):
    """A flow that takes data to noise by our layers' `forward`."""
    if library == "normflows":
        return in_normflows(layers, shape, turned=True)
    return {"zuko": in_zuko, "nflows": in_nflows}[library](layers, shape, turned=False)


@pytest.mark.parametrize("name", COMPOSITIONS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_density_and_draws_are_those_of_our_flow(library, name):
    ours = composition(name)
    theirs = as_generator(library, ours.layers, ours.base.mean.shape)
    torch.manual_seed(1)
    y, log_q = ours.rsample_and_log_prob(6)
    torch.manual_seed(1)
    their_y, their_log_q = sample(library, theirs, 6)
    torch.testing.assert_close(their_y, y, **ROUNDING)
    torch.testing.assert_close(their_log_q, log_q, **ROUNDING)
    torch.testing.assert_close(log_prob(library, theirs, y), ours.log_prob(y), **ROUNDING)
    torch.testing.assert_close(log_prob(library, theirs, y), log_q, rtol=0, atol=1e-9)
    assert log_q.std() > 0.1


@pytest.mark.parametrize("name", COMPOSITIONS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_forward_may_also_lead_from_data_to_latent_values(library, name):
    layers = list(composition(name).layers)
    flow = OneWayFlow(None, layers)
    x = torch.randn(6, COMPOSITIONS[name][0])
    latent, ladj = flow(x)
    normal = StandardNormal(*latent.shape[1:]).double()
    theirs = as_encoder(library, layers, latent.shape[1:])
    torch.testing.assert_close(log_prob(library, theirs, x), normal.log_prob(latent) + ladj, **ROUNDING)
    if name == "image":  # a normal latent value is no output of a sigmoid
        return
    torch.manual_seed(1)
    expected, ladj = flow.inverse(normal.rsample_and_log_prob(6)[0])
    torch.manual_seed(1)
    draws, log_q = sample(library, theirs, 6)
    torch.testing.assert_close(draws, expected, **ROUNDING)
    torch.testing.assert_close(log_q, normal.log_prob(flow(expected)[0]) - ladj, rtol=0, atol=1e-9)


@pytest.mark.parametrize("library", LIBRARIES)
def test_gradients_parameters_and_copies(library):
    ours = composition("image")
    theirs = as_generator(library, ours.layers, ours.base.mean.shape)
    assert {id(p) for p in theirs.parameters()} == {id(p) for p in ours.parameters()}
    assert {id(b) for b in ours.layers.buffers()} <= {id(b) for b in theirs.buffers()}
    y = ours.sample(4).requires_grad_()
    wanted = [y, *ours.parameters()]
    expected = torch.autograd.grad(ours.log_prob(y).sum(), wanted)
    found = torch.autograd.grad(log_prob(library, theirs, y).sum(), wanted)
    assert all(gradient.abs().max() > 0 for gradient in expected)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)

    y, copied, pickled = y.detach(), copy.deepcopy(theirs), pickle.loads(pickle.dumps(theirs))
    before, state = log_prob(library, theirs, y), theirs.state_dict()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.mul_(1.01)
    after = log_prob(library, theirs, y)
    assert (after - before).abs().min() > 1e-3
    for other in (copied, pickled):
        torch.testing.assert_close(log_prob(library, other, y), before, rtol=0, atol=0)
    copied.load_state_dict(state)  # which holds the moved parameters themselves
    torch.testing.assert_close(log_prob(library, copied, y), after, rtol=0, atol=0)


def test_a_context_is_ignored():
    ours = composition("vector")
    y, context = ours.sample(5), torch.randn(5, 3)
    expected = ours.log_prob(y)
    flow = as_generator("zuko", ours.layers, (4,))
    torch.testing.assert_close(flow(context).log_prob(y), expected, **ROUNDING)
    assert flow(context).sample((7,)).shape == (7, 5, 4)
    flow = as_generator("nflows", ours.layers, (4,))
    torch.testing.assert_close(flow.log_prob(y, context), expected, **ROUNDING)
    assert flow.sample(7, context).shape == (5, 7, 4)


def test_a_whole_flow_is_a_transform():
    ours = composition("image")
    y = ours.sample(5)
    base = Independent(Normal(torch.zeros(96), torch.ones(96)), 1)
    transform = to_zuko(ours, (1, 3))()
    torch.testing.assert_close(
        zuko.distributions.NormalizingFlow(transform.inv, base).log_prob(y), ours.log_prob(y), **ROUNDING
    )
    pushed = TransformedDistribution(base, [transform], validate_args=False)
    assert pushed.event_shape == y.shape[1:]
    torch.testing.assert_close(pushed.log_prob(y), ours.log_prob(y), rtol=0, atol=1e-9)
    flow = nflows.flows.Flow(
        nflows.transforms.InverseTransform(to_nflows(ours)), nflows.distributions.StandardNormal([96])
    )
    torch.testing.assert_close(flow.log_prob(y), ours.log_prob(y), **ROUNDING)


@pytest.mark.parametrize("library", LIBRARIES)
def test_inflation_has_a_density_in_a_generator(library):
    ours = OneWayFlow(StandardNormal(2).double(), [trained_like("SoftReLU, flat")[0], flows.Inflate(2)])
    ours.layers.append(trained_like("Staircase, flat")[0])
    theirs = as_generator(library, ours.layers, (2,))
    torch.manual_seed(1)
    y, log_q = ours.rsample_and_log_prob(6)
    torch.manual_seed(1)
    torch.testing.assert_close(sample(library, theirs, 6), (y, log_q), **ROUNDING)
    torch.testing.assert_close(log_prob(library, theirs, y), log_q, rtol=0, atol=1e-9)


def test_layers_of_normflows_and_nflows_run_in_our_flow():
    theirs = [
        normflows.flows.LULinearPermute(4),
        nflows.transforms.HouseholderSequence(4, 3),
        nflows.transforms.RandomPermutation(4),
        normflows.flows.CoupledRationalQuadraticSpline(4, 1, 8),
    ]
    flow = randomize(
        OneWayFlow(StandardNormal(4).double(), [theirs[0], flows.SoftReLU(), *theirs[1:]])
    ).eval()
    y, log_q = flow.rsample_and_log_prob(5)
    torch.testing.assert_close(flow.log_prob(y), log_q, rtol=0, atol=1e-9)
    for sample, density in zip(y, log_q, strict=True):
        latent = flow.inverse(sample[None])[0][0]
        jacobian = torch.autograd.functional.jacobian(lambda z: flow(z[None])[0][0], latent)
        expected = flow.base.log_prob(latent[None])[0] - torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(density, expected, rtol=0, atol=1e-9)


# ---- what each library asks of a layer -------------------------------------------------------------------


class Flat(nn.Module):
    """A layer between vectors: the test of normflows wants a shape that stays."""

    def __init__(self, layer, t):
        super().__init__()
        self.layer, self.before, self.after = layer, t.shape[1:], layer(t)[0].shape[1:]

    def forward(self, t):
        out, ladj = self.layer(t.unflatten(1, self.before))
        return out.flatten(1), ladj

    def inverse(self, t):
        out, ladj = self.layer.inverse(t.unflatten(1, self.after))
        return out.flatten(1), ladj


@pytest.mark.parametrize("name", BIJECTIVE)
def test_normflows_own_test_of_a_flow(name):
    layer, t = trained_like(name)
    if layer(t)[0].shape != t.shape:
        layer, t = Flat(layer, t), t.flatten(1)
    FlowTest().checkForwardInverse(layer, t, atol=1e-9, rtol=0)
    FlowTest().checkForwardInverse(normflows.flows.Reverse(layer), layer(t)[0], atol=1e-9, rtol=0)
    FlowTest().checkForwardInverse(normflows.flows.Composite([layer, layer]), t, atol=1e-9, rtol=0)
    float32, t = layer.float(), t.float()
    FlowTest().checkForwardInverse(float32, t, atol=1e-4, rtol=0)


@pytest.mark.parametrize("backward", [False, True], ids=["call", "inv"])
@pytest.mark.parametrize("name", BIJECTIVE)
def test_transforms_of_zuko(name, backward):
    layer, t = trained_like(name, samples=6)
    out = layer(t)[0].detach()
    transform = to_zuko(layer, (t.dim() - 1, out.dim() - 1))()
    assert transform.bijective
    if backward:
        transform, t, out = transform.inv, out, t
    x, y = t.unflatten(0, (2, 3)), out.unflatten(0, (2, 3))
    assert (transform.domain.event_dim, transform.codomain.event_dim) == (t.dim() - 1, out.dim() - 1)
    assert transform.forward_shape(x.shape) == y.shape and transform.inverse_shape(y.shape) == x.shape

    found, ladj = transform.call_and_ladj(x)
    torch.testing.assert_close(found, y, rtol=0, atol=1e-9)
    torch.testing.assert_close(transform(x), found, rtol=0, atol=0)
    torch.testing.assert_close(transform.log_abs_det_jacobian(x, y), ladj, rtol=0, atol=0)
    for i, j in [(0, 0), (1, 2)]:  # single samples, with no batch at all
        jacobian = torch.autograd.functional.jacobian(transform, x[i, j]).reshape(x[i, j].numel(), -1)
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, ladj[i, j], rtol=0, atol=1e-9)

    back, ladj_back = transform.inv.call_and_ladj(found)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
    torch.testing.assert_close(transform.inv(found), back, rtol=0, atol=0)
    torch.testing.assert_close(ladj_back, -ladj, rtol=0, atol=1e-9)
    torch.testing.assert_close(transform.inv.inv(x), found, rtol=0, atol=0)
    assert transform.call_and_ladj(x[:0])[1].shape == (0, 3)


def test_a_shape_is_asked_for_without_samples():
    layer = flows.ActNorm(4)
    assert to_zuko(layer)().forward_shape(torch.Size([3, 4])) == (3, 4) and not layer.initialized


@pytest.mark.parametrize("name", BIJECTIVE)
def test_transforms_of_nflows(name):
    layer, t = trained_like(name, samples=4)
    context = torch.randn(4, 2)
    forward = to_nflows(layer)
    turned = nflows.transforms.InverseTransform(forward)
    nothing = nflows.transforms.CompositeTransform([forward, turned])
    out, ladj = forward(t, context)
    for transform, x, y, expected in [(forward, t, out, ladj), (turned, out.detach(), t, -ladj)]:
        found, logabsdet = transform(x)
        assert found.shape == y.shape and logabsdet.shape == (4,)
        torch.testing.assert_close(found, y, rtol=0, atol=1e-9)
        torch.testing.assert_close(logabsdet, expected, rtol=0, atol=1e-9)
        back, logabsdet_back = transform.inverse(found, context)
        torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
        torch.testing.assert_close(logabsdet_back, -logabsdet, rtol=0, atol=1e-9)
        jacobian = torch.autograd.functional.jacobian(lambda v, f=transform: f(v)[0], x[:1])
        volume = torch.linalg.slogdet(jacobian.reshape(x[0].numel(), -1)).logabsdet
        torch.testing.assert_close(volume, logabsdet[0], rtol=0, atol=1e-9)
    for part, same in zip(nothing(t), (t, torch.zeros(4)), strict=True):
        torch.testing.assert_close(part, same, rtol=0, atol=1e-9)


# ---- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", [to_zuko, to_nflows])
def test_a_layer_without_a_way_back_is_refused(adapter):
    class Plain(nn.Module):
        def forward(self, t):
            return t, t.new_zeros(len(t))

    sliced = LAYERS["Slice"].build()
    for layer in (sliced, Plain(), OneWayFlow(StandardNormal(4), [sliced])):
        message = f"^{adapter.__name__}: {type(layer).__name__} cannot be inverted"
        with pytest.raises(NotInvertibleError, match=message):
            adapter(layer)


def test_normflows_draws_from_a_slice_and_refuses_its_density():
    layer, t = trained_like("Slice")
    flow = in_normflows([layer], t.shape[1:])
    assert flow.sample(3)[0].shape == layer(t)[0].shape
    with pytest.raises(NotInvertibleError, match="Slice cannot be inverted"):
        flow.log_prob(layer(t)[0])


def test_too_few_dimensions():
    with pytest.raises(
        ValueError, match=r"to_zuko: samples of CircularConv2d must have 3 dimensions, .*\(4, 6\)"
    ):
        to_zuko(LAYERS["CircularConv2d"].build(), 3)()(torch.zeros(4, 6))


@pytest.mark.parametrize(("adapter", "package"), [(to_zuko, "zuko"), (to_nflows, "nflows")])
def test_a_missing_library_is_named(adapter, package, monkeypatch):
    monkeypatch.delitem(sys.modules, f"led_fast.flows.adapters.{package}_transform")
    for module in [m for m in sys.modules if m.split(".")[0] == package]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'{adapter.__name__}: {package} is wanted.*"led_fast\[interop\]"'):
        adapter(flows.SoftReLU())


def test_no_library_is_imported_before_it_is_wanted(tmp_path):
    script = "import sys, led_fast.flows.adapters; print({'zuko', 'nflows', 'normflows'} & {*sys.modules})"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_zuko_density_of_a_layer_that_draws_noise_is_that_of_its_inverse():
    base = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    flow = TransformedDistribution(base, [to_zuko(flows.Inflate(1))()])
    x = torch.randn(5, 3)
    wanted = OneWayFlow(StandardNormal(2).double(), [flows.Inflate(1)]).log_prob(x)
    for _ in range(2):
        torch.testing.assert_close(flow.log_prob(x), wanted, **ROUNDING)


def test_zuko_transforms_may_be_cached():
    transform = to_zuko(flows.Linear(2).double())()
    x = torch.randn(5, 2)
    composed = torch.distributions.ComposeTransform([transform], cache_size=1)
    assert torch.equal(composed(x), transform(x)) and transform.with_cache(1)._cache_size == 1


@pytest.mark.parametrize("adapt", [lambda layer: to_zuko(layer)(), to_nflows])
def test_adapted_layers_stay_in_full_precision_under_autocast(adapt):
    layer = flows.Linear(4).float()
    x = torch.randn(5, 4, dtype=torch.float32)
    wanted = layer(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        found = adapt(layer)(x)
    assert torch.equal(found[0] if isinstance(found, tuple) else found, wanted)
