"""Cells: done once, kept, resumed where they were stopped, and refused where the settings are others."""

import json
import os
import signal

import pytest
import torch
from coarse import coarsen
from rich.console import Console

from led_fast import __version__
from led_fast.cli import main
from led_fast.data import open_source
from led_fast.errors import InputError
from led_fast.reproduce.cell import Cell
from led_fast.reproduce.content import read_content, results_by_variant, write_content
from led_fast.reproduce.harness import Stopped, run_cells
from led_fast.reproduce.led import led_cell
from led_fast.training import DivergenceError, TrainConfig, Trainer

QUIET = Console(quiet=True)


def square(folder, x):
    (folder / f"call-{len(list(folder.iterdir()))}").touch()
    if x is None:
        raise ArithmeticError("nothing to square")
    return {"square": x * x, "threads": torch.get_num_threads()}


def squares(*values):
    return [Cell(f"square-{x}", square, {"x": x}) for x in values]


@pytest.mark.parametrize("jobs", [1, 2])
def test_cells_are_done_once_in_order_and_on_one_thread(tmp_path, jobs):
    threads = torch.get_num_threads()
    first = run_cells(squares(2, 3, 4)[: 3 - jobs], tmp_path, "command", jobs, QUIET)
    both = run_cells(squares(2, 3), tmp_path, "command", jobs, QUIET)
    assert [r.result for r in both] == [{"square": 4, "threads": 1}, {"square": 9, "threads": 1}]
    assert both[0].content == first[0].content and torch.get_num_threads() == threads
    assert len(list(both[0].folder.glob("call-*"))) == 1
    assert both[1].content.keys() >= {"command", "version", "torch", "machine", "seconds", "settings"}


def test_other_settings_are_refused(tmp_path):
    run_cells(squares(2), tmp_path, "command", 1, QUIET)
    with pytest.raises(InputError, match=r"square-2: was begun with other settings"):
        run_cells([Cell("square-2", square, {"x": 3})], tmp_path, "command", 1, QUIET)


def test_what_a_stopped_cell_left_serves_no_other_settings(tmp_path):
    (cell,) = squares(None)
    with pytest.raises(ArithmeticError):
        run_cells([cell], tmp_path, "command", 1, QUIET)
    with pytest.raises(InputError, match=r"square-None: was begun with other settings"):
        run_cells([Cell(cell.name, square, {"x": 3})], tmp_path, "command", 1, QUIET)


def test_a_failed_cell_keeps_the_others(tmp_path):
    with pytest.raises(RuntimeError, match="square-None failed"):
        run_cells(squares(2, None), tmp_path, "command", 2, QUIET)
    assert [r.result["square"] for r in run_cells(squares(2), tmp_path, "command", 1, QUIET)] == [4]


def read_what_is_missing(folder):
    return {"text": (folder / "missing").read_text()}


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_of_the_disk_is_no_traceback(tmp_path, capfd, jobs):
    with pytest.raises((InputError, OSError)):
        run_cells([Cell("read", read_what_is_missing, {})], tmp_path, "command", jobs, QUIET)
    assert "Traceback" not in capfd.readouterr().err


def small_run(seed=0):
    return led_cell(f"ring-{seed}", TrainConfig.of(open_source("ring"), seed=seed, steps=4))


def test_a_stopped_training_goes_on_to_the_same_result(tmp_path, monkeypatch):
    coarsen(monkeypatch.setattr)
    whole = run_cells([small_run()], tmp_path / "whole", "command", 1, QUIET)
    step = Trainer.step

    def interrupted(self):
        if self.steps_done == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self)

    monkeypatch.setattr(Trainer, "step", interrupted)
    with pytest.raises(Stopped, match="stopped with 0 of 1 parts done") as stopped:
        run_cells([small_run()], tmp_path / "parts", "command", 1, QUIET)
    assert stopped.value.signal == signal.SIGTERM
    taken = []
    monkeypatch.setattr(Trainer, "step", lambda self: (taken.append(self.steps_done), step(self))[1])
    parts = run_cells([small_run()], tmp_path / "parts", "command", 1, QUIET)
    assert taken == [3] and parts[0].result == whole[0].result


def interrupt(folder):
    os.kill(os.getpid(), signal.SIGINT)
    return {}


def test_ctrl_c_stops_a_cell_that_is_no_training(tmp_path):
    cells = [Cell("done", done, {}), Cell("interrupted", interrupt, {})]
    with pytest.raises(Stopped, match="stopped with 1 of 2 parts done") as stopped:
        run_cells(cells, tmp_path, "command", 1, QUIET)
    assert stopped.value.signal == signal.SIGINT


def done(folder):
    return {}


def wait_for_a_signal(folder):
    (folder / "started").touch()
    signal.pause()
    return {}


def test_a_signal_to_the_parent_stops_its_processes(tmp_path):
    cells = [Cell(f"wait-{i}", wait_for_a_signal, {}) for i in range(3)]

    def ring(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 4)
    try:
        with pytest.raises(Stopped) as stopped:
            run_cells(cells, tmp_path, "command", 2, QUIET)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert stopped.value.signal == signal.SIGTERM
    assert not (tmp_path / "cells" / "wait-2").exists()


def test_a_diverged_training_is_a_result(tmp_path, monkeypatch):
    def diverge(self):
        raise DivergenceError("the critic's loss is nan")

    monkeypatch.setattr(Trainer, "step", diverge)
    (cell,) = run_cells([small_run()], tmp_path, "command", 1, QUIET)
    assert cell.result["diverged"] == "training diverged at step 1: the critic's loss is nan"  # no path


def test_the_content_has_every_cell(tmp_path):
    results = run_cells(squares(2, 3), tmp_path, "led-fast x", 1, QUIET)
    results[0].content["version"] = "0.0.1"  # made before an update
    write_content(tmp_path / "x.json", "x", "led-fast x", True, results)
    content = read_content(tmp_path / "x.json")
    assert content["quick"] is True and content["command"] == "led-fast x"
    assert content["cells"]["square-3"]["settings"] == {"x": 3}
    assert [cell["version"] for cell in content["cells"].values()] == ["0.0.1", __version__]
    assert [r["square"] for r in results_by_variant(content)["square"]] == [4, 9]
    assert content == json.loads((tmp_path / "x.json").read_text())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["figure2"], "want one of table1, figure1, "),
        (["table1", "--seeds", "0"], "--seeds: want a positive number, got 0"),
        (["table1", "--jobs", "-1"], "--jobs: want a positive number, got -1"),
    ],
)
def test_bad_input_is_refused(tmp_path, capsys, arguments, message):
    assert main(["reproduce", *arguments, "--out", str(tmp_path / "new")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_file_is_no_folder_for_results(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["reproduce", "figure6", "--out", str(tmp_path / "file")]) == 2
    assert "File exists" in capsys.readouterr().err
