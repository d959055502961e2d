"""The process of `fake_gpu.isolation`: a plugin of pytest that runs the tests it is told to, on the device."""

import json
import os
import types

import pytest

import fake_gpu
from fake_gpu import graphs
from fake_gpu.isolation import _WORKER
from led_fast.training import graph

fake_gpu.register()
graph.torch = types.SimpleNamespace(cuda=graphs.cuda())  # steps are recorded there as on CUDA


class _Reports:
    """Keeps the reports of the test that runs."""

    def __init__(self) -> None:
        self.found: list[pytest.TestReport] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.found.append(report)


def pytest_runtestloop(session: pytest.Session) -> bool:
    """Runs the tests whose names come in, until none does."""
    asked, answer = map(int, os.environ[_WORKER].split())
    items = {item.nodeid: item for item in session.items}
    config, reports = session.config, _Reports()
    config.pluginmanager.register(reports)
    with os.fdopen(asked) as commands, os.fdopen(answer, "w", buffering=1) as answers:
        for line in commands:
            name, following = json.loads(line)
            reports.found = []
            items[name].config.hook.pytest_runtest_protocol(item=items[name], nextitem=items.get(following))
            found = [
                config.hook.pytest_report_to_serializable(config=config, report=report)
                for report in reports.found
            ]
            answers.write(json.dumps(found) + "\n")
    return True
