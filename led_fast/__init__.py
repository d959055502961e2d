"""Fast layers for normalising flows, and LED: a GAN whose critic is a normalised density."""

import filecmp as _filecmp
import sys as _sys
import warnings as _warnings
from importlib import import_module as _import_module
from importlib.metadata import version as _version
from pathlib import Path as _Path
from typing import TYPE_CHECKING
from typing import Any as _Any

import torch as _torch  # first: our modules need its libraries in the process

_FOLDER = _Path(__file__).parent


def _is_built(folder: _Path) -> bool:
    return any(folder.glob("_C.*.so"))


def _installed() -> _Path:
    """Where the package is that was built of these sources.

    Python started in the root of a checkout finds the sources first, which have no compiled module.
    """
    found = (_Path(entry, "led_fast").absolute() for entry in _sys.path)
    folder = next((folder for folder in found if _is_built(folder)), None)
    if folder is None:
        raise ImportError(
            f"led_fast in {_FOLDER} is the source folder without its compiled module, and no other one is installed: "
            "run `pip install .` there"
        )
    names = [str(path.relative_to(_FOLDER)) for path in _FOLDER.rglob("*.py")]
    if _filecmp.cmpfiles(_FOLDER, folder, names, shallow=False)[0] != names:
        _warnings.warn(
            f"led_fast is imported from {folder}, where it is built; the sources in {_FOLDER} differ from it: run "
            "`pip install .` there to use them",
            stacklevel=3,
        )
    return folder


if not _is_built(_FOLDER):
    _FOLDER = _installed()
    __path__ = [str(_FOLDER)]
    __file__ = str(_FOLDER / "__init__.py")
import led_fast._C as _C  # noqa: E402, F401

cuda_error: str | None = None
"""Why CUDA tensors are not supported in this process, or None where they are."""


def cuda_module_path() -> _Path | None:
    """Where the compiled CUDA module lies, or None where the package was built without it."""
    return next(_FOLDER.glob("_C_cuda.*.so"), None)


if cuda_module_path() is None:
    cuda_error = "the package was built without CUDA (no nvcc was found, or LED_FAST_CUDA=0)"
elif _torch.version.cuda is None:
    cuda_error = f"torch {_torch.__version__} is built without CUDA"
else:
    try:
        import led_fast._C_cuda as _C_cuda
    except ImportError as _error:
        cuda_error = f"the CUDA module did not load: {_error}"
    else:
        from led_fast.compatibility import driver_error as _driver_error

        _build = _C_cuda.build_info()
        if _driver_says := _driver_error(_build["cuda_toolkit"], _build["cuda_driver"]):
            cuda_error = f"the CUDA module cannot run: {_driver_says}"

from led_fast import nn as nn  # noqa: E402
from led_fast import reference as reference  # noqa: E402
from led_fast.ops import circulant_logdet as circulant_logdet  # noqa: E402
from led_fast.ops import circular_conv_inverse as circular_conv_inverse  # noqa: E402
from led_fast.ops import fourier_features as fourier_features  # noqa: E402
from led_fast.ops import mixture_log_prob as mixture_log_prob  # noqa: E402
from led_fast.ops import mixture_log_prob_and_score as mixture_log_prob_and_score  # noqa: E402
from led_fast.ops import perpendicular as perpendicular  # noqa: E402
from led_fast.ops import perpendicular_norm as perpendicular_norm  # noqa: E402
from led_fast.ops import soft_relu as soft_relu  # noqa: E402
from led_fast.ops import soft_relu_inverse as soft_relu_inverse  # noqa: E402
from led_fast.ops import staircase as staircase  # noqa: E402
from led_fast.ops import staircase_inverse as staircase_inverse  # noqa: E402

if TYPE_CHECKING:
    from led_fast import density as density
    from led_fast import flows as flows
    from led_fast import models as models
    from led_fast.estimator import LED as LED
    from led_fast.training import load as load

__version__ = _version("led_fast")
__all__ = [
    "LED",
    "circulant_logdet",
    "circular_conv_inverse",
    "cuda_error",
    "cuda_module_path",
    "density",
    "flows",
    "fourier_features",
    "load",
    "mixture_log_prob",
    "mixture_log_prob_and_score",
    "models",
    "nn",
    "perpendicular",
    "perpendicular_norm",
    "reference",
    "soft_relu",
    "soft_relu_inverse",
    "staircase",
    "staircase_inverse",
]

_LATER = {"density": "density", "flows": "flows", "models": "models", "load": "training", "LED": "estimator"}
"""Names that are imported where they are first used, from which module: `import led_fast` alone stays light."""


def __getattr__(name: str) -> _Any:
    if name not in _LATER:
        raise AttributeError(f"module 'led_fast' has no attribute {name!r}")
    module = _import_module(f"led_fast.{_LATER[name]}")
    return module if _LATER[name] == name else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
