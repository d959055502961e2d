"""Drop-in layers. Every layer of a flow returns `(y, log_abs_det)`, value and log-determinant together."""

from led_fast.nn.circular_conv import CircularConv2d as CircularConv2d
from led_fast.nn.convolution import Conv2d as Conv2d
from led_fast.nn.convolution import ConvTranspose2d as ConvTranspose2d
from led_fast.nn.fourier_features import FourierFeatures as FourierFeatures
from led_fast.nn.leaky_relu import InplaceLeakyReLU as InplaceLeakyReLU
from led_fast.nn.mixed_precision import MixedSequential as MixedSequential
from led_fast.nn.mixed_precision import set_inner_dtype as set_inner_dtype
from led_fast.nn.perpendicular import PerpendicularConv2d as PerpendicularConv2d
from led_fast.nn.perpendicular import PerpendicularLinear as PerpendicularLinear
from led_fast.nn.perpendicular import PerpendicularSequential as PerpendicularSequential
from led_fast.nn.soft_relu import SoftReLU as SoftReLU

__all__ = [
    "CircularConv2d",
    "Conv2d",
    "ConvTranspose2d",
    "FourierFeatures",
    "InplaceLeakyReLU",
    "MixedSequential",
    "PerpendicularConv2d",
    "PerpendicularLinear",
    "PerpendicularSequential",
    "SoftReLU",
    "set_inner_dtype",
]
