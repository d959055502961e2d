"""A fourth kind of data, angles, in this file alone: `training` and `cli` take it as they do any other."""

import ast
import csv
import hashlib
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run
from rich.table import Table
from states import same_state
from torch import nn
from torch.distributions import Normal

import led_fast
from led_fast import kinds
from led_fast.density import DensityModel, ProposalDraw, Verdict
from led_fast.errors import InputError
from led_fast.flows import Affine, MixtureBase, OneWayFlow
from led_fast.kinds.kind import Preset, Report, Rows
from led_fast.kinds.write import write_rows
from led_fast.models import GaussianTailCritic
from led_fast.random_state import seeded
from led_fast.training import Recipe, Task, Trainer, load
from led_fast.training.checkpoint import load_state
from led_fast.training.settings import Batches, GeneratorLoss, Optimizer, Selection

CPU = torch.device("cpu")
GRID = torch.linspace(-12, 12, 4801, dtype=torch.float64)[:, None]


@dataclass(frozen=True)
class Networks:
    width: int = 16


@dataclass(frozen=True)
class Angles:
    """Angles in (-π, π], read from a text file; the last tenth is for validation."""

    name: str
    values: torch.Tensor
    problems: int
    kind = "angles"

    @property
    def fingerprint(self):
        return hashlib.sha256(self.values.numpy().tobytes()).hexdigest()

    @property
    def held_out(self):
        return self.values[len(self.values) * 9 // 10 :]

    def sample(self, n):
        train = self.values[: len(self.values) * 9 // 10]
        return train[torch.randint(len(train), (n,))]


class OnCircle(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 1))

    def forward(self, x):
        return self.net(torch.cat([x.cos(), x.sin()], 1).float()).squeeze(1)


def networks(model):
    critic = GaussianTailCritic(OnCircle(model.width), torch.zeros(1), 2.0)
    return critic, OneWayFlow(MixtureBase(1, 3), [Affine(torch.ones(1), torch.zeros(1))])


class AnglesTask(Task):
    device = CPU

    def __init__(self, config, source):
        self.critic, self.generator = networks(config.model)
        self.source = source

    def data(self, n, at):
        return self.source.sample(n)

    def most_generated(self, n):
        return 0

    def proposals(self, n, at, drawn=None):
        y = 2 * torch.randn(n, 1)
        return ProposalDraw(y, Normal(0.0, 2.0).log_prob(y).squeeze(1), None)

    def validate(self, critic, generator, stage):
        if stage != "warm-up":
            return None
        with torch.no_grad():
            return generator.log_prob(self.source.held_out).mean().item()

    def model(self, critic, generator):
        model = DensityModel(critic, generator)
        with torch.no_grad():
            mass = torch.trapezoid(model.unnormalized_log_prob(GRID.float()).double().exp(), GRID[:, 0])
        model.set_log_normalizer(mass.log().item())
        return model


class AnglesKind:
    name = "angles"
    about = "angles"
    presets = ("circle", "narrow")
    model_type = Networks
    can = frozenset({"--strict"})
    gan = None
    default_samples = 12
    parallel = True
    sample_suffixes = (".csv", ".npy")
    score_suffixes = (".csv", ".npy")

    def claims(self, place, reading):
        return Path(place).suffix == ".angles"

    def open(self, place, preset, reading):
        if not Path(place).is_file():
            raise InputError(f"{place}: no such file")
        lines = np.loadtxt(place, ndmin=1)
        good = np.abs(lines) <= math.pi
        if reading.strict and not good.all():
            raise InputError(f"{place}: line {int(good.argmin()) + 1} is no angle")
        values = torch.from_numpy(lines[good]).float()[:, None]
        return Angles(str(place), values, int((~good).sum()))

    def remarks(self, source):
        return [f"{source.problems} lines are no angles"] if source.problems else []

    def configure(self, source, preset):
        recipe = Recipe(
            steps=120,
            warm_up=0.5,
            batches=Batches(data=64, integral_samples=64, generated=64, generator_steps=1),
            optimizer=Optimizer(critic_learning_rate=0.02, generator_learning_rate=0.02),
            generator_loss=GeneratorLoss(forward_weight=0.0, likelihood_weight=0.5),
            selection=Selection(checks=4),
        )
        return preset or "circle", Preset(Networks(4 if preset == "narrow" else 16), recipe)

    def device(self):
        return CPU

    def float32_only(self, model):
        return "angles"

    def task(self, config, source, world):
        return AnglesTask(config, source)

    def untrained(self, config):
        return DensityModel(*networks(config.model))

    def evaluate(self, trained, source, options, console):
        with torch.no_grad():
            nll = -trained.model.log_prob(source.held_out).mean().item()
        table = Table("quantity", "value")
        table.add_row("NLL of held-out angles", f"{nll:.3f}")
        value = trained.model.log_normalizer.item()
        alpha = Verdict(value, (value, value), True, "", {}).to_json()
        return Report(
            {"nll": nll, "log_normalizer": alpha},
            [table],
            {"density.png": lambda path: path.write_bytes(b"drawn")},
        )

    def score(self, trained, place, console):
        from led_fast.training import Reading

        values = self.open(place, None, Reading(strict=True)).values
        with torch.no_grad():
            return Rows({"log_density": trained.model.log_prob(values).tolist()}, {"log_density": ".6f"})

    def write_samples(self, trained, n, refine, seed, out, note):
        with seeded(seed, CPU), torch.no_grad():
            write_rows(Rows({"angle": trained.model.sample(n)[:, 0].tolist()}), out)


@pytest.fixture(scope="module", autouse=True)
def registered():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kinds, "_registered", {})
        kinds.register(AnglesKind())
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "wind.angles"
    rng = np.random.default_rng(0)
    np.savetxt(path, np.append(rng.vonmises(rng.choice([-1.5, 1.5], 600), 8.0), 99.0))
    return path


