"""Fixtures of several test files. They import late: CUDA tests run where the application's packages are not."""

import pytest
from fake_gpu.isolation import (  # noqa: F401
    pytest_collection_modifyitems,
    pytest_runtest_protocol,
    pytest_unconfigure,
)


@pytest.fixture
def refuse(capsys, monkeypatch):
    """Runs a command that must be refused: exit code 2, one sentence on stderr, and not one training step."""
    from command_line import run

    from led_fast.training import Trainer

    monkeypatch.setattr(Trainer, "step", lambda _: pytest.fail("a training step was taken"))

    def refused(*arguments):
        capsys.readouterr()
        assert run(*arguments) == 2
        message = capsys.readouterr().err
        assert message.startswith("led-fast: ") and message.count("\n") == 1
        return message

    return refused


@pytest.fixture
def full_precision():
    """PyTorch's products in float32: by default cuDNN rounds the factors of convolutions to TF32."""
    from torch.backends import cuda, cudnn

    before = cuda.matmul.allow_tf32, cudnn.allow_tf32
    cuda.matmul.allow_tf32 = cudnn.allow_tf32 = False
    yield
    cuda.matmul.allow_tf32, cudnn.allow_tf32 = before
