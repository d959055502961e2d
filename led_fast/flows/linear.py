"""The linear layer (A.1)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from led_fast.flows.contract import Layer, check_features, check_positive, log_dtype
from led_fast.ops.autocast import without_autocast
from led_fast.ops.linear_maps import Dense, LowRank, Triangles

Parametrization = Literal["dense", "lu", "woodbury"]


class Linear(Layer):
    """A square linear map with bias, `t' = W t + b`, ladj = log|det W| (Eq. 9).

    It starts as a random orthogonal map, of determinant ±1 and singular values 1; with "woodbury" it turns a random
    subspace of `rank` dimensions and leaves what is orthogonal to it. The entropy term of the generator's loss keeps W
    away from singularity afterwards. At a singular W, ladj is -inf; there is no way back, so that of `inverse` is inf,
    and neither its values nor the score are finite.

    Args:
        features: size D of input and output.
        parametrization: what is learned.
            "dense": W. Each call factorises it, at O(D³).
            "lu": L and U of `W = P L U`; P stays as it is, and so do the signs of U's diagonal (Kingma and Dhariwal
            2018, "Glow", Sec. 3.2). ladj is a sum, the way back and the score are triangular systems, and W is never
            singular.
            "woodbury": U and V of `W = I + U Vᵀ`, (D, rank) each. All costs are O(D rank) a sample and O(rank³), by
            the matrix determinant lemma and Woodbury's identity.
        rank: of "woodbury"; D where it is more.

    Shape:
        t: (B, D). Output: (B, D) and ladj (B,).

    Attributes:
        bias: b, (D,).
        weight: W of "dense", (D, D).
        factors: of "lu", (D, D): L below the diagonal, U above it, log|U_ii| on it. Its buffers are `signs`, those of
            U_ii, and `order`: element i of W t is element `order[i]` of L U t; (D,) each.
        left, right: U and V of "woodbury".

    Raises:
        ValueError: features or rank are not positive, or there is no such parametrization.

    Example:
        >>> import torch
        >>> from led_fast import flows
        >>> layer = flows.Linear(100, parametrization="woodbury", rank=8)
        >>> t = torch.randn(3, 100)
        >>> out, ladj = layer(t)
        >>> torch.allclose(layer.inverse(out)[0], t, atol=1e-5)
        True
    """

    signs: Tensor
    order: Tensor

    def __init__(self, features: int, parametrization: Parametrization = "dense", rank: int = 16) -> None:
        super().__init__()
        check_positive("Linear", features=features, rank=rank)
        if parametrization not in get_args(Parametrization):
            raise ValueError(
                f"Linear: parametrization must be 'dense', 'lu' or 'woodbury', got {parametrization!r}"
            )
        self.features = features
        self.parametrization = parametrization
        if parametrization == "dense":
            self.weight = nn.Parameter(_rotation(features))
        elif parametrization == "lu":
            self._start_triangles(_rotation(features))
        else:
            self._start_low_rank(min(rank, features))
        self.bias = nn.Parameter(torch.zeros(features))

    def _start_triangles(self, weight: Tensor) -> None:
        permutation, lower, upper = torch.linalg.lu(weight)
        diagonal = upper.diagonal()
        factors = lower.tril(-1) + upper.triu(1) + diagonal.abs().log().diag()
        self.factors = nn.Parameter(factors)
        self.register_buffer("signs", diagonal.sign())
        self.register_buffer("order", permutation.argmax(1))

    def _start_low_rank(self, rank: int) -> None:
        subspace = nn.init.orthogonal_(torch.empty(self.features, rank))
        self.left = nn.Parameter(subspace @ (_rotation(rank) - torch.eye(rank)))
        self.right = nn.Parameter(subspace)

    def _map(self) -> Dense | Triangles | LowRank:
        if self.parametrization == "dense":
            return Dense(self.weight)
        if self.parametrization == "lu":
            return Triangles(self.factors, self.signs, self.order)
        return LowRank(self.left, self.right)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (W t + b, log|det W| for every sample)."""
        _check(t, self.features)
        linear = self._map()
        out = linear.apply(t, self.bias)
        with without_autocast(t):
            return out, _for_every_sample(linear.log_abs_det(), t)

    def inverse(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (W⁻¹ (t - b), -log|det W| for every sample)."""
        _check(t, self.features)
        bias = self.bias
        with without_autocast(t):
            out, ladj = self._map().undo((t - bias).to(log_dtype(bias)))
        return out.to(t.dtype), _for_every_sample(-ladj, t)

    def forward_with_score(self, t: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Layer`: score' = W⁻ᵀ score."""
        _check(t, self.features)
        linear, bias = self._map(), self.bias
        out = linear.apply(t, bias)
        with without_autocast(t):
            pulled, ladj = linear.pull(score.to(log_dtype(bias)))
        return out, _for_every_sample(ladj, t), pulled.to(score.dtype)


def _rotation(features: int) -> Tensor:
    """A random orthogonal matrix."""
    return nn.init.orthogonal_(torch.empty(features, features))


def _check(t: Tensor, features: int) -> None:
    check_features("Linear", t, features)
    if t.dim() != 2:
        raise ValueError(f"Linear: t must have shape (B, {features}), got {tuple(t.shape)}")


def _for_every_sample(ladj: Tensor, t: Tensor) -> Tensor:
    return ladj.expand(t.shape[0]).clone()  # no view: the caller may add to it in place
