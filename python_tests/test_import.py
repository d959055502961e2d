"""What is there after `import led_fast`, and what that costs."""

import subprocess
import sys
from pathlib import Path

# Not the sources' folder, where Python would import those instead of the package.
ELSEWHERE = Path(__file__).parent


def run(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ELSEWHERE, capture_output=True, text=True, check=True).stdout


def test_packages_are_there_and_loaded_only_where_they_are_used():
    code = """
import sys
import led_fast
print([name for name in ("flows", "density", "models", "training") if f"led_fast.{name}" in sys.modules])
print(led_fast.flows.Linear, led_fast.density.DensityModel, led_fast.models.points_critic, led_fast.load)
print({"flows", "density", "models", "load", "nn"} <= set(dir(led_fast)))
"""
    loaded, found, listed = run(code).splitlines()
    assert loaded == "[]" and "led_fast.flows.linear.Linear" in found and "function load" in found
    assert listed == "True"


def test_a_name_that_is_not_there_is_an_attribute_error():
    assert "no attribute 'flow'" in run(
        "import led_fast\ntry:\n    led_fast.flow\nexcept AttributeError as e:\n    print(e)"
    )
