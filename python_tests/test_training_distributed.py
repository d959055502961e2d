"""Several processes that train one model, talking by gloo on the CPU."""

import multiprocessing
import os
import signal
import socket
import sys
import time

import numpy as np
import pytest
import torch
import torch.distributed as dist
from coarse import coarsen
from processes import join_all
from states import same_state
from torch import nn

import led_fast.cli.train
import led_fast.training.session
from led_fast.cli import main
from led_fast.data import open_source
from led_fast.density import ProposalDraw
from led_fast.flows import ScoredSample, StandardNormal
from led_fast.models import points_critic
from led_fast.training import PeerLostError, TrainConfig, Trainer, World, join_world
from led_fast.training.checkpoint import load_state
from led_fast.training.objective import CalibrationObjective, objective_of
from led_fast.training.run import RunDirectory, read_metrics
from led_fast.training.settings import Recipe, changed

SIZE = 2
PROCESSES = multiprocessing.get_context("forkserver")  # imports once, for all that it starts
PROCESSES.set_forkserver_preload(["led_fast.cli", "torch._dynamo"])  # the latter is what Adam imports
SMALL = changed(
    Recipe(),
    {
        "batches.data": 8,
        "batches.integral_samples": 24,
        "batches.generated": 16,
        "calibration.samples": 24,
        "calibration.held_ess": 1.0,
    },
)
RECIPES = {
    "one integral": changed(SMALL, {"generator_loss.max_weight": 2.0}),
    "several integrals": changed(SMALL, {"batches.integral_samples": 4, "batches.integrals": 6}),
    "likelihood": changed(SMALL, {"generator_loss.likelihood_weight": 0.25}),
    "gan": changed(SMALL, {"objective": "gan"}),
    "current base": changed(SMALL, {"base": "current", "calibration.begin": 0.9}),
}


def environment(rank, port, size=SIZE):
    values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    return {name: str(value) for name, value in values.items()} | {"MASTER_ADDR": "127.0.0.1"}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class AffineGenerator(nn.Module):
    """`y = e^s z + m` of given z."""

    def __init__(self):
        super().__init__()
        self.base = StandardNormal(2)
        self.log_scale = nn.Parameter(torch.tensor([0.3, -0.2]))
        self.shift = nn.Parameter(torch.tensor([0.5, 0.1]))

    def forward(self, z):
        return self.log_scale.exp() * z + self.shift, self.base.log_prob(z) - self.log_scale.sum()

    def log_prob_bound(self, y):
        return self.base.log_prob((y - self.shift) * (-self.log_scale).exp()) - self.log_scale.sum()


class JointBatches:
    """A task whose processes draw their parts of the same joint batches."""

    anchored = False
    device = torch.device("cpu")

    def __init__(self, world):
        torch.manual_seed(0)
        self.world, self.critic, self.generator, self.balance = (
            world,
            points_critic(),
            AffineGenerator(),
            nn.Linear(2, 1),
        )
        self.generator.rsample_and_log_prob = lambda n: self.generator(self.part(self.latents, n))
        self.generator.rsample = lambda n: self.generator.rsample_and_log_prob(n)[0]
        self.generator.sample = self.tilted_samples = lambda n: self.part(self.points, n)
        self.points, self.latents = 0.7 * torch.randn(24, 2), torch.randn(24, 2)

    def part(self, joint, n):
        return joint[self.world.rank * n :][:n]

    def data(self, n, at=0.0):
        return self.part(self.points.flip(0), n)

    def most_generated(self, n):
        return 0

    def proposals(self, n, at, drawn=None):
        y = self.part(self.points, n)
        return ProposalDraw(y, -y.square().sum(1), self.balance(y).square().mean())

    def discriminate(self, x):
        return self.critic(x).tanh()

    def generated(self, n):
        y, log_q = self.generator.rsample_and_log_prob(n)
        return ScoredSample(y, log_q, 1.5 * log_q, -0.5 * log_q)

    def target(self, f, sample, log_normalizer, at):
        return torch.logaddexp(f, sample.log_q + log_normalizer)

    def forward_weight(self, weight, at):
        return weight


