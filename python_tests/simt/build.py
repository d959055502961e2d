"""Builds the SIMT libraries with CMake, and variants of a kernel with the commands CMake uses."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
BUILD = ROOT / "build" / "simt"


def missing_requirement() -> str | None:
    """Why SIMT tests cannot run on this machine, or None where they can."""
    if platform.machine() != "x86_64":
        return f"the SIMT executor needs an x86-64 machine, this is {platform.machine()}"
    for program in ("cmake", "ninja", "g++", "nvcc"):
        if shutil.which(program) is None:
            return f"the SIMT executor needs {program} (nvcc for the CUDA headers beside it)"
    return None


def kernel_source(name: str) -> Path:
    """The .cu file of an operator, or of one of the executor's own test libraries."""
    own = CSRC / "simt" / "test_kernels" / f"{name}.cu"
    return own if own.exists() else CSRC / name / "cuda.cu"


def run(command: list[str], **kwargs) -> str:
    """Output of a command; a RuntimeError with all it wrote where it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kwargs)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)}\n{done.stdout}")
    return done.stdout


@functools.cache
def configure() -> None:
    run(["cmake", "-S", str(CSRC / "simt"), "-B", str(BUILD), "-G", "Ninja"])


@functools.cache
def library(name: str, build: str) -> Path:
    """Path of the library ``simt_<name>_<build>``, built if it is out of date."""
    configure()
    run(["cmake", "--build", str(BUILD), "--target", f"simt_{name}_{build}"])
    return BUILD / f"libsimt_{name}_{build}.so"


@functools.cache
def _commands(name: str, build: str) -> tuple[list[str], list[str]]:
    """How the kernels of a library are compiled, and how it is linked."""
    library(name, build)
    source = kernel_source(name)
    compiles = json.loads((BUILD / "compile_commands.json").read_text())
    compile_command = next(
        shlex.split(c["command"])
        for c in compiles
        if Path(c["file"]) == source and f"simt_{name}_{build}.dir" in c["command"]
    )
    listed = run(["ninja", "-C", str(BUILD), "-t", "commands", f"libsimt_{name}_{build}.so"])
    link = next(line for line in reversed(listed.splitlines()) if f"-o libsimt_{name}_{build}.so" in line)
    link_command = shlex.split(link.removeprefix(": && ").removesuffix(" && :"))
    return compile_command, link_command


def variant(name: str, replacements: dict[Path, str], directory: Path, build: str = "check") -> Path:
    """Builds a library with other contents for some files below csrc, in `directory`.

    Args:
        name: operator or test library.
        replacements: new text by path of the file it stands in for.
        directory: where the changed sources and the library go.
        build: "plain", "check" or "asan".
    """
    compile_command, link_command = _commands(name, build)
    tree = directory / "csrc"
    source = kernel_source(name)
    for folder in {source.parent, CSRC / "common"}:
        shutil.copytree(folder, tree / folder.relative_to(CSRC), dirs_exist_ok=True)
    for path, text in replacements.items():
        changed = tree / path.relative_to(CSRC)
        changed.parent.mkdir(exist_ok=True)
        changed.write_text(text)
    # A name of its own: the loader takes libraries of one name for the same.
    tag = hashlib.sha256(str(directory).encode()).hexdigest()[:12]
    target, output = directory / "kernels.o", directory / f"libsimt_{name}_{tag}.so"
    moved = str(tree / source.relative_to(CSRC))

    compile_command = [f"-I{tree}" if a == f"-I{CSRC}" else a for a in compile_command]
    compile_command = [moved if a == str(source) else a for a in compile_command]
    original_object = compile_command[compile_command.index("-o") + 1]
    compile_command[compile_command.index("-o") + 1] = str(target)
    # The unchanged remainder of csrc (the executor's headers).
    compile_command.insert(compile_command.index(f"-I{tree}") + 1, f"-I{CSRC}")
    run([*compile_command, "-w"], cwd=BUILD)

    link_command = [str(target) if a == original_object else a for a in link_command]
    link_command[link_command.index("-o") + 1] = str(output)
    run(link_command, cwd=BUILD)
    return output


def asan_preload() -> str:
    """The value of LD_PRELOAD under which a Python process can load an asan library."""
    return ":".join(run(["g++", f"-print-file-name={lib}"]).strip() for lib in ("libasan.so", "libubsan.so"))


def asan_loaded() -> bool:
    return "libasan" in os.environ.get("LD_PRELOAD", "")
