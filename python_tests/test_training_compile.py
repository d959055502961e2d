"""Training with compiled networks: the same steps up to rounding, the same files, and a choice that says why."""

from itertools import chain

import pytest
import torch
from image_sources import noise_source

from led_fast.cli import main, train
from led_fast.data import open_source
from led_fast.errors import InputError
from led_fast.nn import MixedSequential
from led_fast.training import Pace, TrainConfig, Trainer, read_model
from led_fast.training.compiled import compile_networks
from led_fast.training.run import RunDirectory


def metrics_of(source, preset, compile, changes, at, nudge=None):
    """Three steps, and with a seed as `nudge` those of weights that are off by a rounding."""
    config = TrainConfig.of(source, preset, steps=1000, changes=changes | {"compile": compile})
    trainer = Trainer(config, source)
    if nudge is not None:
        generator = torch.Generator().manual_seed(nudge)
        with torch.no_grad():
            for p in chain(trainer.critic.parameters(), trainer.generator.parameters()):
                p.mul_(1 + torch.finfo(p.dtype).eps * torch.randn(p.shape, generator=generator))
    trainer.steps_done = round(at * config.steps)
    return trainer, [trainer.step() for _ in range(3)]


@pytest.mark.parametrize(
    "source, preset, changes, at",
    [
        (lambda: open_source("ring"), "inflated", {}, 0.0),
        (lambda: open_source("ring"), "perpendicular", {}, 0.0),
        pytest.param(
            noise_source,
            "tiny",
            {"recipe.generator_loss.forward_weight": 0.5},  # with the score through couplings
            0.8,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            noise_source,
            "tiny",
            {"recipe.objective": "gan", "recipe.penalty.weight": 1.0},
            0.8,
            marks=pytest.mark.slow,
        ),
    ],
    ids=["inflated", "perpendicular", "images", "gan with penalty"],
)
def test_a_compiled_step_is_the_same_up_to_rounding(source, preset, changes, at):
    source = source()
    torch._dynamo.utils.counters.clear()
    _, wanted = metrics_of(source, preset, "off", changes, at)
    trainer, got = metrics_of(source, preset, "on", changes, at)
    assert got[0]["critic_loss"] == pytest.approx(wanted[0]["critic_loss"], rel=1e-5, abs=1e-5)
    # Adam's first steps have the size of the learning rate however small a gradient, so that rounding grows.
    rounded = [metrics_of(source, preset, "off", changes, at, nudge)[1] for nudge in range(4)]
    for before, after, *others in zip(wanted, got, *rounded, strict=True):
        for name, value in before.items():
            spread = max(abs(other[name] - value) for other in others)
            assert after[name] == pytest.approx(value, rel=1e-3, abs=1e-4 + 3 * spread), name
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    compiled = [m for m in trainer.critic.modules() if m._compiled_call_impl is not None]
    assert compiled and all(isinstance(m, MixedSequential) for m in compiled)
    assert all(m._compiled_call_impl is None for m in trainer.average_critic.modules())


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs `led-fast train ring` in a folder; returns what it prints and the config it leaves."""
    monkeypatch.setattr(train, "write_report", lambda *_: True)

    def command(*options, out=tmp_path / "run"):
        code = main(["train", "ring", "--out", str(out), *options])
        printed = capsys.readouterr()
        if code:
            return printed.err, None
        return printed.out, read_model(RunDirectory(out).model).config

    return command


@pytest.fixture
def paces(monkeypatch):
    """Seconds of a step, as they are and compiled, in place of what trials find."""

    def paces(before, after):
        found = {"off": Pace(before, 0), "on": Pace(after, 0)}
        monkeypatch.setattr(train, "measure_pace", lambda config, *_: found[config.compile])
        monkeypatch.setattr(train, "why_not_compile", lambda _: "")

    return paces


@pytest.mark.parametrize("after, chosen", [(40.0, "on"), (60.0, "off")], ids=["it pays", "it does not"])
def test_auto_compiles_where_that_pays(command, paces, after, chosen):
    paces(50.0, after)
    printed, config = command("--steps", "3", "--compile", "auto")
    assert f"compile: {chosen}: 3 steps of 5e+04 ms as it is, of {after * 1000:.3g} ms compiled" in printed
    assert config.compile == chosen


def test_auto_tries_nothing_where_a_run_is_soon_done(command, paces):
    paces(0.05, 0.01)
    printed, config = command("--steps", "3", "--compile", "auto")
    assert "compile: off, because the run takes no more than 0 seconds as it is" in printed
    assert config.compile == "off"


def test_auto_says_what_a_compiler_has_found(command, paces, monkeypatch):
    paces(50.0, 40.0)
    measured = train.measure_pace

    def failing(config, *rest):
        if config.compile == "on":
            raise RuntimeError("no such instruction\nmore")
        return measured(config, *rest)

    monkeypatch.setattr(train, "measure_pace", failing)
    printed, config = command("--steps", "3", "--compile", "auto")
    assert "compile: off, because no such instruction\n" in printed and config.compile == "off"


def test_minutes_become_steps_by_the_pace_that_was_chosen(command, paces):
    paces(50.0, 20.0)
    printed, config = command("--minutes", "4", "--compile", "auto")
    assert config.steps == 12 and "--minutes 4: 12 steps on this machine" in printed


def test_without_a_compiler_auto_goes_on_and_on_does_not(command, paces, monkeypatch, tmp_path):
    paces(100.0, 50.0)
    monkeypatch.setattr(train, "why_not_compile", lambda _: "no compiler")
    printed, config = command("--steps", "2", "--compile", "auto")
    assert "compile: off, because torch.compile does not work: no compiler" in printed
    assert config.compile == "off"
    errors, _ = command("--steps", "2", "--compile", "on", out=tmp_path / "other")
    assert errors == "led-fast: --compile on: torch.compile does not work: no compiler\n"
    assert not (tmp_path / "other").exists()


def test_a_broken_compiler_is_named(monkeypatch):
    from torch._inductor import config

    torch._dynamo.reset()
    with config.patch({"cpp.cxx": ("/nowhere",), "fx_graph_cache": False, "force_disable_caches": True}):
        assert "/nowhere" in train.why_not_compile(torch.device("cpu"))
    torch._dynamo.reset()
    assert train.why_not_compile(torch.device("cpu")) == ""


def test_a_run_goes_on_in_its_own_mode(command):
    command("--steps", "2", "--compile", "off")
    errors, _ = command("--resume", "--compile", "on")
    assert "was started with compile off, not on" in errors
    assert command("--resume", "--compile", "auto")[1].compile == "off"


def test_a_finished_run_wants_no_compiler(command, monkeypatch):
    command("--steps", "2", "--compile", "on")
    monkeypatch.setattr(train, "why_not_compile", lambda _: "no compiler")
    printed, _ = command("--resume")
    assert "is finished" in printed


def test_networks_that_cannot_be_compiled_are_refused():
    with pytest.raises(InputError, match=r"on wants networks made of .*MixedSequential, got none"):
        compile_networks(torch.nn.Sequential(torch.nn.Linear(2, 2)), None)
