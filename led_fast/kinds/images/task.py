"""Training on images: dequantised pixels in the box [0, 1], which the generator fills and the critic ends at."""

from pathlib import Path

import torch
from torch import Tensor, nn

from led_fast.data.images import ImageSource, dequantize
from led_fast.density import DensityModel, ProposalDraw, squared_gradient
from led_fast.evaluation import estimate_image_normalizer
from led_fast.figures import grid_figure
from led_fast.flows import OneWayFlow, ScoredSample
from led_fast.gpu import gpu_or_cpu
from led_fast.kinds.images.settings import ImagesModel
from led_fast.models import ImageCritic, image_critic, image_generator, standardize
from led_fast.random_state import set_seed
from led_fast.training.config import TrainConfig
from led_fast.training.feed import Feed
from led_fast.training.task import Task

_STANDARDIZED_BY = 5000  # images
_NORMALIZER_SAMPLES = 5000
_PREVIEW_SAMPLES = 64
_LOST = 10.0  # nats a value, between critic and generator


def image_networks(model: ImagesModel) -> tuple[ImageCritic, OneWayFlow]:
    """The untrained critic and generator of images."""
    networks = model.networks()
    return image_critic(networks), image_generator(networks)


class ImagesTask(Task):
    """Training on dequantised images, on a GPU where there is one.

    Args:
        config: of the run.
        source: its data.
    """

    def __init__(self, config: TrainConfig, source: ImageSource) -> None:
        self.device = gpu_or_cpu()
        self.recipe, self.source = config.recipe, source
        self._batches = Feed(lambda n: source.draw(n, self.device), self.device)
        self.feed: Feed | None = self._batches
        with torch.device("cpu"):  # where all devices draw the same weights
            critic, generator = image_networks(config.model)
        standardize(generator, critic, source.sample(_STANDARDIZED_BY))
        self._critic = critic.to(self.device)
        self.critic: nn.Module = self._critic
        self.generator = generator.to(self.device)
        self.tilts = critic.tilted is not None
        self.anchored = critic.config.cap is not None

    def discriminate(self, x: Tensor) -> Tensor:
        """The critic's network, without the density of independent pixels."""
        return self._critic.discriminate(x)

    def squared_gradient(self, x: Tensor) -> Tensor:
        """By the critic's coordinates of the pixels, in which all of them have unit variance."""
        return squared_gradient(self._critic.discriminate, x, self._critic.unit(x))

    def data(self, n: int, at: float) -> Tensor:
        """Draws n training images, dequantised afresh."""
        return dequantize(self._batches(n))

    def proposals(self, n: int, at: float, drawn: ScoredSample | None = None) -> ProposalDraw:
        """Draws n images of the generator."""
        if drawn is not None:
            return super().proposals(n, at, drawn)
        with torch.no_grad():  # no more in memory at a time than the critic may have
            sizes = [len(part) for part in torch.empty(n).split(self.recipe.batches.micro_batch or n)]
            parts = [self.generator.rsample_and_log_prob(size) for size in sizes]
        y, log_q = map(torch.cat, zip(*parts, strict=True))
        return ProposalDraw(y, log_q, None)

    def generated(self, n: int) -> ScoredSample:
        """Draws n images; without a forward KL all gradients are those of `rsample_and_log_prob`."""
        if self.recipe.generator_loss.forward_weight:
            return self.generator.rsample_with_score(n)
        y, log_q = self.generator.rsample_and_log_prob(n)  # which the reverse KL can do with, in less time
        return ScoredSample(y, log_q, log_q, log_q)

    def target(self, f: Tensor, sample: ScoredSample, log_normalizer: Tensor, at: float) -> Tensor:
        """f, and α times the generator's own density at samples that were lost on their way: these say nothing then.

        Now and then the layers of a flow add up to a pixel far beyond what float32 tells from white, and the density of
        the image that is stored has nothing to do with that of the one that was drawn. One such gradient would end the
        run. (Where f is relative to the generator's density, neither is in it, and what the net says of the image that
        is stored counts.)
        """
        own = sample.log_q_path + log_normalizer.to(sample.log_q.dtype)
        lost = ~((f - own).detach().abs() < _LOST * sample.y[0].numel())
        return torch.where(lost, own, f)

    def adopt(self, critic: nn.Module, generator: OneWayFlow) -> None:
        """A critic that tilts a generator takes this one."""
        assert isinstance(critic, ImageCritic)
        if self.tilts:
            critic.adopt(generator)

    def preview(self, generator: OneWayFlow, path: Path) -> None:
        """Writes a PNG of the images of fixed latent values."""
        set_seed(0, self.device)
        grid_figure(path, generator.sample(_PREVIEW_SAMPLES), columns=8)

    def model(self, critic: nn.Module, generator: OneWayFlow) -> DensityModel:
        """The density of images; its log-normaliser is the best of several estimates, which `evaluate` repeats."""
        model = DensityModel(critic, generator)
        if self.recipe.has_density:
            # Samples of what it tilts do, until a report sets annealing beside them; else some is needed here.
            quick = {"temperatures": 0} if self.tilts else {"chains": 100}
            normalizer = estimate_image_normalizer(model, self.source, _NORMALIZER_SAMPLES, **quick)
            model.set_verdict(normalizer.verdict())
        return model
