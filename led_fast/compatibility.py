"""What a build of the CUDA module asks of driver and GPU. Versions are CUDA's numbers: 13000 is 13.0."""

import re

_OLDEST_DRIVER = {11: "450", 12: "525", 13: "580"}


def _named(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def driver_error(toolkit: int, driver: int) -> str | None:
    """Why no kernel can run with this driver, or None.

    All minor versions of a toolkit run with any driver of the same major version or a later one (NVIDIA's "CUDA
    Compatibility", minor version compatibility), but for kernels that are shipped as PTX alone: see `gpu_error`.

    Args:
        toolkit: What the module was built with.
        driver: The latest CUDA that the driver supports, which nvidia-smi prints; 0 where there is none.
    """
    if driver == 0:
        return "no NVIDIA driver is installed"
    if driver // 1000 >= toolkit // 1000:
        return None
    oldest = _OLDEST_DRIVER.get(toolkit // 1000)
    return (
        f"it was built with CUDA {_named(toolkit)}, but the NVIDIA driver is for CUDA {_named(driver)}: update the "
        f"driver{f' to {oldest} or later' if oldest else ''}, or build led_fast with CUDA {driver // 1000}.x"
    )


def gpu_error(architectures: str, capability: tuple[int, int], toolkit: int, driver: int) -> str | None:
    """Why no kernel can run on this GPU, or None, also where the names do not tell.

    Args:
        architectures: As CMake names them: "90-real" for machine code of sm_90, "90-virtual" for PTX, "90" for both.
        capability: The GPU's, (9, 0) for sm_90.
        toolkit: See `driver_error`, as for the driver.
        driver: What compiles PTX, of its own CUDA version or an older one.
    """
    found = [re.fullmatch(r"(\d+)(\d)(a?)(-real|-virtual)?", name) for name in architectures.split()]
    if None in found:  # native, all, families
        return None
    ptx = False
    for major, minor, specific, kind in (name.groups() for name in found if name):
        built = int(major), int(minor)
        fits = built == capability if specific else built[0] == capability[0] and built[1] <= capability[1]
        if fits and kind != "-virtual":
            return None
        ptx |= kind != "-real" and not specific and built <= capability
    name = "{}.{}".format(*capability)
    if not ptx:
        return (
            f"it has kernels for {architectures}, none for this GPU of compute capability {name}: build led_fast on "
            f"this machine, or with CMAKE_CUDA_ARCHITECTURES={capability[0]}{capability[1]}"
        )
    if driver < toolkit:
        return (
            f"it has PTX alone for this GPU of compute capability {name}, made by CUDA {_named(toolkit)}, which the "
            f"driver, for CUDA {_named(driver)}, does not read: update the driver, or build led_fast with "
            f"CMAKE_CUDA_ARCHITECTURES={capability[0]}{capability[1]}"
        )
    return None
