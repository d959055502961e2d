"""Fixtures of several test files."""

import pytest
from command_line import run
from fake_gpu.isolation import (  # noqa: F401
    pytest_collection_modifyitems,
    pytest_runtest_protocol,
    pytest_unconfigure,
)

from led_fast.training import Trainer


@pytest.fixture
def refuse(capsys, monkeypatch):
    """Runs a command that must be refused: exit code 2, one sentence on stderr, and not one training step."""
    monkeypatch.setattr(Trainer, "step", lambda _: pytest.fail("a training step was taken"))

    def refused(*arguments):
        capsys.readouterr()
        assert run(*arguments) == 2
        message = capsys.readouterr().err
        assert message.startswith("led-fast: ") and message.count("\n") == 1
        return message

    return refused
