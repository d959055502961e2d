"""Mutation test of the CPU kernels: each formula made wrong in turn must fail the operator's own tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from simt import build

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        build.missing_requirement() is not None, reason=build.missing_requirement() or "requirements are met"
    ),
]

# operator, file, text that stands there once, what it becomes
MUTANTS = [
    ("soft_relu", "soft_relu/math.h", "p.sharpness_log2), log1p =", "p.sharpness_log2 + p.u0), log1p ="),
    ("soft_relu", "soft_relu/math.h", "- p.t0)", "+ p.t0)"),
    ("soft_relu", "soft_relu/math.h", "log1p * p.inverse_alpha + (", "log1p * p.inverse_alpha - ("),
    ("soft_relu", "soft_relu/math.h", "e * p.slope_ratio + 1", "e * p.slope_ratio - 1"),
    ("soft_relu", "soft_relu/math.h", "e + p.slope_ratio", "e - p.slope_ratio"),
    ("soft_relu", "soft_relu/math.h", "return v >= 0 ?", "return v < 0 ?"),
    ("soft_relu", "soft_relu/math.h", "(e + 1) * numerator", "(e - 1) * numerator"),
    ("soft_relu", "soft_relu/math.h", "(1 - p.slope_ratio)) * reciprocal", "(1 + p.slope_ratio)) * reciprocal"),
    ("soft_relu", "soft_relu/math.h", "sharpness(Real(alpha - beta))", "sharpness(Real(alpha + beta))"),
    ("soft_relu", "soft_relu/math.h", "-85 : -705", "-850 : -7050"),
    ("soft_relu", "soft_relu/cpu.cpp", "numerators.log() - log1p_total", "numerators.log() + log1p_total"),
    ("soft_relu", "soft_relu/cpu.cpp", "log_slope -= log1ps[i]", "log_slope += log1ps[i]"),
    ("soft_relu", "soft_relu/cpu.cpp", "factors++ == p.safe_factors", "factors++ == 1000"),
    ("soft_relu", "soft_relu/cpu.cpp", "terms.slope + terms.log_slope", "terms.slope - terms.log_slope"),
    ("soft_relu", "soft_relu/cpu.cpp", "for (T& e : elements) e = infinity<T>();", "for (T& e : elements) e = T{};"),
    ("soft_relu", "common/elementary.h", "0x7fff + ((u >> 16) & 1)", "0x7fff"),
    ("soft_relu", "common/elementary.h", "0xfff + ((magnitude >> 13) & 1)", "0xfff"),
    ("soft_relu", "common/elementary.h", "magnitude < 0x38800000 ? subnormal", "magnitude < 0x38800000 ? 0u"),
    ("soft_relu", "common/elementary.h", "+ x * 0;", ";"),
]  # fmt: skip


class MutableBuild:
    """A copy of the sources, its build for the CPU, and a led_fast package made of both."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sources, self.package = folder, folder / "csrc", folder / "package"
        shutil.copytree(build.CSRC, self.sources)
        shutil.copy(build.ROOT / "CMakeLists.txt", folder)
        ignore = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(build.ROOT / "led_fast", self.package / "led_fast", ignore=ignore)
        options = {"LED_FAST_CUDA": "OFF", "Python_EXECUTABLE": sys.executable}
        definitions = [f"-D{name}={value}" for name, value in options.items()]
        build.run(["cmake", "-S", str(folder), "-B", str(folder / "build"), "-G", "Ninja", *definitions])

    def test(self, operator: str) -> subprocess.CompletedProcess[str]:
        """Builds, and runs the operator's tests."""
        build.run(["cmake", "--build", str(self.folder / "build")])
        build.run(["cmake", "--install", str(self.folder / "build"), "--prefix", str(self.package)])
        select = ["-k", "not compile and not opcheck and not threads"]  # slow, and about other things
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *select, f"test_{operator}.py"],
            cwd=build.ROOT / "python_tests",
            env=os.environ | {"PYTHONPATH": str(self.package)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture(scope="module")
def mutable(tmp_path_factory: pytest.TempPathFactory) -> MutableBuild:
    return MutableBuild(tmp_path_factory.mktemp("mutants"))


@pytest.mark.parametrize("operator", sorted({operator for operator, *_ in MUTANTS}))
def test_the_right_sources_pass(mutable, operator) -> None:
    done = mutable.test(operator)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("operator", "file", "right", "wrong"), MUTANTS, ids=[f"{m[0]}: {m[2]}" for m in MUTANTS]
)
def test_a_wrong_formula_fails(mutable, operator, file, right, wrong) -> None:
    path = mutable.sources / file
    text = path.read_text()
    assert text.count(right) == 1, f"{file} must hold this once: {right}"
    path.write_text(text.replace(right, wrong))
    try:
        done = mutable.test(operator)
    finally:
        path.write_text(text)
    assert done.returncode == 1, f"not caught\n{done.stdout}"