class TiltedBatches(JointBatches):
    """The same, with a critic that tilts the generator."""

    tilts = anchored = True

    def __init__(self, world):
        super().__init__(world)
        self.balance, self.generator.invertible = None, True

    def most_generated(self, n):
        return n

    def proposals(self, n, at, drawn=None):
        y = self.part(self.points, n)
        return ProposalDraw(y, -y.square().sum(1), None)


def losses_and_gradients(world, recipe):
    """What a step would descend on, in one process or several."""
    task = (TiltedBatches if recipe.base == "current" else JointBatches)(world)
    objective = objective_of(recipe)(task, recipe, world)
    critic = objective.view(task.critic)
    networks = [network for network in (task.critic, task.generator, task.balance) if network is not None]
    parameters = [p for network in networks for p in network.parameters()]
    found = {}
    x = task.data(world.share(recipe.batches.data, "batches.data"))
    for name, losses in (
        ("critic", [objective.critic_loss(critic, x, 0.0)]),
        ("generator", objective.generator_losses(critic, 0.0)),
        ("calibration", [CalibrationObjective(task, recipe, world).critic_loss(task.critic, x, 0.0)]),
    ):
        for parameter in parameters:
            parameter.grad = None
        total, metrics = torch.zeros(()), {}
        for loss in losses:
            (loss.weight * loss.value).backward()
            total = total + loss.weight * loss.value.detach()
            metrics |= {key: value.item() for key, value in loss.metrics.items()}
        world.sum_gradients(parameters)
        found[name] = total, metrics, [None if p.grad is None else p.grad.clone() for p in parameters]
    return found


def work(rank, port, folder):
    os.environ.update(environment(rank, port))
    torch.set_num_threads(1)
    with join_world() as world:
        found = {name: losses_and_gradients(world, recipe) for name, recipe in RECIPES.items()}
        source = open_source("ring")
        found["start"] = Trainer(TrainConfig.of(source, "paper"), source, world).generator.state_dict()
    torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def by_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    port = free_port()
    processes = [PROCESSES.Process(target=work, args=(rank, port, folder)) for rank in range(SIZE)]
    for process in processes:
        process.start()
    assert join_all(processes) == [0] * SIZE
    return [torch.load(folder / f"{rank}.pt") for rank in range(SIZE)]


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("part", ["critic", "generator", "calibration"])
def test_two_processes_have_the_gradient_of_the_joint_batch(by_two, name, part):
    loss, metrics, gradients = losses_and_gradients(World(), RECIPES[name])[part]
    assert sum(gradient is not None for gradient in gradients) > 2
    for found in by_two:
        torch.testing.assert_close(found[name][part][0], loss)
        assert found[name][part][1] == pytest.approx(metrics, rel=1e-5)
        for got, wanted in zip(found[name][part][2], gradients, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def test_all_processes_start_from_the_same_generator(by_two):
    assert same_state(*(found["start"] for found in by_two))
    source = open_source("ring")
    assert same_state(
        by_two[0]["start"], Trainer(TrainConfig.of(source, "paper"), source).generator.state_dict()
    )


def run_command(rank, size, port, arguments, errors):
    os.environ.update(environment(rank, port, size))
    torch.set_num_threads(1)
    led_fast.training.session.CHECKPOINT_EVERY = 4
    coarsen()
    led_fast.cli.train.write_report = lambda *_: None  # takes longer than these runs
    with errors.open("w") as sys.stderr, open(os.devnull, "w") as sys.stdout:
        sys.exit(main(arguments))


def start(out, *options, target="ring", size=SIZE):
    """`led-fast train` in processes, as torchrun would start them."""
    port, processes = free_port(), []
    for rank in range(size):
        arguments = ["train", str(target), "--out", str(out), *options]
        errors = out.parent / f"errors-{rank}.txt"
        processes.append(PROCESSES.Process(target=run_command, args=(rank, size, port, arguments, errors)))
        processes[-1].start()
    return processes, out.parent


def finish(started):
    processes, folder = started
    codes = join_all(processes)
    return codes, [(folder / f"errors-{rank}.txt").read_text() for rank in range(len(processes))]


def test_a_run_of_two_processes_stops_together_and_resumes_exactly(tmp_path):
    whole, cut = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "cut")
    assert finish(start(whole.path, "--steps", "30"))[0] == [0, 0]
    started = start(cut.path, "--steps", "30")
    wait_for(cut.checkpoint)
    started[0][1].terminate()  # one of them is asked, both stop
    codes, errors = finish(started)
    assert codes == [143, 143], errors
    codes, errors = finish(start(cut.path, "--resume", size=1))
    assert codes == [2] and "was begun by 2 processes on CPUs; by 1 process on CPUs it cannot" in errors[0]
    assert finish(start(cut.path, "--resume"))[0] == [0, 0]
    models = [load_state(run.model, "model")["model"] for run in (whole, cut)]
    assert same_state(*models)


