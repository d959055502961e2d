"""What a training step asks of a GPU: launches, and waits of the host. Each has a budget, which only falls."""

import fake_gpu
import pytest
import torch
from fake_gpu.small import config_of, go_to, source_of

from led_fast.training import Trainer, image

# Of a step, by preset and stage; "+" is a step with the critic's gradient penalty. An operator is one launch, so these
# are lower bounds of what CUDA launches; they do not depend on the batch.
LAUNCHES_AND_WAITS = {
    ("tiny", "warm-up"): (469, 3),
    ("tiny", "joint training"): (1567, 10),
    ("tiny", "joint training +"): (1672, 11),
    ("tiny", "calibration"): (340, 4),
    ("mnist32", "warm-up"): (541, 3),
    ("mnist32", "joint training"): (1762, 10),
    ("mnist32", "joint training +"): (1895, 11),
    ("mnist32", "calibration"): (403, 4),
    ("paper_mnist32", "joint training"): (1041, 14),
}


@pytest.fixture(scope="module")
def trainers():
    """A trainer for every preset, after a first step, which starts normalisation layers and optimisers."""
    found: dict[str, Trainer] = {}

    def trainer_of(preset):
        if preset not in found:
            torch.manual_seed(0)
            source = source_of(preset)
            found[preset] = Trainer(config_of(preset, source), source)
            for stage in found[preset].recipe.stages:
                go_to(found[preset], stage.name)
                found[preset].step()
        return found[preset]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image, "_STANDARDIZED_BY", 100)
        yield trainer_of


@pytest.mark.parametrize("preset, stage", LAUNCHES_AND_WAITS)
def test_a_step_keeps_to_its_budget(preset, stage, trainers):
    trainer = trainers(preset)
    go_to(trainer, stage.removesuffix(" +"), penalty=stage.endswith("+"))
    with fake_gpu.Count() as count:
        trainer.step()
    launches, waits = LAUNCHES_AND_WAITS[preset, stage]
    found = f"{count.launches} launches, {count.waits} waits: {count.waiting_lines()}"
    assert count.launches <= launches and count.waits <= waits, found
    assert count.launches >= 0.9 * launches and count.waits == waits, f"lower the budget: {found}"
