# %% [markdown]
# # LED on your own images
#
# Small pictures, so that it takes minutes on one core: scikit-learn's digits, 8×8. Yours go the same way: a
# folder of pictures, or an array in a file. [A run on MNIST](../images.md) is what an hour gives.

# %%
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt
from rich.console import Console
from sklearn.datasets import load_digits

from led_fast import density
from led_fast.data.images import dequantize, open_images
from led_fast.evaluation import auroc
from led_fast.training import TrainConfig, fit

steps = 20 if "QUICK" in os.environ else 1500
digits = load_digits()
levels = np.minimum(16 * digits.images, 255).astype(np.uint8)  # 17 levels, spread over 0 to 255
path = Path(tempfile.mkdtemp()) / "digits.npz"
np.savez(path, train_images=levels[:1400], test_images=levels[1400:])

# %% [markdown]
# ## Open and train
#
# `open_images` takes whatever `led-fast train` does, keeps a tenth for validation, and says what it found. Levels
# are dequantised: uniform noise of one level's width makes a density of them meaningful.

# %%
source = open_images(path)
config = TrainConfig.of(source, steps=steps, seed=0)
print(f"{source.shape} pictures, preset {config.preset}")
trained = fit(config, source, Console(quiet=True))
model = trained.model
verdict = model.verdict
print(f"log α = {verdict.value:.3f}, reliable: {verdict.reliable}, {verdict.reason}")

# %% [markdown]
# ## Draw
#
# The generator knows the density of what it draws. Above: data; below: draws, the densest first.

# %%
torch.manual_seed(0)
with torch.no_grad():
    drawn = model.sample(20)
    drawn = drawn[model.log_prob(drawn).argsort(descending=True)]


def show(panel, pictures, title):
    tiled = pictures.view(2, 10, 8, 8).transpose(1, 2).reshape(16, 80)
    panel.imshow(tiled, cmap="gray", vmin=0, vmax=1)
    panel.set_title(title, fontsize=10)
    panel.axis("off")


figure, panels = plt.subplots(3, 1, figsize=(7, 4.8), layout="constrained")
show(panels[0], source.held_out(20), "test images")
show(panels[1], drawn, "draws, the densest first")
steps_between = density.interpolate(model.generator, pairs=2, steps=10)
show(panels[2], steps_between.detach(), "walks in latent space")

# %% [markdown]
# ## Score
#
# log α above is that of training alone, which knows two kinds of estimates; `led-fast evaluate` adds annealing.
# What follows are ranks, in which log α cancels, and bits per dimension. These are of the dequantised pictures:
# comparable among models of these pictures, and with nothing else. A picture that is none of the data's kind
# should be less dense; turned digits are close to them, noise is not.

# %%
test = source.held_out(397)
with torch.no_grad():
    of_test = model.log_prob(test)
    others = {
        "upside down": model.log_prob(test.flip(2)),
        "negatives": model.log_prob(1 - test),
        "noise": model.log_prob(dequantize(torch.randint(0, 256, (397, 1, 8, 8), dtype=torch.uint8))),
    }
print(f"test: {density.bits_per_dim(of_test.mean().item(), 64):.3f} bits per dimension")
for name, found in others.items():
    print(f"{name}: less dense than test images with probability {auroc(of_test, found):.4f}")

# %% [markdown]
# On the command line: `led-fast train digits.npz --minutes 5 --out runs/digits`, then `evaluate`, `sample`,
# `interpolate`, `refine`, `score`; see [Images](../tours/images.md). `evaluate` also judges log α, by estimates
# that do not share blind spots: [Believe a likelihood](../tours/believe.md).