def test_two_processes_train_images_through_every_stage(tmp_path):
    torch.manual_seed(0)
    np.save(tmp_path / "images.npy", torch.randint(256, (200, 8, 8), dtype=torch.uint8).numpy())
    run = RunDirectory(tmp_path / "run")
    images = tmp_path / "images.npy"
    codes, errors = finish(start(run.path, "--preset", "tiny", "--steps", "40", target=images))
    assert codes == [0, 0], errors
    warm_up, _, joint, calibration = (set(row) for row in read_metrics(run.metrics))  # every tenth step's
    assert warm_up == {"step", "generator_nll"} and {"generator_nll", "generator_loss", "critic_loss"} < joint
    assert "critic_loss" in calibration and "generator_loss" not in calibration


def test_when_a_process_dies_the_other_stops_and_says_so(tmp_path):
    run = RunDirectory(tmp_path / "run")
    started = start(run.path, "--steps", "5000")
    wait_for(run.checkpoint)
    started[0][1].kill()
    codes, errors = finish(started)
    assert codes == [1, -signal.SIGKILL]
    assert (
        errors[0].startswith("led-fast: another process of this run has died") and errors[0].count("\n") == 1
    )
    assert load_state(run.checkpoint, "checkpoint")["trainer"]["steps_done"] >= 4


def test_bad_input_to_one_process_stops_all(tmp_path):
    codes, errors = finish(start(tmp_path / "run", "--preset", "none"))
    assert codes == [2, 2] and all(
        "--preset: want for points in the plane default, " in error for error in errors
    )
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    codes, errors = finish(start(tmp_path / "full"))
    assert codes == [2, 1] and "is not empty" in errors[0] and "another process" in errors[1]


LOST = [
    RuntimeError(
        "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [::1]:9"
    ),
    dist.DistNetworkError("The client socket has timed out after 600000ms while trying to connect"),
    dist.DistBackendError(
        "NCCL error: remote process exited or there was a network error, ncclRemoteError: …"
    ),
]
WRONG = [
    RuntimeError("No backend type associated with device type cpu"),
    RuntimeError("[enforce fail at /pytorch/gloo/gloo/transport/tcp/pair.cc:446] op.nbytes. 8 vs 4"),
    RuntimeError("CUDA error: out of memory"),
    dist.DistBackendError("NCCL error: ncclInvalidUsage: Duplicate GPU detected : rank 1 and rank 0"),
    dist.DistBackendError("NCCL error: unhandled cuda error, ncclUnhandledCudaError: Call to CUDA failed"),
]


@pytest.mark.parametrize("error", LOST + WRONG, ids=str)
def test_only_a_lost_connection_is_called_a_dead_process(error, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(dist, "all_reduce", fail)
    kind = PeerLostError if error in LOST else type(error)
    with pytest.raises(RuntimeError) as raised:
        World(0, 2).agree(1.0)
    assert type(raised.value) is kind


def wait_for(path):
    deadline = time.monotonic() + 300
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.exists()
