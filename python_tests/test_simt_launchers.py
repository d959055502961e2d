"""The harness reads the signatures of launchers from the source."""

import ctypes
from pathlib import Path

import pytest
from simt.launchers import read_launchers


def parse(tmp_path: Path, text: str) -> dict:
    source = tmp_path / "cuda.cu"
    source.write_text(text)
    return read_launchers(source)


def test_signature(tmp_path):
    (launcher,) = parse(
        tmp_path,
        """
        extern "C" cudaError_t declared_only(int n, cudaStream_t stream);
        // extern "C" cudaError_t commented_out(int n, cudaStream_t stream) {}
        extern "C" cudaError_t launch(const float* __restrict__ x, void *out, std::int64_t n,
                                      const double alpha, bool flag, cudaStream_t stream) {
          return cudaSuccess;
        }
        """,
    ).values()
    assert launcher.name == "launch"
    parsed = [(p.name, p.ctype, p.is_pointer, p.is_const) for p in launcher.parameters]
    assert parsed == [
        ("x", ctypes.c_void_p, True, True),
        ("out", ctypes.c_void_p, True, False),
        ("n", ctypes.c_int64, False, True),
        ("alpha", ctypes.c_double, False, True),
        ("flag", ctypes.c_bool, False, True),
        ("stream", ctypes.c_void_p, False, True),
    ]


def test_parameters_that_ctypes_cannot_pass_are_refused(tmp_path):
    with pytest.raises(TypeError, match="launcher parameter 'Options options'"):
        parse(tmp_path, 'extern "C" int launch(Options options, cudaStream_t stream) {}')


def test_a_launcher_takes_a_stream(tmp_path):
    with pytest.raises(TypeError, match="the last parameter of launch must be `cudaStream_t stream`"):
        parse(tmp_path, 'extern "C" int launch(float* x, int n) {}')
