"""Runs the project's CUDA kernels on the CPU, checks them, and checks that the checks can fail.

An operator's test file declares a :class:`Suite`: its cases and its wrong variants.
See ``csrc/simt/README.md``.
"""

from simt.library import SimtLibrary, TrafficRow
from simt.suite import Case, Kernels, Suite

__all__ = ["Case", "Kernels", "SimtLibrary", "Suite", "TrafficRow"]
