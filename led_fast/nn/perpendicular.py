"""Linear layers and convolutions that also report what they did not look at (LED, Sec. 2.2)."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from led_fast.nn.mixed_precision import MixedSequential
from led_fast.ops.perpendicular import MODES, perpendicular, perpendicular_norm


def _output(t: Tensor, bias: Tensor | None, shape: Sequence[int]) -> Tensor:
    """`t + b`, always a tensor of its own: the norm's gradient needs t, and the caller may change the output."""
    if bias is not None:
        return t + bias.to(t.dtype).reshape(shape)
    return t.clone() if torch.is_grad_enabled() else t


def _norm(x: Tensor, weight: Tensor, t: Tensor, mode: str, **geometry: Any) -> Tensor:
    if mode == "direction":
        return perpendicular_norm(x, weight, t, **geometry)
    square = perpendicular(x, weight, mode=mode, **geometry).flatten(1).square().sum(dim=1)
    # Not vector_norm, because its second derivative at 0 is NaN; here all derivatives at 0 are 0.
    return torch.where(square > 0, torch.where(square > 0, square, 1).sqrt(), 0)


def _check_mode(layer: str, mode: str) -> str:
    if mode not in MODES:
        raise ValueError(f"{layer}: mode must be one of {MODES}, got {mode!r}")
    return mode


class PerpendicularLinear(nn.Linear):
    """:class:`torch.nn.Linear` that returns `‖x⊥‖` beside its output.

    Args:
        in_features: Size of each input sample.
        out_features: Size of each output sample.
        bias: Whether to add a bias. It is no part of `x⊥`.
        mode: What `x⊥` is perpendicular to: "direction" or "exact", see :func:`led_fast.perpendicular`.
        device: As in torch.
        dtype: As in torch.

    Shape:
        (B, in_features) -> (B, out_features) and (B,).

    Raises:
        ValueError: The mode is unknown.

    Example:
        >>> import torch
        >>> from led_fast.nn import PerpendicularLinear
        >>> t, norm = PerpendicularLinear(3, 2)(torch.ones(5, 3))
        >>> t.shape, norm.shape
        (torch.Size([5, 2]), torch.Size([5]))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        mode: str = "direction",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.mode = _check_mode("PerpendicularLinear", mode)
        super().__init__(in_features, out_features, bias, device, dtype)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Returns `W x + b` and `‖x⊥‖` of shape (B,)."""
        weight = self.weight  # once: a parametrisation computes it at every access
        t = nn.functional.linear(x, weight)
        norm = _norm(x, weight, t, self.mode)
        return _output(t, self.bias, (-1,)), norm

    def extra_repr(self) -> str:
        """Parameters for `print(module)`."""
        return f"{super().extra_repr()}, mode={self.mode}"


class PerpendicularConv2d(nn.Conv2d):
    """:class:`torch.nn.Conv2d` that returns `‖x⊥‖` beside its output.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: As in torch, like the following ones.
        stride: An integer or a pair.
        padding: An integer or a pair.
        dilation: An integer or a pair.
        groups: Must divide both channel counts.
        bias: Whether to add a bias. It is no part of `x⊥`.
        padding_mode: Only "zeros": the transposed convolution of another mode would be another one.
        mode: What `x⊥` is perpendicular to: "direction" or "exact", see :func:`led_fast.perpendicular`.
        device: As in torch.
        dtype: As in torch.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, h, w) and (B,).

    Raises:
        ValueError: The mode or the padding mode is not supported, or padding is a string.

    Example:
        >>> import torch
        >>> from led_fast.nn import PerpendicularConv2d
        >>> t, norm = PerpendicularConv2d(3, 64, 4, stride=2, padding=1)(torch.rand(8, 3, 32, 32))
        >>> t.shape, norm.shape
        (torch.Size([8, 64, 16, 16]), torch.Size([8]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        mode: str = "direction",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if padding_mode != "zeros":
            raise ValueError(f"PerpendicularConv2d: padding_mode must be 'zeros', got {padding_mode!r}")
        if isinstance(padding, str):
            raise ValueError(
                f"PerpendicularConv2d: padding must be an integer or a pair of them, got {padding!r}"
            )
        self.mode = _check_mode("PerpendicularConv2d", mode)
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            "zeros",
            device,
            dtype,
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Returns `W x + b` and `‖x⊥‖` of shape (B,)."""
        geometry: dict[str, Any] = dict(
            stride=self.stride, padding=self.padding, dilation=self.dilation, groups=self.groups
        )
        weight = self.weight
        t = nn.functional.conv2d(x, weight, None, **geometry)
        norm = _norm(x, weight, t, self.mode, **geometry)
        return _output(t, self.bias, (-1, 1, 1)), norm

    def extra_repr(self) -> str:
        """Parameters for `print(module)`."""
        return f"{super().extra_repr()}, mode={self.mode}"


class PerpendicularSequential(MixedSequential):
    """:class:`MixedSequential` that sums the norms of its perpendicular layers: `Σ_k ‖x⊥_k‖` (Sec. 2.2).

    Args:
        *layers: Modules of any kind; of a perpendicular layer's `(t, norm)`, t goes on to the next one.
        squared: Sum `‖x⊥_k‖²` instead.

    Shape:
        What the first layer takes -> what the last one gives, and (B,).

    Example:
        >>> import torch
        >>> from led_fast.nn import PerpendicularLinear, PerpendicularSequential
        >>> layers = PerpendicularLinear(2, 8), torch.nn.LeakyReLU(), PerpendicularLinear(8, 1)
        >>> body = PerpendicularSequential(*layers)
        >>> value, penalty = body(torch.ones(5, 2))
        >>> log_density = value.squeeze(1) - penalty  # log N(x), unnormalised
    """

    def __init__(self, *layers: nn.Module, squared: bool = False) -> None:
        super().__init__(*layers)
        self.squared = squared

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Returns the last layer's output, and the sum of norms."""
        total = x.new_zeros(x.shape[0], dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)
        if self._is_uniform(x):
            return self._sum(self, x, total)
        inside, outside = self._parts()
        with self._inside(x):
            x, total = self._sum(inside, x, total)
        with self._outside(x) as x:
            return self._sum(outside, x, total)

    def _sum(self, layers: Iterable[nn.Module], x: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        for layer in layers:
            if isinstance(layer, (PerpendicularLinear, PerpendicularConv2d)):
                x, norm = layer(x)
                total = total + (norm.square() if self.squared else norm)
            else:
                x = layer(x)
        return x, total

    def extra_repr(self) -> str:
        """Parameters for `print(module)`."""
        return f"squared={self.squared}"
