"""Reads the signatures of a .cu file's launchers, so that nothing is said twice."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path

_DEFINITION = re.compile(r'extern\s+"C"\s+(?:\w+\s+)*?(?:int|cudaError_t)\s+(\w+)\s*\(([^)]*)\)\s*\{')
_SCALARS = {
    "bool": ctypes.c_bool,
    "int": ctypes.c_int,
    "unsigned": ctypes.c_uint,
    "int32_t": ctypes.c_int32,
    "uint32_t": ctypes.c_uint32,
    "int64_t": ctypes.c_int64,
    "uint64_t": ctypes.c_uint64,
    "size_t": ctypes.c_size_t,
    "float": ctypes.c_float,
    "double": ctypes.c_double,
    "cudaStream_t": ctypes.c_void_p,
}


@dataclass(frozen=True)
class Parameter:
    name: str
    ctype: type
    is_pointer: bool
    is_const: bool


@dataclass(frozen=True)
class Launcher:
    """An ``extern "C"`` function that launches kernels; its last parameter is the stream."""

    name: str
    parameters: tuple[Parameter, ...]


def _parameter(text: str) -> Parameter:
    text = re.sub(r"\b(__restrict__|std::)", "", text).strip()
    words, name = text[: -len(text.split()[-1])], re.split(r"[\s*]+", text)[-1]
    declared = text[: -len(name)].strip() or words
    if "*" in declared:
        return Parameter(name, ctypes.c_void_p, True, declared.startswith("const"))
    scalar = re.sub(r"\bconst\b", "", declared).strip()
    if scalar not in _SCALARS:
        raise TypeError(f"launcher parameter {text!r}: expected a pointer or one of {', '.join(_SCALARS)}")
    return Parameter(name, _SCALARS[scalar], False, True)


def read_launchers(source: Path) -> dict[str, Launcher]:
    """The launchers that a .cu file defines, by name."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", source.read_text(), flags=re.DOTALL)
    found = {}
    for name, parameters in _DEFINITION.findall(text):
        parsed = tuple(_parameter(p) for p in parameters.split(","))
        if parsed[-1].name != "stream":
            raise TypeError(f"{source}: the last parameter of {name} must be `cudaStream_t stream`")
        found[name] = Launcher(name, parsed)
    return found