@pytest.fixture(scope="module")
def trained(data):
    path = data.parent / "run"
    assert run("train", data, "--seed", 1, "--out", path) == 0
    return path


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_it_trains_and_is_evaluated(trained, data, capsys):
    assert run("evaluate", trained) == 0
    assert "NLL of held-out angles" in capsys.readouterr().out
    report = json.loads((trained / "report.json").read_text())
    assert (report["kind"], report["preset"], report["seed"], report["steps"]) == ("angles", "circle", 1, 120)
    assert report["config"]["model"] == {"width": 16} and (trained / "density.png").read_bytes() == b"drawn"
    with torch.no_grad():
        density = load(trained).log_prob(GRID.float()).double().exp()
    assert torch.trapezoid(density, GRID[:, 0]).item() == pytest.approx(1, abs=1e-3)
    assert report["nll"] < math.log(2 * math.pi)  # better than the uniform density


def test_remarks_are_printed_and_choices_are_obeyed(data, tmp_path, capsys, refuse):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("led_fast.cli.train.train", lambda *_, **__: None)
        patch.setattr("led_fast.cli.train.load_model", lambda *_: None)
        patch.setattr("led_fast.cli.train.write_report", lambda *_: True)
        assert run("train", data, "--preset", "narrow", "--out", tmp_path / "run") == 0
    assert "1 lines are no angles" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"] == {"width": 4}
    new = ("--out", tmp_path / "new")
    assert "line 601 is no angle" in refuse("train", data, "--strict", *new)
    assert "--objective: angles have no plain GAN" in refuse("train", data, "--objective", "gan", *new)
    assert "bf16 has too few digits for angles" in refuse("train", data, "--precision", "bf16", *new)
    assert "for angles circle, narrow" in refuse("train", data, "--preset", "best", *new)
    assert not (tmp_path / "new").exists()


