"""Nothing of the SIMT executor is in a wheel."""

import os
import sys
import zipfile

import pytest
from simt import build


@pytest.mark.slow
def test_a_wheel_has_no_simt_object(tmp_path):
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    command = [sys.executable, "-m", "pip", "wheel", *options, str(build.ROOT)]
    build.run(command, env=os.environ | {"LED_FAST_CUDA": "auto"})
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        libraries = [name for name in archive.namelist() if name.endswith(".so")]
        assert libraries and not [name for name in archive.namelist() if "simt" in name.lower()]
        for name in libraries:
            assert b"simt_" not in archive.read(name), f"{name} has symbols of the executor"
