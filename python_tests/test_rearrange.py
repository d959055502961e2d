"""Values moved about within samples by a gather: as the views say."""

import pytest
import torch

import led_fast
from led_fast.ops.rearrange import rearranged


def crossed(t, rows):
    return t.unflatten(1, (rows, -1)).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("batch", [0, 3])
def test_is_the_move_and_its_gradient(batch):
    t = torch.randn(batch, 6, 5, dtype=torch.float64, requires_grad=True)
    out = rearranged(crossed, t, 2)
    assert torch.equal(out, crossed(t, 2)) and out.is_contiguous()
    (found,) = torch.autograd.grad(out.sin().sum(), t, create_graph=True)
    (wanted,) = torch.autograd.grad(crossed(t, 2).sin().sum(), t, create_graph=True)
    assert torch.equal(found, wanted)
    torch.testing.assert_close(*(torch.autograd.grad(g.square().sum(), t)[0] for g in (found, wanted)))


def test_takes_any_layout_and_gives_a_tensor_of_its_own():
    t = torch.randn(3, 5, 6, requires_grad=True)
    out = rearranged(crossed, t.transpose(1, 2), 3)
    out.mul_(2)  # no view of a function's result
    assert torch.equal(out, 2 * crossed(t.transpose(1, 2), 3))
    out.sum().backward()
    assert torch.equal(t.grad, torch.full_like(t, 2))


def test_under_transforms():
    t = torch.randn(4, 3, 6, 5)
    for function in (
        torch.func.vmap(lambda t: rearranged(crossed, t, 2)),
        torch.func.vmap(lambda t: crossed(t, 2)),
    ):
        assert torch.equal(function(t), torch.stack([crossed(part, 2) for part in t]))
    moved = torch.func.jvp(lambda t: rearranged(crossed, t, 2), (t[0],), (t[1],))
    assert torch.equal(moved[1], crossed(t[1], 2))
    with led_fast.ops.use_reference():
        assert torch.equal(rearranged(crossed, t[0], 2), crossed(t[0], 2))


def test_what_inference_mode_has_made_serves_gradients():
    t = torch.randn(2, 4, 7, requires_grad=True)
    with torch.inference_mode():
        rearranged(crossed, t, 4)
    rearranged(crossed, t, 4).sum().backward()
    assert torch.equal(t.grad, torch.ones_like(t))
