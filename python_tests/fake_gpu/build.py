"""Builds the device's extension module once for every content of its sources and version of torch."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import torch

FOLDER = Path(__file__).parent
BUILD = FOLDER.parents[1] / "build" / "fake_gpu"
NAME = "_fake_gpu"


def missing_requirement() -> str | None:
    """Why the device cannot be built on this machine, or None where it can."""
    if _compiler() is None:
        return "the fake GPU needs a C++ compiler (c++, g++ or clang++)"
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return None if header.exists() else f"the fake GPU needs Python's headers: there is no {header}"


def library() -> Path:
    """Path of the extension module; half a minute where it is not there yet, in one process of all that ask."""
    sources = sorted([*FOLDER.glob("*.cpp"), *FOLDER.glob("*.h")])
    versions = (torch.__version__, sysconfig.get_platform(), sysconfig.get_python_version())
    content = hashlib.sha256(" ".join(versions).encode())
    for source in sources:
        content.update(source.read_bytes())
    path = BUILD / content.hexdigest()[:16] / f"{NAME}.so"
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _compile(path)
    return path


def _compile(path: Path) -> None:
    root = Path(torch.__file__).parent
    includes = [root / "include", root / "include/torch/csrc/api/include", sysconfig.get_paths()["include"]]
    unfinished = path.with_suffix(".tmp")
    unfinished.parent.mkdir(exist_ok=True)
    command = [
        *(_compiler() or "c++", "-O1", "-std=c++20", "-fPIC", "-shared", "-w"),
        *(f"-DTORCH_EXTENSION_NAME={NAME}", "-DTORCH_API_INCLUDE_EXTENSION_H"),
        *(part for include in includes for part in ("-isystem", str(include))),
        *(str(FOLDER / "module.cpp"), "-o", str(unfinished)),
        *(f"-L{root}/lib", "-ltorch", "-ltorch_cpu", "-ltorch_python", "-lc10", f"-Wl,-rpath,{root}/lib"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the fake GPU does not compile: {' '.join(command)}\n{done.stderr}")
    unfinished.replace(path)


def _compiler() -> str | None:
    names = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    return next((name for name in names if name and shutil.which(name)), None)
