"""Whole training steps: fast operators against their references and compiled, where the time goes, and memory.

A step is a critic step with its generator steps; timed are as many as share one gradient penalty. `--beside PYTHON`
times those of that Python's led_fast, too.
"""

import pytest
from memory import needs_counters, peak_memory
from step_profile import flops_per_second, profile
from training_step import CyclesElsewhere, cycle, steps_of, trainer_of

from led_fast.ops import use_reference
from led_fast.training import Trainer

CASES = [
    ("ring", "default", "joint training"),
    ("grid", "default", "joint training"),
    ("ring", "inflated", "joint training"),
    ("ring", "perpendicular", "joint training"),
    ("ring", "paper", "joint training"),
    ("images", "mnist32", "warm-up"),
    ("images", "mnist32", "joint training"),
    ("images", "mnist32", "calibration"),
    ("images", "paper_mnist32", "joint training"),
]
TABLES = [("table", "table", "warm-up"), ("table", "table", "calibration")]  # which c092c34 has not


def referenced(trainer: Trainer) -> None:
    with use_reference():
        cycle(trainer)


@pytest.mark.parametrize(
    "data, preset, stage, threads",
    # Of two threads, PyTorch's LU within a reference's backward fails: "Parameter 6 was incorrect on entry to CLASWP".
    [(*case, 1) for case in CASES] + [(*case, 2) for case in CASES if case[1] != "paper_mnist32"],
    indirect=["threads"],
)
def test_step(compare, measuring, request, threads, data, preset, stage):
    fast, slow = (trainer_of(data, preset, stage) for _ in range(2))
    contenders = {"led_fast": lambda: cycle(fast), "reference": lambda: referenced(slow)}
    if measuring:
        compiled = trainer_of(data, preset, stage, {"compile": "on"})
        contenders["compiled"] = lambda: cycle(compiled)
    beside = request.config.getoption("--beside")
    if beside:
        contenders["beside"] = CyclesElsewhere(beside, data, preset, stage, threads)
    try:
        case = {"data": data, "preset": preset, "stage": stage, "threads": threads}
        row = compare("training", case, contenders)
    finally:
        if beside:
            contenders["beside"].close()
    row.figures["ms a step"] = 1000 * row.seconds["led_fast"] / steps_of(fast)


@pytest.mark.parametrize("threads", [1], indirect=True)
@pytest.mark.parametrize("data, preset, stage", [*CASES, *TABLES])
def test_profile_of_a_step(record, measuring, threads, data, preset, stage):
    rate = flops_per_second()
    parts = profile(trainer_of(data, preset, stage), rounds=30 if measuring else 1)
    assert abs(sum(part.flops for part in parts.values())) > 0
    for name, part in sorted(parts.items(), key=lambda item: -item[1].seconds):
        case = {"data": data, "preset": preset, "stage": stage, "part": name, "threads": threads}
        figures = {
            "operations": part.operations,
            "MB": part.bytes / 1e6,
            "matrix products, ms": 1000 * part.flops / rate,
        }
        record("training_profile", case, part.seconds, figures)


@needs_counters
@pytest.mark.parametrize("threads", [1], indirect=True)
@pytest.mark.parametrize("preset", ["mnist32", "paper_mnist32"])
def test_memory(compare, measuring, threads, preset):
    if not measuring:
        pytest.skip("nothing to smoke-test")
    large = {"recipe.batches.integral_samples": 256, "recipe.batches.integrals": 1}
    whole, parted, slow = (
        trainer_of("images", preset, changes={**large, "recipe.batches.micro_batch": micro_batch})
        for micro_batch in (None, 64, None)
    )
    contenders = {
        "led_fast": lambda: cycle(whole),
        "led_fast, micro_batch 64": lambda: cycle(parted),
        "reference": lambda: referenced(slow),
    }
    peaks = {name: peak_memory(run) for name, run in contenders.items()}
    row = compare("training_memory", {"preset": preset, "S": 256, "threads": threads}, contenders)
    row.figures |= {f"{name} MiB": peak / 2**20 for name, peak in peaks.items()}
