"""Rivals with an exact density: zuko's spline and affine autoregressive flows, by maximum likelihood."""

import math
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from led_fast.random_state import seeded
from led_fast.reproduce.tables.coordinates import Coordinates
from led_fast.reproduce.tables.splits import Rows

_WARM_UP = 50  # steps
_GRADIENT_CLIP = 5.0
_CHECKS = 25  # looks at the validation rows
_CHUNK = 1000
_MOST_VALIDATED = 4000
_LOWEST = -1e4  # counts for a validation row whose density broke


@dataclass(frozen=True)
class FlowSettings:
    """What was tuned.

    Attributes:
        family: `NSF` or `MAF`.
        transforms: autoregressive layers.
        width: hidden units of each of the two layers of their networks.
        bins: of every spline; NSF's alone.
        passes: groups of columns that follow one another, 2 for a coupling; None is fully autoregressive.
        learning_rate: of AdamW, after the warm-up; it falls by half a cosine over the budget.
        weight_decay: of AdamW.
        batch: rows a step.
    """

    family: str = "NSF"
    transforms: int = 3
    width: int = 128
    bins: int = 8
    passes: int | None = None
    learning_rate: float = 5e-3
    weight_decay: float = 1e-4
    batch: int = 512


class FittedFlow(NamedTuple):
    """A density of rows in data units, and how it was come by."""

    flow: nn.Module
    coordinates: Coordinates
    info: dict[str, Any]

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Log density of rows (n, D) in data units; (n,), float64."""
        t, log_det = self.coordinates(x)
        return (_log_prob(self.flow, t.float()) + log_det).numpy()


def fit_zuko_flow(
    settings: FlowSettings,
    coordinates: Coordinates,
    train: Rows,
    validation: Rows,
    deadline: float,
    random: np.random.Generator,
) -> FittedFlow:
    """Trains until a moment of this process's time; the moment that validation rows like best is kept.

    Args:
        settings: of flow and optimiser.
        coordinates: that it is trained in.
        train: rows; their noise is drawn afresh at every pass.
        validation: rows, with one noise.
        deadline: when to stop, by `time.process_time`.
        random: of noise and order; weights are seeded from it too.
    """
    with seeded(int(random.integers(2**31))):
        flow = _network(settings, train.values.shape[1])
    start = time.process_time()
    optimizer = AdamW(flow.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    held_out = coordinates(validation.dequantized(random)[:_MOST_VALIDATED])[0].float()
    best, best_step, kept = -math.inf, 0, flow.state_dict()
    step = checked = skipped = 0
    batches: list[Tensor] = []
    while True:
        now = time.process_time()
        share = 1.0 if now >= deadline else (now - start) / (deadline - start)
        if share * _CHECKS >= checked:
            checked += 1
            likelihood = _log_prob(flow, held_out).nan_to_num(_LOWEST).clamp(min=_LOWEST).mean().item()
            if likelihood > best:
                best, best_step = likelihood, step
                kept = {name: value.clone() for name, value in flow.state_dict().items()}
        if share == 1.0:
            break
        if not batches:
            rows = coordinates(train.dequantized(random))[0].float()
            rows = rows[torch.from_numpy(random.permutation(len(rows)))]
            whole = max(settings.batch, len(rows) // settings.batch * settings.batch)  # no small last batch
            batches = list(rows[:whole].split(settings.batch))
        rate = settings.learning_rate * min(1.0, (step + 1) / _WARM_UP) * (1 + math.cos(math.pi * share)) / 2
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss = -flow().log_prob(batches.pop()).mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(flow.parameters(), _GRADIENT_CLIP)
        if math.isfinite(loss.item()) and math.isfinite(norm.item()):
            optimizer.step()
        else:
            skipped += 1
        step += 1
    flow.load_state_dict(kept)
    info = {"steps": step, "best_step": best_step, "skipped_steps": skipped, "validation": best}
    return FittedFlow(flow.eval(), coordinates, info)


def _network(settings: FlowSettings, dim: int) -> nn.Module:
    import zuko

    made = {"NSF": zuko.flows.NSF, "MAF": zuko.flows.MAF}[settings.family]
    own = {"bins": settings.bins} if settings.family == "NSF" else {}
    hidden = (settings.width, settings.width)
    return made(dim, transforms=settings.transforms, hidden_features=hidden, passes=settings.passes, **own)


@torch.no_grad()
def _log_prob(flow: nn.Module, t: Tensor) -> Tensor:
    return torch.cat([flow().log_prob(part) for part in t.split(_CHUNK)]).double()
