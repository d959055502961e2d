"""Runs of layers that go as one function: the same values and derivatives as layer by layer."""

from collections.abc import Callable
from unittest import mock

import pytest
import torch
from flow_oracles import brute_force_ladj, randomize
from torch import Tensor, nn

from led_fast import flows, ops
from led_fast.flows import flow as flow_module
from led_fast.flows.blocks import Run, in_runs
from led_fast.flows.contract import forward_with_score

ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "staircase": lambda features: flows.Staircase(features, steps=3),
    "soft_relu": lambda features: flows.SoftReLU(features=features, learned=True),
}
PATTERNS = ["la", "al", "lal", "ala", "lalal", "alala"]  # l: linear, a: the activation


def layers_of(pattern: str, activation: str, features: int) -> nn.ModuleList:
    torch.manual_seed(0)
    made = [flows.Linear(features) if c == "l" else ACTIVATIONS[activation](features) for c in pattern]
    return randomize(nn.ModuleList(made).double(), 0.2)


def one_by_one(layers: nn.ModuleList, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    total = torch.zeros(len(t), dtype=t.dtype)
    for layer in layers:
        t, ladj, score = forward_with_score(layer, t, score)
        total = total + ladj
    return t, total, score


def inputs(features: int, n: int = 7) -> tuple[Tensor, Tensor]:
    t = torch.randn(n, features, dtype=torch.float64, requires_grad=True)
    return t, torch.randn_like(t).detach()


@pytest.mark.parametrize("features", [1, 2, 5])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
class TestRun:
    def test_values_and_gradients_are_those_of_its_layers(self, activation, pattern, features):
        layers = layers_of(pattern, activation, features)
        t, score = inputs(features)
        (run,) = in_runs(layers, t)
        assert isinstance(run, Run)
        results = []
        for out, ladj, carried in (run.forward_with_score(t, score), one_by_one(layers, t, score)):
            assert not carried.requires_grad
            loss = (out.sin().sum(1) * torch.arange(1.0, 8.0) + ladj.square()).sum()
            results.append([out, ladj, carried, *torch.autograd.grad(loss, [t, *layers.parameters()])])
        torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)

    def test_without_a_score_it_is_a_map_with_its_log_determinant(self, activation, pattern, features):
        layers = layers_of(pattern, activation, features)
        t, _ = inputs(features, n=3)
        (run,) = in_runs(layers, t)
        out, ladj = run(t)
        torch.testing.assert_close(ladj, brute_force_ladj(run, t.detach()))
        with torch.no_grad():
            torch.testing.assert_close((out, ladj), tuple(run(t)), rtol=0, atol=0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
class TestDerivatives:
    def test_of_second_order_are_those_of_its_layers(self, activation):
        layers = layers_of("lala", activation, 2)
        t, score = inputs(2)
        (run,) = in_runs(layers, t)
        results = []
        for out, ladj, _ in (run.forward_with_score(t, score), one_by_one(layers, t, score)):
            loss = (out.sin().sum(1) + ladj.square()).sum()
            first = torch.autograd.grad(loss, [t, *layers.parameters()], create_graph=True)
            again = sum(g.square().sum() for g in first)
            results.append(torch.autograd.grad(again, [t, *layers.parameters()]))
        torch.testing.assert_close(*results, rtol=1e-9, atol=1e-11)

    @pytest.mark.parametrize("which", [0, 1])
    def test_of_one_output_alone(self, activation, which):
        layers = layers_of("lal", activation, 3)
        t, score = inputs(3)
        (run,) = in_runs(layers, t)
        results = [
            torch.autograd.grad(outputs[which].square().sum(), [t, *layers.parameters()], allow_unused=True)
            for outputs in (run.forward_with_score(t, score), one_by_one(layers, t, score))
        ]
        for ours, wanted in zip(*results, strict=True):
            torch.testing.assert_close(ours, torch.zeros_like(ours) if wanted is None else wanted)

    def test_by_batched_cotangents(self, activation):
        layers = layers_of("lal", activation, 2)
        t, _ = inputs(2)
        (run,) = in_runs(layers, t)
        out, _ = run(t)
        seeds = torch.randn(3, *out.shape, dtype=out.dtype)
        (together,) = torch.autograd.grad(out, t, seeds, retain_graph=True, is_grads_batched=True)
        each = [torch.autograd.grad(out, t, seed, retain_graph=True)[0] for seed in seeds]
        torch.testing.assert_close(together, torch.stack(each))

    def test_where_the_input_is_fixed(self, activation):
        layers = layers_of("lal", activation, 2)
        t = inputs(2)[0].detach()
        (run,) = in_runs(layers, t)
        run(t)[1].sum().backward()
        assert all(p.grad is not None for p in layers.parameters())

    def test_where_some_weights_are_fixed(self, activation):
        layers = layers_of("lal", activation, 2)
        layers[0].requires_grad_(False)
        t, score = inputs(2)
        (run,) = in_runs(layers, t)
        run.forward_with_score(t, score)[1].sum().backward()
        assert layers[0].weight.grad is None and layers[2].weight.grad is not None


def test_an_output_may_be_changed_in_place():
    layers = layers_of("la", "staircase", 2)
    t, score = inputs(2)
    (run,) = in_runs(layers, t)
    out, ladj, _ = run.forward_with_score(t, score)
    wanted = torch.autograd.grad(out.sum() + ladj.sum(), t, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(out.mul_(1).sum() + ladj.add_(0).sum(), t), wanted)


def test_a_singular_matrix_has_no_volume_but_values_with_gradients():
    layers = layers_of("la", "staircase", 2)
    with torch.no_grad():
        layers[0].weight.zero_()
    t = torch.zeros(2, 2, dtype=torch.float64)
    (run,) = in_runs(layers, t)
    out, ladj = run(t)
    assert ladj.tolist() == [-torch.inf] * 2
    for create_graph in (False, True):
        (found,) = torch.autograd.grad(
            out.sum(), layers[0].weight, retain_graph=True, create_graph=create_graph
        )
        assert found.isfinite().all()


class TestPrecision:
    def flow(self) -> flows.OneWayFlow:
        torch.manual_seed(0)
        return flows.OneWayFlow(
            flows.StandardNormal(2), [flows.Linear(2), flows.Staircase(2), flows.Linear(2)]
        )

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_a_flow_in_half_precision_is_layer_by_layer(self, dtype):
        flow, t = self.flow(), torch.randn(5, 2)
        wanted, _ = flow(t)
        out, ladj, score = flow.to(dtype).forward_with_score(t.to(dtype), -t.to(dtype))
        assert out.dtype == dtype and ladj.dtype == torch.float32 and score.isfinite().all()
        torch.testing.assert_close(out.float(), wanted, atol=0.05, rtol=0.05)

    @pytest.mark.parametrize("create_graph", [False, True])
    def test_backward_within_autocast(self, create_graph):
        flow, t = self.flow(), torch.randn(5, 2)
        out, ladj = flow(t)
        wanted = torch.autograd.grad((out.sum(1) + ladj).sum(), list(flow.parameters()))
        with torch.autocast("cpu", torch.bfloat16):
            out, ladj = flow(t)
            loss = (out.sum(1) + ladj).sum()
            found = torch.autograd.grad(loss, list(flow.parameters()), create_graph=create_graph)
        torch.testing.assert_close([f.detach() for f in found], list(wanted))

    def test_single_precision_is_that_of_layer_by_layer(self):
        layers = layers_of("lalal", "staircase", 3).float()
        t, score = torch.randn(500, 3), torch.randn(500, 3)
        (run,) = in_runs(layers, t)
        wide = [v.double() for v in one_by_one(layers.double(), t.double(), score.double())]
        ours = run.forward_with_score(t, score) if layers.float() else None
        for found, exact in zip(ours, wide, strict=True):
            torch.testing.assert_close(found.double(), exact, atol=2e-4, rtol=2e-4)


def test_many_features_stand_alone():
    layers = [flows.Linear(33), flows.Staircase(33)]
    assert in_runs(layers, torch.zeros(1, 33)) == layers


class TestInRuns:
    def sizes(self, layers: list[nn.Module], t: Tensor | None = None) -> list[int]:
        pieces = in_runs(layers, torch.zeros(3, 2) if t is None else t)
        return [len(p.layers) if isinstance(p, Run) else 1 for p in pieces]

    def test_keeps_the_order_of_what_it_does_not_join(self):
        noise, norm = flows.Inflate(1), flows.ActNorm(2)
        layers = [flows.Linear(2), flows.Staircase(2), noise, norm, flows.Linear(2)]
        pieces = in_runs(layers, torch.zeros(3, 2))
        assert isinstance(pieces[0], Run) and pieces[1:] == [noise, norm, layers[-1]]

    def test_a_run_ends_where_a_layer_is_of_another_size_or_kind(self):
        linear, steps = flows.Linear, flows.Staircase
        assert self.sizes([linear(2), steps(2), linear(2), steps(2)]) == [4]
        assert self.sizes([linear(2), steps(2), linear(3), steps(3)]) == [2, 2]
        assert self.sizes([linear(2), steps(2, 8), linear(2), steps(2, 4)]) == [3, 1]
        assert self.sizes([linear(2), linear(2), steps(2), steps(2)]) == [1, 2, 1]
        assert self.sizes([linear(2), steps(2), linear(2), flows.SoftReLU(features=2, learned=True)]) == [
            3,
            1,
        ]
        assert self.sizes([linear(2), flows.SoftReLU()]) == [1, 1]
        assert self.sizes([linear(2, parametrization="lu"), steps(2)]) == [1, 1]

    def test_a_subclass_or_a_layer_with_hooks_stands_alone(self):
        class Mine(flows.Linear):
            pass

        assert self.sizes([Mine(2), flows.Staircase(2)]) == [1, 1]
        for register in ("register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"):
            layer = flows.Linear(2)
            handle = getattr(layer, register)(lambda *_: None)
            assert self.sizes([layer, flows.Staircase(2)]) == [1, 1]
            handle.remove()
            assert self.sizes([layer, flows.Staircase(2)]) == [2]
        layer = flows.Linear(2)
        layer.forward = lambda t: (2 * t, torch.zeros(len(t)))
        assert self.sizes([layer, flows.Staircase(2)]) == [1, 1]
        layer = nn.utils.parametrizations.spectral_norm(flows.Linear(2))
        assert self.sizes([layer, flows.Staircase(2)]) == [1, 1]

    def test_nothing_is_joined_where_every_layer_is_followed(self):
        layers = [flows.Linear(2), flows.Staircase(2)]
        with ops.use_reference():
            assert self.sizes(layers) == [1, 1]
        seen = []

        def look(t: Tensor) -> Tensor:
            seen.append(self.sizes(layers, t))
            return t.sum()

        torch.func.grad(look)(torch.zeros(3, 2))
        torch.func.jvp(look, (torch.zeros(3, 2),), (torch.ones(3, 2),))
        assert seen == [[1, 1]] * 2

    def test_errors_are_those_of_the_layers(self):
        (run,) = in_runs([flows.Linear(2), flows.Staircase(2)], torch.zeros(3, 2))
        with pytest.raises(ValueError, match=r"Linear: t must have shape \(B, 2, ...\), got \(3, 5\)"):
            run(torch.zeros(3, 5))
        with pytest.raises(RuntimeError, match="dtype"):
            run(torch.zeros(3, 2, dtype=torch.float64))


@pytest.mark.parametrize("preset", ["default", "inflated"])
def test_a_generators_samples_and_gradients_are_those_of_its_layers(preset):
    from led_fast.models import points_generator

    torch.manual_seed(0)
    generator = randomize(points_generator(preset).double(), 0.1)
    results = []
    for join in (in_runs, lambda layers, t: list(layers)):
        torch.manual_seed(1)
        with mock.patch.object(flow_module, "in_runs", join):
            sample = generator.rsample_with_score(20)
        loss = (sample.y.square().sum(1) + 1.3 * sample.log_q_path + 0.7 * sample.log_q_fixed).sum()
        grads = torch.autograd.grad(loss, list(generator.parameters()), allow_unused=True)
        results.append([*sample, *(g for g in grads if g is not None)])
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-11)


def test_a_score_that_is_followed_keeps_its_gradient():
    layers = layers_of("la", "staircase", 2)
    t, score = inputs(2)
    (run,) = in_runs(layers, t)
    score.requires_grad_()
    results = [
        torch.autograd.grad(carried.sum(), score)
        for _, _, carried in (run.forward_with_score(t, score), one_by_one(layers, t, score))
    ]
    torch.testing.assert_close(*results)
