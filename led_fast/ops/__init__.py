"""Operators: pure functions on tensors, one file each, with CPU and CUDA kernels behind them."""

from led_fast.ops.backend import reference_in_use as reference_in_use
from led_fast.ops.backend import use_reference as use_reference
from led_fast.ops.circulant_logdet import circulant_logdet as circulant_logdet
from led_fast.ops.circular_conv_inverse import circular_conv_inverse as circular_conv_inverse
from led_fast.ops.fourier_features import fourier_features as fourier_features
from led_fast.ops.mixture import mixture_log_prob as mixture_log_prob
from led_fast.ops.mixture import mixture_log_prob_and_score as mixture_log_prob_and_score
from led_fast.ops.perpendicular import perpendicular as perpendicular
from led_fast.ops.perpendicular import perpendicular_norm as perpendicular_norm
from led_fast.ops.soft_relu import soft_relu as soft_relu
from led_fast.ops.soft_relu_inverse import soft_relu_inverse as soft_relu_inverse
from led_fast.ops.staircase import staircase as staircase
from led_fast.ops.staircase import staircase_inverse as staircase_inverse

__all__ = [
    "circulant_logdet",
    "circular_conv_inverse",
    "fourier_features",
    "mixture_log_prob",
    "mixture_log_prob_and_score",
    "perpendicular",
    "perpendicular_norm",
    "reference_in_use",
    "soft_relu",
    "soft_relu_inverse",
    "staircase",
    "staircase_inverse",
    "use_reference",
]
