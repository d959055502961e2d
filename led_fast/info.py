"""`python -m led_fast.info`: what is installed, what was built, and whether every operator computes what it should."""

import contextlib
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import led_fast
from led_fast import reference
from led_fast.compatibility import gpu_error
from led_fast.ops.soft_relu_per_feature import of_slopes


@dataclass(frozen=True)
class SelfCheck:
    """An operator beside its reference, on one input."""

    name: str
    operator: Callable[..., object]
    reference: Callable[..., object]
    make_inputs: Callable[[], tuple[object, ...]]

    def error(self, device: str) -> float:
        """The largest difference to the float64 reference on the CPU, relative to the largest value."""
        inputs = self.make_inputs()
        moved = [x.to(device, torch.float32) if isinstance(x, Tensor) else x for x in inputs]
        outputs, expected = (
            _tensors(f(*args)) for f, args in ((self.operator, moved), (self.reference, inputs))
        )
        errors = [
            (ours.cpu().double() - true).abs().max() / true.abs().max()
            for ours, true in zip(outputs, expected, strict=True)
        ]
        return torch.stack(errors).max().item()  # which a NaN outlives, unlike Python's max


def _tensors(result: object) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)  # type: ignore[call-overload]


def _steps(features: int, steps: int) -> tuple[Tensor, ...]:
    centers, heights, steepness = (_normal(features, steps) for _ in range(3))
    return centers, heights.exp(), steepness.exp(), _normal(features).exp()


def _normal(*shape: int) -> Tensor:
    return torch.randn(
        shape, dtype=torch.float64, generator=torch.Generator("cpu").manual_seed(0), device="cpu"
    )


def _mixture(components: int, dimension: int) -> tuple[Tensor, ...]:
    scales = -_normal(components, dimension).abs()
    return 2 * _normal(dimension, components).mT, scales, _normal(components).log_softmax(0)


SELF_CHECKS = [
    SelfCheck("soft_relu", led_fast.soft_relu, reference.soft_relu, lambda: (_normal(8, 1000),)),
    SelfCheck(
        "staircase", led_fast.staircase, reference.staircase, lambda: (_normal(8, 4, 99), *_steps(4, 3))
    ),
    SelfCheck(
        "staircase_inverse",
        led_fast.staircase_inverse,
        reference.staircase_inverse,
        lambda: (_normal(8, 4, 99), *_steps(4, 3)),
    ),
    SelfCheck(
        "soft_relu_inverse",
        led_fast.soft_relu_inverse,
        reference.soft_relu_inverse,
        lambda: (_normal(8, 1000),),
    ),
    SelfCheck(
        "soft_relu_per_feature",
        of_slopes,
        reference.soft_relu_per_feature,
        lambda: (_normal(8, 5, 200), *(_normal(4, 5).exp())),
    ),
    SelfCheck(
        "mixture_log_prob",
        led_fast.mixture_log_prob,
        reference.mixture_log_prob,
        lambda: (_normal(100, 3), *_mixture(20, 3)),
    ),
    SelfCheck(
        "mixture_log_prob_and_score",
        led_fast.mixture_log_prob_and_score,
        reference.mixture_log_prob_and_score,
        lambda: (_normal(100, 3), *_mixture(20, 3)),
    ),
    SelfCheck(
        "fourier_features",
        led_fast.fourier_features,
        reference.fourier_features,
        lambda: (_normal(100, 3), 3 * _normal(3, 70)),
    ),
    SelfCheck(
        "circulant_logdet",
        led_fast.circulant_logdet,
        reference.circulant_logdet,
        lambda: (_normal(2, 8, 8, 3, 3), (8, 8)),
    ),
    SelfCheck(
        "circular_conv_inverse",
        led_fast.circular_conv_inverse,
        reference.circular_conv_inverse,
        lambda: (_normal(4, 8, 8, 8), _normal(8, 8, 1, 1) + _normal(8, 8, 3, 2) / 8),
    ),
    SelfCheck(
        "perpendicular_norm",
        led_fast.perpendicular_norm,
        reference.perpendicular_norm,
        lambda: (_normal(4, 3, 8, 8), _normal(6, 3, 4, 4), None, 2, 1),
    ),
]
LARGEST_ERROR = 1e-4  # single precision on well-conditioned inputs


def report() -> tuple[list[str], bool]:
    """The lines to print, and whether every self-check passed."""
    build = led_fast._C.build_info()
    lines = [
        f"led_fast {led_fast.__version__}",
        f"python {platform.python_version()}, {platform.platform()}",
        f"torch {torch.__version__} (built against the headers of torch {build['torch_headers']}, stable ABI 2.11)",
        f"CPU module: {build['compiler']}, running with {build['cpu_instruction_set']}, "
        f"{torch.get_num_threads()} threads",
        f"CUDA module: {_cuda_state()}",
    ]
    devices = ["cpu", *(["cuda"] if _cuda_problem() is None and torch.cuda.is_available() else [])]
    passed = True
    for check in SELF_CHECKS:
        for device in devices:
            error = check.error(device)
            good = error < LARGEST_ERROR
            passed &= good
            lines.append(
                f"self-check {check.name} on {device}: {'ok' if good else 'WRONG'} (relative error {error:.1e})"
            )
    return lines, passed


def _cuda_problem() -> str | None:
    """Why no kernel runs on the GPU here. Looks at the GPU, which an import does not."""
    if led_fast.cuda_error is not None:
        return led_fast.cuda_error
    if not torch.cuda.is_available():
        return None
    build = led_fast._C_cuda.build_info()
    return gpu_error(
        build["cuda_architectures"],
        torch.cuda.get_device_capability(),
        build["cuda_toolkit"],
        build["cuda_driver"],
    )


def _cuda_state() -> str:
    problem = _cuda_problem()
    if problem is not None:
        return f"{'unusable' if led_fast.cuda_module_path() else 'absent'}: {problem}"
    build = led_fast._C_cuda.build_info()
    version = build["cuda_toolkit"]
    toolkit = f"CUDA {version // 1000}.{version % 1000 // 10}, architectures {build['cuda_architectures']}"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU visible"
    return f"loaded, {toolkit}; {gpu}"


if __name__ == "__main__":
    printed, all_passed = report()
    with contextlib.suppress(BrokenPipeError):  # the reader has left, as `head` does
        print("\n".join(printed), flush=True)
    sys.exit(0 if all_passed else 1)
