"""Densities of small images that are known exactly: a critic, a generator that draws from it, and data."""

import math

import torch
from torch import nn

from led_fast.data.images import ImageCollection, ImageSet, ImageSource, quantize
from led_fast.density import DensityModel
from led_fast.evaluation import evaluate_images
from led_fast.flows import DiagonalNormal, OneWayFlow, Sigmoid

SHAPE = (1, 4, 4)
DIMS = 16
MEAN, SCALE = -0.5, 0.8
# Of x = σ(z), z ~ N(MEAN, SCALE²), in nats per pixel: H(z) + E[log σ'(z)], by quadrature.
Z = torch.linspace(MEAN - 12 * SCALE, MEAN + 12 * SCALE, 20_001, dtype=torch.float64)
P = torch.exp(-0.5 * ((Z - MEAN) / SCALE) ** 2) / (SCALE * math.sqrt(2 * math.pi))
ENTROPY = (
    0.5 * math.log(2 * math.pi * math.e * SCALE**2)
    + torch.trapezoid(P * (nn.functional.logsigmoid(Z) + nn.functional.logsigmoid(-Z)), Z).item()
)


class ExactCritic(nn.Module):
    """The log density of the generator below, plus a constant, minus a penalty on brightness."""

    def __init__(self, offset=3.0, tilt=0.0):
        super().__init__()
        self.offset, self.tilt = offset, tilt

    def forward(self, x):
        z = torch.logit(x.double())
        log_p = -0.5 * ((z - MEAN) / SCALE) ** 2 - math.log(SCALE * math.sqrt(2 * math.pi))
        log_p = log_p - torch.log(x.double() * (1 - x.double()))
        return log_p.flatten(1).sum(1) + self.offset - self.tilt * x.double().flatten(1).sum(1)


def exact_generator():
    return OneWayFlow(DiagonalNormal(torch.full(SHAPE, MEAN), SCALE), [Sigmoid()])


def exact_model(**critic):
    # One parameter, so that the model is on a device.
    model = DensityModel(ExactCritic(**critic), exact_generator())
    model.critic.register_parameter("unused", nn.Parameter(torch.zeros(())))
    return model


def exact_source(seed=0, count=4000, tilted=0.0):
    """Images of the generator, or of its density tilted by exp(-tilted x), pixel by pixel, by resampling."""
    torch.manual_seed(seed)
    pixels = exact_generator().sample(count).flatten()
    chosen = torch.multinomial(torch.exp(-tilted * pixels), len(pixels), replacement=True) if tilted else ...
    images = quantize(pixels[chosen].view(count, *SHAPE))
    return ImageSource("exact", ImageCollection(ImageSet(images)))


def evaluate_quickly(model, source, seed=0, temperatures=0, **options):
    return evaluate_images(model, source, seed, temperatures=temperatures, **options)
