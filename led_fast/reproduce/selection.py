"""A model of images chosen among those of several moments of its training, and judged."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from led_fast.data.images import ImageSource, quantize
from led_fast.evaluation import (
    FeatureNetwork,
    ImageEvaluation,
    ImageSampler,
    SampleJudge,
    evaluate_image_samples,
)

_MOMENTS = (0.7, 0.8, 0.9)  # shares of a run after which its model may be selected, beside the last one
_SELECTED_BY = 2000  # images
_SHOWN = 12

_Model = TypeVar("_Model", bound=ImageSampler)


def moments(steps: int) -> list[int]:
    """Steps before the last whose model may be selected."""
    return sorted({round(share * steps) for share in _MOMENTS} - {0, steps})


def evaluate_selected(
    folder: Path,
    models: Mapping[int, _Model],
    source: ImageSource,
    features: FeatureNetwork,
    seed: int,
    seconds: float,
    evaluate: Callable[[_Model], ImageEvaluation],
) -> dict[str, Any]:
    """Selects by the Fréchet distance from validation images, evaluates, writes `samples.npy`.

    Args:
        folder: for the samples.
        models: by the step that they were taken after; the last one's is the last of the run.
        source: the data.
        features: measures the distance.
        seed: of the samples; one selects by others than one judges.
        seconds: that training took.
        evaluate: of the selected model.

    Returns:
        The evaluation's report with `steps`, `training_seconds`, `selected_step` and, by step, `validation`, the
        distances.
    """
    judge = SampleJudge(source, features, split="validation")
    distances = {
        step: judge(quantize(evaluate_image_samples(model, source, seed + 1, samples=_SELECTED_BY).samples))[
            "distance"
        ]
        for step, model in models.items()
    }
    selected = min(distances, key=distances.__getitem__)
    found = evaluate(models[selected])
    np.save(folder / "samples.npy", quantize(found.samples[:_SHOWN]).numpy())
    return {
        "steps": max(models),
        "training_seconds": seconds,
        "selected_step": selected,
        "validation": {str(step): distance for step, distance in distances.items()},
        **found.report,
    }
