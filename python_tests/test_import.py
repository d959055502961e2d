"""What is there after `import led_fast`, and what that costs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import led_fast

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


@pytest.fixture
def checkout(tmp_path):
    """The root of a checkout that was not built in place, and an installed package further on."""
    package, installed = Path(led_fast.__file__).parent, tmp_path / "site"
    sources = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(package, tmp_path / "root" / "led_fast", ignore=sources)
    installed.mkdir()
    (installed / "led_fast").symlink_to(package)
    return tmp_path / "root", installed


def from_root(checkout, *arguments):
    root, installed = checkout
    places = [str(installed), *(p for p in sys.path if p and not (Path(p) / "led_fast").is_dir())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True
    )


def test_from_the_root_of_a_checkout_the_installed_package_is_found(checkout):
    done = from_root(checkout, "-m", "led_fast", "--version")
    assert (done.stdout, done.stderr) == (f"led-fast {led_fast.__version__}\n", "")
    code = "import led_fast.flows, led_fast as l; print(l.flows.__file__, l.__file__, l.cuda_module_path())"
    done = from_root(checkout, "-c", code)
    assert (
        done.stdout.count(str(checkout[1])) >= 2 and str(checkout[0]) not in done.stdout and not done.stderr
    )
    with (checkout[0] / "led_fast" / "files.py").open("a") as file:
        file.write("# changed\n")
    assert "differ from it: run `pip install .` there to use them" in from_root(checkout, "-c", code).stderr


def test_a_checkout_alone_says_what_to_do(checkout, monkeypatch):
    # Not in a process of its own, whose Python may have the package installed.
    monkeypatch.setattr(sys, "path", [str(checkout[0])])
    with pytest.raises(ImportError, match="no other one is installed"):
        led_fast._installed()
