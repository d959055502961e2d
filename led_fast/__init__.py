"""Fast layers for normalising flows, and LED: a GAN whose critic is a normalised density."""

from importlib.metadata import version as _version
from pathlib import Path as _Path

import torch as _torch  # first: our modules need its libraries in the process

if not any(_Path(__file__).parent.glob("_C.*.so")):
    raise ImportError(
        f"led_fast in {_Path(__file__).parent} is the source folder without its compiled module: "
        "run `pip install .` there and start Python from another folder"
    )
from led_fast import _C as _C  # noqa: E402

cuda_error: str | None = None
"""Why CUDA tensors are not supported in this process, or None where they are."""
if _torch.version.cuda is None:
    cuda_error = f"torch {_torch.__version__} is built without CUDA"
else:
    try:
        from led_fast import _C_cuda as _C_cuda
    except ImportError as _error:
        cuda_error = f"the CUDA module did not load: {_error}"

from led_fast import nn as nn  # noqa: E402
from led_fast import reference as reference  # noqa: E402
from led_fast.ops import circulant_logdet as circulant_logdet
from led_fast.ops import soft_relu as soft_relu  # noqa: E402

__version__ = _version("led_fast")
__all__ = ["circulant_logdet", "cuda_error", "nn", "reference", "soft_relu"]
