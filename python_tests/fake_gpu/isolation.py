"""Runs the tests in files test_fake_gpu*.py in a process of their own, because a registered device stays in torch.

Pytest's hooks, imported by conftest.py. The process is one more pytest, which collects those files, runs the tests
that it is told to, one by one, and sends back their reports: `fake_gpu.worker`.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

import pytest

from fake_gpu import build

TESTS = Path(__file__).parents[1]
_PATTERN = "test_fake_gpu*.py"
_WORKER = "FAKE_GPU_WORKER"  # in the environment of the process


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips the tests where the device cannot be built."""
    missing = build.missing_requirement()
    for item in items if missing else []:
        if _isolated(item):
            item.add_marker(pytest.mark.skip(reason=missing))


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Has the test run in the other process, which is started by the first one."""
    if not _isolated(item) or item.get_closest_marker("skip"):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    worker = item.config.stash.get(_KEY, None)
    if worker is None or not worker.alive:
        worker = item.config.stash[_KEY] = _Worker(item.config)
    following = nextitem.nodeid if nextitem is not None and _isolated(nextitem) else None
    for report in worker.run(item, following):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends the other process."""
    worker = config.stash.get(_KEY, None)
    if worker is not None:
        worker.close()


def _isolated(item: pytest.Item) -> bool:
    return item.path.match(_PATTERN) and _WORKER not in os.environ


class _Worker:
    """The other process, with a pipe each way; a line each way is a JSON value."""

    def __init__(self, config: pytest.Config) -> None:
        self.config, self.alive, self._broken = config, True, ""
        try:
            build.library()  # built here, where no test waits for it
        except RuntimeError as error:
            self._broken = str(error)
            return
        asked, self._ask = os.pipe()
        self._answers, answer = os.pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        files = sorted(str(path) for path in TESTS.glob(_PATTERN))
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "pytest", "-p", "fake_gpu.worker", "-p", "no:cacheprovider"),
                *("-p", "no:xdist", "-o", "addopts=", f"--rootdir={config.rootpath}", "-q", *files),
            ],
            env={**os.environ, "PYTEST_ADDOPTS": "", _WORKER: f"{asked} {answer}", "PYTHONPATH": _path()},
            cwd=TESTS,  # not where the folder of sources would be imported for the package
            pass_fds=(asked, answer),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        os.close(asked)
        os.close(answer)
        self._to: IO[str] = os.fdopen(self._ask, "w", buffering=1)
        self._from: IO[str] = os.fdopen(self._answers)

    def run(self, item: pytest.Item, following: str | None) -> list[pytest.TestReport]:
        """The reports of a test's setup, call and teardown."""
        if self._broken:
            return [_failed(item, self._broken)]
        try:
            self._to.write(json.dumps([item.nodeid, following]) + "\n")
            line = self._from.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.alive = False
            return [self._died(item)]
        hook = self.config.hook.pytest_report_from_serializable
        return [hook(config=self.config, data=data) for data in json.loads(line)]

    def close(self) -> None:
        if not self._broken:
            self._to.close()
            self._process.wait()

    def _died(self, item: pytest.Item) -> pytest.TestReport:
        code = self._process.wait()
        self._log.seek(0)
        said = self._log.read().decode(errors="replace")[-5000:]
        return _failed(item, f"the process with the fake GPU died (exit code {code}) and said:\n{said}")


def _failed(item: pytest.Item, message: str) -> pytest.TestReport:
    return pytest.TestReport(item.nodeid, item.location, {}, "failed", message, "call")


_KEY = pytest.StashKey["_Worker | None"]()


def _path() -> str:
    return os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
