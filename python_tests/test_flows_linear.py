"""The linear layer's parametrisations, each against the matrix that it stands for."""

import pytest
import torch
from flow_oracles import randomize

from led_fast.flows import Linear

ALL = ["dense", "lu", "woodbury"]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def matrix_of(layer: Linear) -> torch.Tensor:
    """W, written down from what is documented of the parameters."""
    if layer.parametrization == "dense":
        return layer.weight.detach()
    one = torch.eye(layer.features, dtype=layer.bias.dtype)
    if layer.parametrization == "woodbury":
        return one + layer.left.detach() @ layer.right.detach().mT
    lower, upper = layer.factors.detach().tril(-1) + one, layer.factors.detach().triu()
    for i in range(layer.features):
        upper[i, i] = layer.signs[i] * upper[i, i].exp()
    return (lower @ upper)[layer.order]


@pytest.mark.parametrize("parametrization", ALL)
@pytest.mark.parametrize("features", [1, 2, 9])
def test_it_is_the_documented_matrix(parametrization, features):
    layer = randomize(Linear(features, parametrization, rank=3).double(), 0.2)
    weight, t, score = matrix_of(layer), *torch.randn(2, 4, features, dtype=torch.float64)
    out, ladj, carried = layer.forward_with_score(t, score)
    torch.testing.assert_close(out, t @ weight.mT + layer.bias)
    torch.testing.assert_close(ladj, torch.linalg.slogdet(weight).logabsdet.expand(4))
    torch.testing.assert_close(carried, torch.linalg.solve(weight, score, left=False))
    back, ladj_back = layer.inverse(out)
    torch.testing.assert_close(back, t)
    torch.testing.assert_close(ladj_back, -ladj)


@pytest.mark.parametrize("parametrization", ALL)
@pytest.mark.parametrize("features", [1, 2, 40])
def test_it_starts_orthogonal(parametrization, features):
    layer = Linear(features, parametrization).double()
    weight = matrix_of(layer)
    torch.testing.assert_close(
        weight @ weight.mT, torch.eye(features, dtype=torch.float64), rtol=0, atol=1e-5
    )
    assert layer(torch.randn(1, features, dtype=torch.float64))[1].abs() < 1e-5
    assert parametrization != "woodbury" or torch.linalg.matrix_rank(
        weight - torch.eye(features), tol=1e-3
    ) <= min(features, 16)


@pytest.mark.parametrize("parametrization", ALL)
def test_half_precision_parameters(parametrization):
    layer = Linear(6, parametrization, rank=2).bfloat16()
    t = torch.randn(3, 6, dtype=torch.bfloat16)
    out, ladj, score = layer.forward_with_score(t, t)
    back, ladj_back = layer.inverse(out)
    assert {out.dtype, score.dtype, back.dtype} == {torch.bfloat16}
    assert {ladj.dtype, ladj_back.dtype} == {torch.float32}
    torch.testing.assert_close(back, t, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("parametrization", ALL)
def test_scores_and_ladj_are_of_full_precision_under_autocast(parametrization):
    layer = randomize(Linear(6, parametrization, rank=2), 0.1)
    t = torch.randn(3, 6)
    _, ladj, score = layer.forward_with_score(t, t)
    back, _ = layer.inverse(t)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(t)[1], ladj)
        _, same_ladj, same_score = layer.forward_with_score(t, t)
        assert torch.equal(same_ladj, ladj) and torch.equal(same_score, score)
        assert torch.equal(layer.inverse(t)[0], back)


def test_a_singular_low_rank_map():
    layer = Linear(4, "woodbury", rank=1)
    with torch.no_grad():
        layer.left.copy_(-torch.eye(4)[:, :1])
        layer.right.copy_(torch.eye(4)[:, :1])
    out, ladj, score = layer.forward_with_score(torch.ones(2, 4), torch.ones(2, 4))
    assert (ladj == -torch.inf).all() and not score[:, 0].isfinite().any()
    back, ladj = layer.inverse(out)
    assert (ladj == torch.inf).all() and not back[:, 0].isfinite().any()


def test_parameters_by_name():
    shapes = {k: {n: tuple(v.shape) for n, v in Linear(5, k, 2).state_dict().items()} for k in ALL}
    assert shapes == {
        "dense": {"weight": (5, 5), "bias": (5,)},
        "lu": {"factors": (5, 5), "bias": (5,), "signs": (5,), "order": (5,)},
        "woodbury": {"left": (5, 2), "right": (5, 2), "bias": (5,)},
    }
    assert Linear(5, "woodbury").left.shape == (5, 5)


@pytest.mark.parametrize(("arguments", "message"), [(("qr",), "'dense', 'lu' or"), (("lu", 0), "rank must")])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Linear(3, *arguments)