def test_it_is_sampled_and_scored(trained, data, tmp_path, capsys):
    drawn = []
    for seed in (1, 1, 2):
        assert run("sample", trained, "--seed", seed) == 0
        drawn.append([float(row["angle"]) for row in rows_of(capsys.readouterr().out)])
    assert len(drawn[0]) == 12 and drawn[0] == drawn[1] != drawn[2]
    np.savetxt(tmp_path / "new.angles", [1.5, 0.0])
    assert run("score", trained, tmp_path / "new.angles") == 0
    shown = capsys.readouterr()
    mode, between = (float(row["log_density"]) for row in rows_of(shown.out))
    assert mode > between and not shown.err


def test_what_it_has_not_is_refused(trained, tmp_path, refuse):
    for command in ("interpolate", "refine"):
        message = refuse(command, trained, "--out", tmp_path / "x.png")
        assert f"{command}: is for images, and these are angles" in message
    assert "--refine: is for points in the plane and images and tables, and these are angles" in refuse(
        "sample", trained, "--refine"
    )
    assert "--samples: is for images, and these are angles" in refuse("evaluate", trained, "--samples", 200)


def test_it_resumes_bit_for_bit(trained, data, tmp_path, monkeypatch):
    step = Trainer.step

    def interrupted(self):
        if self.steps_done == 77:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr("led_fast.training.session.CHECKPOINT_EVERY", 5)
    monkeypatch.setattr(Trainer, "step", interrupted)
    assert run("train", data, "--seed", 1, "--out", tmp_path / "run") == 130
    monkeypatch.setattr(Trainer, "step", step)
    assert run("train", data, "--resume", "--out", tmp_path / "run") == 0
    models = [
        load_state(path / "model.safetensors", "model")["model"] for path in (trained, tmp_path / "run")
    ]
    assert same_state(*models)


def test_a_kind_that_is_not_there_is_named(trained, tmp_path, monkeypatch, refuse):
    monkeypatch.setattr(kinds, "_registered", {})
    message = refuse("sample", trained)
    assert "model.safetensors: kind of data: want one of points, images, tables, got 'angles'" in message


PACKAGE = Path(led_fast.__file__).parent
ROOMS = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] in ("training", "cli")]
# The estimator is the tables' own: it has to refuse a model of anything else.
OUTSIDE = [
    path
    for path in PACKAGE.rglob("*.py")
    if path.relative_to(PACKAGE).parts[0] not in ("kinds", "estimator.py")
]


def names_in(node):
    return {
        n.id if isinstance(n, ast.Name) else n.attr
        for n in ast.walk(node)
        if isinstance(n, ast.Name | ast.Attribute)
    }


def questions(path):
    """What a module asks about the kind of something, as the source has it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and names_in(node.func) == {"isinstance"}:
            about = names_in(node.args[1])
            if any(
                name.endswith(("Source", "Config", "Model", "Kind", "Task"))
                for name in about - {"DensityModel"}
            ):
                yield ast.unparse(node)
        elif isinstance(node, ast.Name | ast.Attribute | ast.FunctionDef):
            name = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "name", None)
            if name in ("is_image", "is_points", "is_table"):
                yield name
        elif isinstance(node, ast.Compare) and {"kind", "name"} & names_in(node.left):
            compared = [c.value for c in node.comparators if isinstance(c, ast.Constant)]
            if set(compared) & {"points", "images", "tables"}:
                yield ast.unparse(node)


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nobody_asks_of_which_kind_data_are(path):
    assert list(questions(path)) == []


@pytest.mark.parametrize("path", ROOMS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_training_and_commands_import_no_room_of_a_kind(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            assert not module.startswith(
                ("led_fast.kinds.points", "led_fast.kinds.images", "led_fast.kinds.tables")
            )
            assert module != "led_fast.kinds" or {a.name for a in node.names} <= {
                "find_kind",
                "all_kinds",
                "kind_names",
            }


def test_questions_are_found(tmp_path):
    asked = ["isinstance(s, data.ImageSource)", "config.is_image", "config.kind == 'points'"]
    (tmp_path / "a.py").write_text("\n".join(asked))
    assert len(list(questions(tmp_path / "a.py"))) == 3
