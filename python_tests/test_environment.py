"""Environments that make no sense, peers that never come, terminals of any kind, disks that are full."""

import errno
import io
import os
import socket
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from coarse import coarsen, shrink_tables
from command_line import run as led_fast_command
from PIL import Image
from rich.console import Console
from rich.table import Table
from states import same_state
from test_training_distributed import environment, free_port

import led_fast.cli.train
import led_fast.files
import led_fast.training.rendezvous
import led_fast.training.session
from led_fast import terminal
from led_fast.cli import main
from led_fast.errors import InputError
from led_fast.training import PeerLostError, join_world
from led_fast.training.checkpoint import load_state
from led_fast.training.progress import ProgressDisplay
from led_fast.training.run import RunDirectory, read_metrics
from led_fast.training.settings import Recipe


@pytest.fixture
def quick(monkeypatch):
    coarsen(monkeypatch.setattr)
    shrink_tables(monkeypatch.setattr)
    monkeypatch.setattr(led_fast.cli.train, "write_report", lambda *_: None)


FULL = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
WRONG = {
    "empty": ({"WORLD_SIZE": ""}, "WORLD_SIZE: want a number"),
    "no number": ({"WORLD_SIZE": "two"}, "WORLD_SIZE: want a number"),
    "nobody": ({"WORLD_SIZE": "0"}, "WORLD_SIZE: want a number"),
    "alone": (
        {"WORLD_SIZE": "2"},
        "MASTER_ADDR: want the host of process 0 in the environment, and it is not",
    ),
    "no rank": ({**FULL, "RANK": None}, "RANK: want a number from 0 to 1"),
    "empty rank": ({**FULL, "RANK": ""}, "RANK: want a number from 0 to 1"),
    "another run's rank": ({**FULL, "RANK": "2"}, "RANK: want a number from 0 to 1"),
    "no host": ({**FULL, "MASTER_ADDR": ""}, "MASTER_ADDR: want the host"),
    "no port": ({**FULL, "MASTER_PORT": None}, "MASTER_PORT: want a number"),
    "no such port": ({**FULL, "MASTER_PORT": "99999"}, "MASTER_PORT: want a number"),
    "wrong local rank": ({**FULL, "LOCAL_RANK": "x"}, "LOCAL_RANK: want a number"),
}


def set_environment(monkeypatch, values):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        if value is not None:
            monkeypatch.setenv(name, value)


@pytest.mark.parametrize("name", WRONG)
def test_an_environment_that_makes_no_sense_is_refused_in_a_sentence(name, monkeypatch, refuse, tmp_path):
    values, wanted = WRONG[name]
    set_environment(monkeypatch, values)
    assert wanted in refuse("train", "ring", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("values", [{}, {"RANK": "3"}, {"WORLD_SIZE": "1", "RANK": "x"}], ids=str)
def test_what_is_left_of_other_runs_does_not_matter_to_one_process(values, monkeypatch):
    set_environment(monkeypatch, values)
    with join_world() as world:
        assert (world.rank, world.size) == (0, 1)


@pytest.mark.parametrize("rank, missing", [(0, "process 1 of 2"), (1, "process 0 of 2")])
def test_who_is_waited_for_is_said(rank, missing, monkeypatch, capsys):
    monkeypatch.setattr(led_fast.training.rendezvous, "_QUIET", 0.1)
    port = free_port()
    set_environment(monkeypatch, environment(rank, port))
    with pytest.raises(PeerLostError, match=rf"{missing} at 127.0.0.1:{port} did not come within 0.01"):
        join_world(minutes=0.01).__enter__()
    assert f"process {rank} waits for {missing}" in capsys.readouterr().err


def test_a_port_in_use_is_named(monkeypatch):
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = other.getsockname()[1]
        set_environment(monkeypatch, environment(0, port))
        with pytest.raises(InputError, match=f"MASTER_PORT: {port} is in use"):
            join_world(minutes=0.01).__enter__()
        monkeypatch.setattr(led_fast.training.rendezvous, "_QUIET", 0.1)
        set_environment(monkeypatch, environment(1, port))
        with pytest.raises(PeerLostError, match="is something else"):
            join_world(minutes=0.01).__enter__()


def test_two_processes_of_one_number_are_told():
    server = torch.distributed.TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    torch.distributed.PrefixStore("led_fast/0", server).add("came/0", 1)
    again = led_fast.training.rendezvous.Place(0, 2, None, "127.0.0.1", server.port, True, "0")
    with pytest.raises(InputError, match="another process of this run is number 0, too"):
        led_fast.training.rendezvous.meet(again, 1)


# ---- terminals


def test_a_terminal_that_is_not_utf_8_and_names_that_are_not(tmp_path, quick, monkeypatch):
    rng = np.random.default_rng(0)
    for name in [b"caf\xe9.png", *(b"%d.png" % i for i in range(110))]:
        picture = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))
        content = io.BytesIO()
        picture.save(content, format="png")
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path / "pictures"), name))).write_bytes(
            content.getvalue()
        )
    out = tmp_path / "run"
    assert (
        led_fast_command("train", tmp_path / "pictures", "--preset", "tiny", "--steps", "2", "--out", out)
        == 0
    )
    with monkeypatch.context() as patch:
        for name in ("stdout", "stderr"):
            patch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True))
        assert led_fast_command("score", out, tmp_path / "pictures") == 0
        said, warned = (stream.buffer.getvalue().decode("ascii") for stream in (sys.stdout, sys.stderr))
        assert sys.stdout.errors == "strict"
    assert "caf\\xe9.png," in said and len(said.splitlines()) == 112 and "log \\u03b1" in warned
    assert led_fast_command("score", out, tmp_path / "pictures", "--out", tmp_path / "s.csv") == 0
    assert "caf\\xe9.png," in (tmp_path / "s.csv").read_text()


def test_odd_names_and_markup_are_shown_as_they_are(capsys):
    terminal.say(terminal.console(), "runs/[bold]x[/y] " + "long " * 40)
    assert capsys.readouterr().out == "runs/[bold]x[/y] " + "long " * 40 + "\n"


@pytest.mark.parametrize("force", ["", "1"])
@pytest.mark.parametrize("kind", ["pipe", "dumb"])
def test_where_nothing_can_move_a_line_an_interval_comes_without_control_codes(kind, force, monkeypatch):
    if force:
        monkeypatch.setenv("FORCE_COLOR", force)
    monkeypatch.setenv("TERM", "dumb" if kind == "dumb" else "xterm")
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: kind == "dumb")
    monkeypatch.setattr(sys, "stdout", stream)
    with ProgressDisplay("[title]", 0, 100, terminal.console(), Recipe()) as display:
        for step in range(1, 101):
            display.update(step, {"critic_loss": 1.0})
    lines = stream.getvalue().splitlines()
    assert len(lines) == 20 + 1 and all(line.startswith("step ") for line in lines)
    assert "\x1b" not in stream.getvalue() and "\r" not in stream.getvalue()


@pytest.mark.parametrize("width", [1, 10, 40, 200])
def test_no_number_of_a_table_is_cut(width):
    table = Table(box=None)
    for name in ("quantity", "value", "to compare"):
        table.add_column(name)
    table.add_row("log α", "-12345.678901", "95 % interval -12345.7 to -12345.6")
    stream = io.StringIO()
    terminal.show(Console(file=stream, width=width), table)
    assert "…" not in stream.getvalue() and "-12345.678901" in stream.getvalue().replace("\n", "")


# ---- disks


class FullDisk:
    """From the n-th write on, the disk is full: what is written whole is cut, and then fails."""

    def __init__(self, monkeypatch, after):
        self.left, self.flush = after, led_fast.files._flush
        monkeypatch.setattr(led_fast.files, "_flush", self)

    def __call__(self, path):
        self.left -= 1
        if self.left < 0:
            if path.is_file():
                os.truncate(path, path.stat().st_size // 2)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.flush(path)


def test_a_disk_that_is_full_at_any_write_stops_with_a_sentence_and_loses_nothing(
    tmp_path, monkeypatch, quick, capsys
):
    monkeypatch.setattr(led_fast.training.session, "CHECKPOINT_EVERY", 3)
    train = ("train", "ring", "--steps", "6", "--out")
    assert led_fast_command(*train, tmp_path / "whole") == 0
    wanted = load_state(RunDirectory(tmp_path / "whole").model, "model")["model"]
    for written in range(100):
        run = RunDirectory(tmp_path / f"run-{written}")
        capsys.readouterr()
        with monkeypatch.context() as patch:
            FullDisk(patch, written)
            code = led_fast_command(*train, run.path)
        if code == 0:
            break
        message = capsys.readouterr().err
        assert code == 2 and message.count("\n") == 1 and "No space left on device" in message
        again = ("train", "ring", "--resume", "--out") if run.config.exists() else train
        assert led_fast_command(*again, run.path) == 0
        assert same_state(load_state(run.model, "model")["model"], wanted)
    assert written == 10  # config, metrics, two checkpoints, model: the file and its folder's names of each


def test_a_row_of_metrics_that_was_cut_is_written_anew(tmp_path, quick, monkeypatch):
    append = led_fast.training.run.MetricsLog.append

    def cut(log, row):
        log._file.write(b'{"step": 1')
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(led_fast.training.session, "CHECKPOINT_EVERY", 4)
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(led_fast.training.run.MetricsLog, "append", cut)
        assert led_fast_command("train", "ring", "--steps", "12", "--out", out) == 2
    assert append and led_fast_command("train", "ring", "--resume", "--out", out) == 0
    assert [row["step"] for row in read_metrics(RunDirectory(out).metrics)] == [10, 12]


# ---- two at once, and nothing half begun


def test_two_processes_in_one_folder_are_refused(tmp_path, quick, capsys):
    out, new = tmp_path / "run", tmp_path / "new"
    new.mkdir()
    assert led_fast_command("train", "ring", "--steps", "2", "--out", out) == 0
    commands = (
        ("train", "ring", "--out", out, "--resume", "--steps", "4"),
        ("evaluate", out),
        ("train", "ring", "--out", new),
    )
    with RunDirectory(out).locked(), RunDirectory(new).locked():
        for arguments in commands:
            codes = []
            thread = threading.Thread(
                target=lambda line=arguments, codes=codes: codes.append(led_fast_command(*line))
            )
            thread.start()
            thread.join()
            assert codes == [2] and "another process is at work on the run in it" in capsys.readouterr().err


@pytest.mark.parametrize("made", [True, False], ids=["new folder", "empty folder"])
def test_an_early_error_leaves_no_run_half_begun(made, tmp_path, quick, monkeypatch):
    def fail(_):
        raise RuntimeError("early")

    if not made:
        (tmp_path / "run").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(led_fast.training.Trainer, "step", fail)
        with pytest.raises(RuntimeError, match="early"):
            main(["train", "ring", "--out", str(tmp_path / "run")])
    assert led_fast_command("train", "ring", "--steps", "2", "--out", tmp_path / "run") == 0


def test_without_a_home_classifiers_are_not_kept(monkeypatch):
    from led_fast.evaluation.features import classifier

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert classifier._user_cache() is None
